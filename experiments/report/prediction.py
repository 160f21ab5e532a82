"""Does EMD predict anything? Rank correlations over rows, with bootstrap intervals."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from experiments.common import MODES, Row
from experiments.report.judge import Verdict, verdicts
from experiments.report.names import MODE_NAMES, is_full
from experiments.report.table import aligned, over_layers

FEWEST = 8  # rows that a correlation is taken of
RESAMPLES = 2000
LEVEL = 95

PREDICTORS: dict[str, Callable[[Row], float | None]] = {
    "EMD": lambda row: row["emd_mean"],
    "paired shift": lambda row: over_layers(row, "paired_shift"),
    "time-W1": lambda row: over_layers(row, "time_w1"),
}
OUTCOMES: dict[str, Callable[[Row, Row], float]] = {
    "change of synaptic operations, %": lambda row, base: (
        100 * abs(row["synops"] - base["synops"]) / max(base["synops"], 1e-12)
    ),
    "change of mean rate": lambda row, base: abs(row["mean_rate"] - base["mean_rate"]),
    "loss of accuracy, points": lambda row, base: (
        100 * (base["accuracy"] - row["accuracy"])
    ),
}


@dataclasses.dataclass(frozen=True)
class Points:
    """Quantized rows: what is known of their firing, and what became of them.

    Attributes:
        judged: the rows.
        x: ``[rows, predictors]``.
        y: ``[rows, outcomes]``, against the baseline of the row's seed.
    """

    judged: list[Verdict]
    x: np.ndarray
    y: np.ndarray

    def only(self, wanted: Callable[[Verdict], bool]) -> "Points":
        """Those that are wanted."""
        at = np.array([wanted(v) for v in self.judged], bool)
        some = [v for v, there in zip(self.judged, at, strict=True) if there]
        return Points(some, self.x[at], self.y[at])


def points(rows: Sequence[Row]) -> Points:
    """The quantized rows of one run that have all these measures and a baseline."""
    bases = {row["seed"]: row for row in rows if row["mode"] == "fp32"}
    judged, x, y = [], [], []
    for v in verdicts(rows):
        base = bases.get(v.row["seed"])
        measures = [of(v.row) for of in PREDICTORS.values()]
        if is_full(v.row) or not base or None in measures:
            continue
        if "synops" in v.row and "synops" in base:
            judged.append(v)
            x.append(measures)
            y.append([of(v.row, base) for of in OUTCOMES.values()])
    return Points(judged, np.array(x, float), np.array(y, float))


def correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's rank correlations and their bootstrap percentile intervals.

    Args:
        x: ``[rows, predictors]``.
        y: ``[rows, outcomes]``.

    Returns:
        ``[3, predictors, outcomes]``: the correlation, and the interval's ends; NaN
        where one of the two is the same in all rows.
    """
    return _interval(*_resampled(x, y))


