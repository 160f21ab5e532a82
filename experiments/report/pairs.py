"""Pairs of rows: one option apart, or equal in accuracy."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from experiments.report.formats import emd_text, points
from experiments.report.judged import ROUNDING, SETTING, by_lower, summarize
from experiments.report.names import MODE_NAMES

EQUAL = 0.005  # accuracies that differ by no more are equal
DIFFERENT = 1.5  # EMDs further apart, one over the other, are different
SHOWN = 5
_OPTIONS = (
    *("target", "method", "grid", "clip", "signed", "site", "quantize_all"),
    *("bits", "mode", "seed"),
)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of judged rows: two frames with one index.

    Attributes:
        one: the rows on one side; where accuracies are equal, those further off.
        other: the rows on the other side; likewise, the nearer ones.
    """

    one: pd.DataFrame
    other: pd.DataFrame

    def __len__(self) -> int:
        return len(self.one)

    def select(self, wanted: pd.Series) -> "Pairs":
        """Return some of the pairs."""
        return Pairs(self.one[wanted], self.other[wanted])

    @property
    def by_lower(self) -> "Pairs":
        """The same pairs, judged by their lower floors."""
        return Pairs(by_lower(self.one), by_lower(self.other))

    @property
    def collapsed(self) -> pd.Series:
        """How many of the two collapsed."""
        return sum(
            (v["state"] == "collapsed").astype(int) for v in (self.one, self.other)
        )

    @property
    def signs(self) -> pd.Series:
        """1 where the first EMD is larger by more than the floor, -1 where smaller."""
        floor = np.fmax(self.one["floor"], self.other["floor"]).fillna(0.0)
        apart = self.one["emd_mean"] - self.other["emd_mean"]
        return (apart > floor).astype(int) - (apart < -floor).astype(int)

    @property
    def equal(self) -> "Pairs":
        """Those of equal accuracy, none collapsed, the one further off first."""
        apart = (self.one["accuracy"] - self.other["accuracy"]).abs()
        some = self.select((apart <= EQUAL + ROUNDING) & (self.collapsed == 0))
        swap = some.one["emd_mean"] < some.other["emd_mean"]
        far = pd.concat([some.one[~swap], some.other[swap]]).reindex(swap.index)
        near = pd.concat([some.other[~swap], some.one[swap]]).reindex(swap.index)
        return Pairs(far, near)

    @property
    def ratio(self) -> pd.Series:
        """The larger EMD over the smaller; 1 where both are 0."""
        far, near = self.one["emd_mean"], self.other["emd_mean"]
        return (far / near).where(near > 0, np.where(far > 0, np.inf, 1.0))

    @property
    def differs(self) -> pd.Series:
        """True where the EMDs differ by more than a factor of `DIFFERENT`."""
        return self.ratio > DIFFERENT

    @property
    def keeps(self) -> pd.Series:
        """True where neither lost a point of accuracy."""
        return self.one["keeps"] & self.other["keeps"]

    @property
    def hides(self) -> pd.Series:
        """True where accuracy, kept by both, hides a drift.

        The larger EMD exceeds its floor, and the other EMD by as much.
        """
        apart = self.one["emd_mean"] - self.other["emd_mean"]
        beyond = (self.one["state"] == "drift") & (apart > self.one["floor"])
        return self.differs & self.keeps & beyond

    @property
    def marks(self) -> pd.Series:
        """The reason why a pair hides no drift, or that it does."""
        lower = self.by_lower
        known = lower.one["floor"].notna()
        wide = np.where(known, "lower floor", "floor")
        marks = pd.Series([f"difference within the {w}" for w in wide], known.index)
        marks = marks.mask(lower.hides, "hides a drift, by the lower floor")
        marks = marks.mask(self.hides, "hides a drift")
        return marks.mask(~self.keeps, "accuracy not kept")

    @property
    def names(self) -> pd.DataFrame:
        """Mode and both settings, which pairs of other seeds share."""
        names = self.one[SETTING].set_axis(["mode", "far"], axis=1)
        return names.assign(near=self.other["setting"], seed=self.one["seed"])

    def summarize(self, at: Any) -> str:
        """Describe both rows of a pair and their ratio, for a sentence."""
        far, near = summarize(self.one.loc[at]), summarize(self.other.loc[at])
        return f"{far}, against {near}: {self.ratio.loc[at]:.1f} times"


