"""The paper's claims decided over seeds: effect sizes with intervals.

Each seed has its own baseline, control and networks, and gives one number an effect,
whose mean over seeds has an interval by Student's t. The intervals of one page hold
together at 95 % (Bonferroni). An effect speaks for its claim where its interval lies
within the range that the claim says, and against it where it lies outside. Of fewer
than 5 seeds there is no interval, and nothing speaks. Means over settings may hide one
that differs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.report.judged import FEWEST, POINT, SETTING
from experiments.report.pairs import DIFFERENT
from experiments.sampling import LEVEL, half_width
from experiments.study.grid import CLIPS
from experiments.study.names import MODE_NAMES
from experiments.tables import count, signed_emd

EFFECTS = 15  # of all claims, that the level is shared between
# Differences of EMD in the paper at 6 bits: of uniform narrow and LQ-Net from uniform
# wide, and of the uniform clips.
EQUAL_APART, CLIPS_APART = 0.0063, 0.0059
TRAINED = 0.05  # accuracy that a network which trains may lose
_ANY = np.inf


class Effect(NamedTuple):
    """An effect over seeds.

    Attributes:
        name: what was measured, in words.
        mean: over seeds.
        low, high: the ends of its interval; of fewer than 5 seeds the lowest and the
            highest value.
        wanted: the range in which the claim says that it lies.
        show: prints a value.
        unit: of the values, in words.
        seeds: how many there are.
    """

    name: str
    mean: float
    low: float
    high: float
    wanted: tuple[float, float]
    show: Callable[[float], str]
    unit: str
    seeds: int

    @property
    def sign(self) -> int:
        """1 where the interval lies within the range, -1 where outside, else 0."""
        if self.seeds < FEWEST:
            return 0
        least, most = self.wanted
        inside = least < self.low and self.high < most
        return int(inside) - int(self.high < least or most < self.low)

    def estimate_seeds(self) -> float:
        """Estimate the seeds whose interval would leave the range's edges out."""
        edge = min(abs(self.mean - edge) for edge in self.wanted)
        half = (self.high - self.low) / 2
        return self.seeds * (half / edge) ** 2 if edge else np.inf

    def __str__(self) -> str:
        """Return the effect and its interval in words."""
        if np.isnan(self.mean):
            return f"{self.name}: not measured"
        mean, low, high = map(self.show, (self.mean, self.low, self.high))
        ends = f" [{low}, {high}]" * (self.low < self.high)
        return f"{self.name} {mean}{self.unit}{ends}"


def estimate_deciding_seeds(effects: Sequence[Effect]) -> float:
    """Estimate the seeds that would decide a claim: against it by one, or by all."""
    open_ = [effect for effect in effects if not effect.sign]
    against = [
        effect.estimate_seeds()
        for effect in open_
        if not effect.wanted[0] <= effect.mean <= effect.wanted[1]
    ]
    if against:
        return min(against)
    return max((effect.estimate_seeds() for effect in open_), default=np.inf)


def measure(
    name: str,
    values: pd.Series,
    wanted: tuple[float, float],
    show: Callable[[float], str],
    unit: str = "",
    *,
    tests: int = 1,
) -> Effect:
    """Measure an effect from its value in each seed, one of ``tests`` alike."""
    values = values.dropna()
    mean, low, high = map(float, (values.mean(), values.min(), values.max()))
    if len(values) >= FEWEST:
        half = half_width(values, 1 - (1 - LEVEL) / (EFFECTS * tests))
        low, high = mean - half, mean + half
    return Effect(name, mean, low, high, wanted, show, unit, len(values))