def beyond_first(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much higher each predictor's correlation is than the first one's.

    The rows are the same, so the resamples are too: a paired bootstrap. Arguments and
    result are as of ``correlations``.
    """
    of_all, resampled = _resampled(x, y)
    return _interval(of_all - of_all[:1], resampled - resampled[:, :1])


def _resampled(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The correlations of all rows, and of each resample."""
    rows = len(x)
    drawn = np.random.default_rng(0).integers(rows, size=(RESAMPLES, rows))
    return _spearman(x[None], y[None])[0], _spearman(x[drawn], y[drawn])


def _interval(of_all: np.ndarray, resampled: np.ndarray) -> np.ndarray:
    """What was found, and the percentiles of its resamples."""
    ends = (50 - LEVEL / 2, 50 + LEVEL / 2)
    # A resample may hold one value alone; of what never varies there is no interval.
    blank = np.isnan(resampled).all(0)
    low, high = np.nanpercentile(np.where(blank, 0, resampled), ends, axis=0)
    never = np.isnan(of_all) | blank
    return np.where(never, np.nan, np.stack([of_all, low, high]))


def _spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlations of ranks, of several sets of rows at once."""
    unit = []
    for values in (x, y):
        ranks = stats.rankdata(values, axis=1)
        ranks -= ranks.mean(axis=1, keepdims=True)
        length = np.sqrt((ranks**2).sum(axis=1, keepdims=True))
        unit.append(ranks / np.where(length > 0, length, np.nan))
    return np.einsum("srp,sro->spo", *unit)


def subsets(found: Points) -> dict[str, Points]:
    """Of all rows and of each mode, all and those that did not collapse."""
    modes = {
        MODE_NAMES[mode]: found.only(lambda v, mode=mode: v.row["mode"] == mode)
        for mode in MODES
    }
    sets = {}
    for title, some in ({"all": found} | modes).items():
        alive = some.only(lambda v: v.state != "collapsed")
        if len(some.judged) >= FEWEST:
            sets[title] = some
        if FEWEST <= len(alive.judged) < len(some.judged):
            sets[f"{title}, not collapsed"] = alive
    return sets


def enough(rows: Sequence[Row]) -> bool:
    """Whether there are rows to take a correlation of."""
    return len(points(rows).judged) >= FEWEST


def markdown(rows: Sequence[Row]) -> str:
    """The section: what is correlated, the table, and what it says."""
    found = points(rows)
    if not enough(rows):
        return f"Fewer than {FEWEST} quantized rows have all measures yet.\n"
    lines, told, sets = [], {}, subsets(found)
    for title, some in sets.items():
        table = told[title] = correlations(some.x, some.y)
        for p, predictor in enumerate(PREDICTORS):
            lines.append(
                {
                    "rows of": title if p == 0 else "",
                    "n": str(len(some.judged)) if p == 0 else "",
                    "measure": predictor,
                }
                | {
                    outcome.split(",")[0]: _cell(table[:, p, o])
                    for o, outcome in enumerate(OUTCOMES)
                }
            )
    collapsed = sum(v.state == "collapsed" for v in found.judged)
    main = "all, not collapsed" if "all, not collapsed" in sets else "all"
    beyond = beyond_first(sets[main].x, sets[main].y)
    said = _said(told[main][0], beyond, main)
    return (
        f"Spearman's rank correlation over {len(found.judged)} quantized rows of all "
        f"seeds and modes, the ablation's too ({collapsed} collapsed), of each "
        "measure's mean over layers with what changed against the baseline of the "
        "row's seed: synaptic operations (relative) and mean rate in size, accuracy as "
        f"what was lost. In brackets {LEVEL} % bootstrap percentile intervals "
        f"({RESAMPLES:,} resamples of rows). Rows share baselines and test images, so "
        "they are not independent and the intervals are optimistic. That EMD goes with "
        "the mean rate is in part no finding: a layer's mean rate cannot move by more "
        "than its EMD.\n\n"
        f"{aligned(lines, ('rows of', 'measure'))}\n{said}\n"
    )


def _cell(values: np.ndarray) -> str:
    if np.isnan(values).any():
        return "-"
    return "{:.2f} [{:.2f}, {:.2f}]".format(*(values + 0.0))


def _said(table: np.ndarray, beyond: np.ndarray, title: str) -> str:
    """Which measure orders each outcome best, in a sentence each."""
    parts = []
    for o, outcome in enumerate(OUTCOMES):
        values = table[:, o]
        if np.isnan(values).any():
            continue
        best = int(np.argmax(values))
        text = f"the {outcome.split(',')[0]} is ordered best by "
        text += f"{list(PREDICTORS)[best]} ({values[best]:.2f})"
        if best:
            difference = beyond[:, best, o]
            apart = "above 0" if difference[1] > 0 else "not told from 0"
            text += f", by EMD {values[0]:.2f}; the difference, {_cell(difference)} by "
            text += f"the same resamples, is {apart}"
        parts.append(text)
    return f'Over the rows of "{title}" {"; ".join(parts)}.' if parts else ""