def match_pairs(judged: pd.DataFrame, option: str, one: Any, other: Any) -> Pairs:
    """Return pairs that differ in one option alone, ``one`` against ``other``."""
    rest = [name for name in _OPTIONS if name != option]
    sides = [judged[judged[option].isin([side])] for side in (one, other)]
    return Pairs(*_merge(sides[0], sides[1], rest))


def _merge(
    one: pd.DataFrame, other: pd.DataFrame, on: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of each match, in two frames with one index."""
    # None joins None, as strings do.
    keys = [rows[on].astype(str).assign(at=range(len(rows))) for rows in (one, other)]
    found = keys[0].merge(keys[1], on=on, suffixes=("_one", "_other"))
    return (
        one.iloc[found["at_one"]].reset_index(drop=True),
        other.iloc[found["at_other"]].reset_index(drop=True),
    )


def equal_accuracy_pairs(judged: pd.DataFrame) -> Pairs:
    """Return pairs of equal accuracy, none collapsed, the furthest apart first."""
    alive = judged[~judged["state"].isin(["reference", "collapsed"])]
    alive = alive.assign(at=range(len(alive)))
    groups = alive.groupby(["mode", "seed"], sort=False).ngroup()
    alive = alive.loc[groups.sort_values(kind="stable").index]
    one, other = _merge(alive, alive, ["mode", "seed"])
    # Each two once; of equal EMDs the later row counts as further off.
    once = one["at"] < other["at"]
    found = Pairs(other[once], one[once]).equal
    order = found.ratio.sort_values(ascending=False, kind="stable").index
    return Pairs(found.one.loc[order], found.other.loc[order])


def find_repeated(pairs: Pairs, judged: pd.DataFrame) -> pd.DataFrame:
    """Return pairs of settings that hide a drift in every seed that ran both.

    A line of each: its mode and settings, the seeds, and the pair of the least ratio.
    """
    hiding = pairs.select(pairs.hides)
    names = hiding.names.assign(ratio=hiding.ratio, pair=hiding.one.index)
    keys = ["mode", "far", "near"]
    found = names.groupby(keys, sort=False, as_index=False).agg(seeds=("seed", "size"))
    least = names.sort_values("ratio", kind="stable").drop_duplicates(keys)
    found = found.merge(least[[*keys, "ratio", "pair"]], on=keys)
    ran = judged[~judged["full"]].groupby(SETTING)["seed"].agg(frozenset)
    both = [len(ran[m, far] & ran[m, near]) for m, far, near in found[keys].to_numpy()]
    return found[found["seeds"] == both]


def count_pairs(pairs: Pairs) -> list[dict[str, Any]]:
    """Count by mode how many pairs there are, keep accuracy, differ, hide a drift."""
    counts = []
    for mode, title in MODE_NAMES.items():
        some = pairs.select(pairs.one["mode"] == mode)
        if len(some):
            kept = some.select(some.keeps)
            counts.append(
                {
                    "mode": title,
                    "pairs": len(some),
                    "kept": len(kept),
                    "differ": some.differs.sum(),
                    "kept_differ": kept.differs.sum(),
                    "hide": kept.hides.sum(),
                    "hide_lower": kept.by_lower.hides.sum(),
                }
            )
    return counts


def tabulate_pairs(pairs: Pairs) -> list[dict[str, str]]:
    """Tabulate some pairs of each mode that differ: those that hide a drift first.

    The others are marked with what keeps them from it. A setting is named once a mode,
    so that one that hardly moves does not fill it.
    """
    hides = pairs.hides.astype(int) + pairs.by_lower.hides.astype(int)
    found = pairs.names.assign(hides=hides, ratio=pairs.ratio, mark=pairs.marks)
    found = found[pairs.differs].sort_values(
        ["hides", "ratio"], ascending=False, kind="stable"
    )
    lines = []
    for mode, title in MODE_NAMES.items():
        named: set[str] = set()
        for at, pair in found[found["mode"] == mode].iterrows():
            settings = {pair["far"], pair["near"]}
            if settings & named or len(named) == 2 * SHOWN:
                continue
            named |= settings
            far, near = pairs.one.loc[at], pairs.other.loc[at]
            lines.append(
                {
                    "mode": title,
                    "seed": str(pair["seed"]),
                    "further off": pair["far"],
                    "accuracy %": points(far["accuracy"]),
                    "EMD": emd_text(far["emd_mean"]),
                    "nearer": pair["near"],
                    "its accuracy %": points(near["accuracy"]),
                    "its EMD": emd_text(near["emd_mean"]),
                    "ratio": f"{pair['ratio']:.2f}",
                    "drift": far["drift"],
                    "pair": pair["mark"],
                }
            )
    return lines