def _table(judged: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return a column's values, a line a seed and a column a setting."""
    quantized = judged[~judged["full"]]
    wide = quantized.pivot(index="seed", columns=SETTING, values=column)
    return wide.dropna().astype(float)


def _alive(judged: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of settings that collapsed in no seed."""
    collapsed = (judged["state"] == "collapsed").groupby([judged[c] for c in SETTING])
    return judged[~collapsed.transform("any")]


def _mean(judged: pd.DataFrame, column: str, **wanted) -> pd.Series:
    """Return the mean of each seed over the settings with these values."""
    for name, value in wanted.items():
        judged = judged[judged[name] == value]
    return _table(judged, column).mean(axis=1)


_POINTS = ("{:+.2f}".format, " points")


def _times(value: float) -> str:
    return f"{np.exp(value):.2f}"


def _loss(name: str, rows: pd.DataFrame, wanted: tuple[float, float]) -> Effect:
    return measure(name, 100 * _mean(rows, "loss"), wanted, *_POINTS)


def equal_accuracy(judged: pd.DataFrame) -> list[Effect]:
    """Measure the setting of equal accuracy that surely drifts furthest.

    Each is compared, in accuracy and EMD, with the same procedure without a quantizer:
    of all pairs of settings there are thousands, and a level shared between them
    decides nothing. One setting is enough; it takes all of them to contradict. Where
    none is sure it is the one that the fewest seeds more would decide, of fewer than 5
    seeds the one furthest off.
    """
    alive = _alive(judged[judged["margin"] > 0])
    tests = alive.groupby(SETTING).ngroups
    found: list[tuple[Effect, Effect]] = []
    moved = alive[alive["emd_mean"] > 0]
    for (mode, setting), own in moved.groupby(SETTING, sort=False):
        same = measure(
            "accuracy below it",
            100 * (own["plain_accuracy"] - own["accuracy"]),
            (-100 * POINT, 100 * POINT),
            *_POINTS,
            tests=tests,
        )
        apart = measure(
            f"EMD of {setting}, {MODE_NAMES[mode]}, over that without a quantizer",
            np.log(own["emd_mean"] / own["margin"]),
            (np.log(DIFFERENT), _ANY),
            _times,
            " times",
            tests=tests,
        )
        found.append((apart, same))
    sure = [x for x in found if x[0].sign == x[1].sign == 1]
    if sure:
        return list(max(sure, key=lambda x: x[0].low))
    open_ = [x for x in found if -1 not in (x[0].sign, x[1].sign)]
    likely = [x for x in open_ if all(e.wanted[0] < e.mean < e.wanted[1] for e in x)]
    enough = [x for x in likely or open_ or found if x[0].seeds >= FEWEST]
    if enough:
        return list(min(enough, key=estimate_deciding_seeds))
    return list(max(likely or open_, key=lambda x: x[0].mean, default=()))


def wide_clip(judged: pd.DataFrame) -> list[Effect]:
    """Measure how much further the wide clip drifts, where neither clip collapsed."""
    fell = judged.loc[judged["state"] == "collapsed", ["grid", "bits"]]
    fell = set(fell.itertuples(index=False, name=None))
    keys = judged[["grid", "bits"]].itertuples(index=False, name=None)
    both = judged[[key not in fell for key in keys]]
    if not len(both):
        return []
    return [_compare_clips(both, (0, _ANY))]


def _compare_clips(judged: pd.DataFrame, wanted: tuple[float, float]) -> Effect:
    wide, narrow = (
        _mean(judged, "emd_mean", clip=CLIPS[k]) for k in ("wide", "narrow")
    )
    text = "EMD of the wide clip less that of the narrow one"
    return measure(text, wide - narrow, wanted, signed_emd)


def lq_net(judged: pd.DataFrame) -> list[Effect]:
    """Measure what LQ-Net loses, how far it drifts, and what the clip changes."""
    excess = _mean(judged, "excess")
    return [
        _loss("accuracy lost", judged, (-_ANY, 100 * POINT)),
        measure("EMD above the control's", excess, (-_ANY, EQUAL_APART), signed_emd),
        _compare_clips(judged, (-CLIPS_APART, CLIPS_APART)),
    ]


def accuracy_first(judged: pd.DataFrame) -> list[Effect]:
    """Measure how far accuracy is ahead of EMD at the bits between fewest and most.

    In each mode that has three bit widths or more.
    """
    found = []
    for mode, rows in judged.groupby("mode", sort=False):
        found += _measure_lead(rows, MODE_NAMES[mode])
    return found


def _measure_lead(judged: pd.DataFrame, mode: str) -> list[Effect]:
    leads = []
    for _, line in judged.groupby("way", sort=False):
        if line["bits"].nunique() < 3:
            continue
        few, most = line["bits"].min(), line["bits"].max()
        accuracy, emd = (
            line.pivot(index="seed", columns="bits", values=column)
            .dropna()
            .astype(float)
            for column in ("accuracy", "emd_mean")
        )
        # A method that loses little has little to recover.
        lost = (accuracy[most] - accuracy[few]).mean() > POINT
        if lost and (emd[most] < emd[few] / 2).all():
            leads.append(_share_back(accuracy, few, most) - _share_back(emd, few, most))
    if not leads:
        return []
    mean = pd.concat(leads, axis=1).mean(axis=1)
    methods = count(len(leads), "method")
    text = f"share of accuracy that is back less that of EMD, {mode} ({methods})"
    return [measure(text, mean, (0, _ANY), "{:+.2f}".format)]


def _share_back(values: pd.DataFrame, few: int, most: int) -> pd.Series:
    """Return of what the most bits change the share that the bits between do.

    The share is a ratio of means over seeds; each seed's value is its linear part, by
    which the interval is right to first order (Cochran, Sampling Techniques, 1977,
    section 6.4). Shares of single seeds would divide by numbers near 0.
    """
    whole = values[most] - values[few]
    part = values.drop(columns=[few, most]).mean(axis=1) - values[few]
    share = part.mean() / whole.mean()
    return share + (part - share * whole) / whole.mean()


def four_bits(judged: pd.DataFrame) -> list[Effect]:
    """Measure what membranes of 2 and of 4 bits lose, and how far they drift."""
    two, four = (judged[judged["bits"] == bits] for bits in (2, 4))
    if not len(two) or not len(four):
        return []
    return [
        _loss("accuracy lost with 2 bits", two, (100 * POINT, _ANY)),
        _loss("accuracy lost with 4 bits", four, (-_ANY, 100 * POINT)),
        measure(
            "EMD above the control's with 4 bits",
            _mean(four, "excess"),
            (-_ANY, EQUAL_APART),
            signed_emd,
        ),
    ]


def unsigned_membranes(judged: pd.DataFrame) -> list[Effect]:
    """Measure what unsigned membranes gain over signed ones, unless both collapsed."""
    if judged.loc[judged["state"] == "collapsed", "signed"].nunique() == 2:
        return []
    gain, more = (
        _mean(judged, column, signed=False) - _mean(judged, column, signed=True)
        for column in ("accuracy", "emd_mean")
    )
    text = "unsigned less signed"
    return [
        measure(f"accuracy, {text},", 100 * gain, (0, _ANY), *_POINTS),
        measure(f"EMD, {text},", more, (-_ANY, 0), signed_emd),
    ]


def lq_membranes(judged: pd.DataFrame) -> list[Effect]:
    """Measure the accuracy that LQ-Net on membranes loses where it loses least."""
    least = 100 * _table(judged, "loss").min(axis=1)
    text = "accuracy lost by the best setting"
    return [measure(text, least, (100 * TRAINED, _ANY), *_POINTS)]


MEASURES: dict[str, Callable[[pd.DataFrame], list[Effect]]] = {
    "equal_accuracy": equal_accuracy,
    "wide_clip": wide_clip,
    "lq_net": lq_net,
    "accuracy_first": accuracy_first,
    "four_bits": four_bits,
    "unsigned": unsigned_membranes,
    "lq_membranes": lq_membranes,
}
