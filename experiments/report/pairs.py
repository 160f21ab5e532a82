"""Pairs of rows: one option apart, or equal in accuracy."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from experiments.report.judged import ROUNDING, SETTING, compare_emds
from experiments.report.run import Run, plan
from experiments.study.grid import CLIPS
from experiments.study.names import MODE_NAMES
from experiments.tables import emd_text, markdown_table, points, signed_emd

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
    def collapsed(self) -> pd.Series:
        """Return how many of the two collapsed."""
        return sum(
            (v["state"] == "collapsed").astype(int) for v in (self.one, self.other)
        )

    @property
    def signs(self) -> pd.Series:
        """1 where the first EMD is larger by its interval, -1 where smaller, else 0."""
        _, low, high = compare_emds(self.one, self.other)
        return (low > 0).astype(int) - (high < 0).astype(int)

    @property
    def ratio(self) -> pd.Series:
        """The larger EMD over the smaller; 1 where both are 0."""
        far, near = self.one["emd_mean"], self.other["emd_mean"]
        return (far / near).where(near > 0, np.where(far > 0, np.inf, 1.0))

    @property
    def keeps(self) -> pd.Series:
        """True where neither lost a point of accuracy."""
        return self.one["keeps"] & self.other["keeps"]

    @property
    def hides(self) -> pd.Series:
        """True where accuracy, kept by both, hides a drift.

        The further one drifted beyond its margin, and clearly more than the other.
        """
        apart = (self.ratio > DIFFERENT) & (self.signs > 0)
        return apart & self.keeps & (self.one["state"] == "drift")

    @property
    def names(self) -> pd.DataFrame:
        """Mode and both settings, which pairs of other seeds share."""
        names = self.one[SETTING].set_axis(["mode", "far"], axis=1)
        return names.assign(near=self.other["setting"], seed=self.one["seed"])


def match_pairs(judged: pd.DataFrame, option: str, one: Any, other: Any) -> Pairs:
    """Return pairs that differ in one option alone, ``one`` against ``other``."""
    rest = [name for name in _OPTIONS if name != option]
    sides = [judged[judged[option].isin([side])] for side in (one, other)]
    return _merge(sides[0], sides[1], rest)


def _merge(one: pd.DataFrame, other: pd.DataFrame, on: list[str]) -> Pairs:
    """Return the rows of each match."""
    # None joins None, as strings do.
    keys = [rows[on].astype(str).assign(at=range(len(rows))) for rows in (one, other)]
    found = keys[0].merge(keys[1], on=on, suffixes=("_one", "_other"))
    return Pairs(
        one.iloc[found["at_one"]].reset_index(drop=True),
        other.iloc[found["at_other"]].reset_index(drop=True),
    )


def equal_accuracy_pairs(judged: pd.DataFrame) -> Pairs:
    """Return pairs of equal accuracy, none collapsed, the furthest apart first.

    Each two once, with the larger EMD on the one side.
    """
    alive = judged[~judged["state"].isin(["reference", "collapsed"])]
    # Of equal EMDs the later row counts as further off.
    alive = alive.iloc[::-1].sort_values("emd_mean", ascending=False, kind="stable")
    alive = alive.assign(at=range(len(alive)))
    pairs = _merge(alive, alive, ["mode", "seed"])
    apart = (pairs.one["accuracy"] - pairs.other["accuracy"]).abs()
    once = pairs.one["at"] < pairs.other["at"]
    found = pairs.select(once & (apart <= EQUAL + ROUNDING))
    order = found.ratio.sort_values(ascending=False, kind="stable").index
    return Pairs(found.one.loc[order], found.other.loc[order])


def tabulate_equal_pairs(judged: pd.DataFrame) -> dict[str, str]:
    """Return two tables: how many pairs of a mode hide a drift, and the furthest apart.

    A setting is named once a mode, so that one that hardly moves does not fill it.
    """
    pairs = equal_accuracy_pairs(judged)
    rows = pairs.names.assign(
        ratio=pairs.ratio,
        pairs=1,
        kept=pairs.keeps,
        apart=pairs.keeps & (pairs.ratio > DIFFERENT),
        hides=pairs.hides,
    )
    titles = {"pairs": "pairs", "kept": "keep accuracy"}
    titles |= {"apart": f"and are {DIFFERENT} times apart", "hides": "and hide a drift"}
    counts, shown = [], []
    for mode, title in MODE_NAMES.items():
        own = rows[rows["mode"] == mode]
        if len(own):
            sums = {name: str(own[key].sum()) for key, name in titles.items()}
            counts.append({"mode": title} | sums)
        named: set[str] = set()
        for at, pair in own[own["hides"]].iterrows():
            settings = {pair["far"], pair["near"]}
            if settings & named or len(named) == 2 * SHOWN:
                continue
            named |= settings
            line = {"mode": title, "seed": str(pair["seed"])}
            for its, side, name in (
                ("", pairs.one, "further off"),
                ("its ", pairs.other, "nearer"),
            ):
                line[name] = side.loc[at, "setting"]
                line[f"{its}accuracy %"] = points(side.loc[at, "accuracy"])
                line[f"{its}EMD"] = emd_text(side.loc[at, "emd_mean"])
            shown.append(line | {"ratio": f"{pair['ratio']:.2f}"})
    return {
        "counts": markdown_table(counts) if counts else "",
        "pairs": markdown_table(shown, ("mode", "further off", "nearer"))
        if shown
        else "",
    }


# A choice that the digests leave open: the option, its two sides, and their names.
_CHOICES = {
    "Grid type": ("grid", ("mid_rise", "mid_tread"), ("mid-rise", "mid-tread")),
    "Membrane site": ("site", ("post_reset", "pre_fire"), ("post-reset", "pre-fire")),
    "Scope": ("quantize_all", (False, True), ("blocks", "everywhere")),
}


def tabulate_choices(run: Run) -> dict[str, str]:
    """Return a table of each choice's effect, or a sentence on what is missing."""
    bits = run.config.ablation_bits or run.config.bits
    found = {}
    for title, (option, sides, names) in _CHOICES.items():
        judged = run.judged_main if option == "grid" else run.judged
        pairs = match_pairs(judged[judged["bits"].isin(bits)], option, *sides)
        found[title] = _describe_missing(run, option) if option != "grid" else ""
        if len(pairs):
            found[title] += f"{names[1]} in place of {names[0]}:\n\n"
            found[title] += markdown_table(_tabulate_effect(pairs))
    return {title: text for title, text in found.items() if text}


def _tabulate_effect(pairs: Pairs) -> list[dict[str, str]]:
    """Tabulate means and ranges of the change by mode, bits and clip."""
    changes = pairs.one[["mode", "bits", "clip"]].assign(
        accuracy=100 * (pairs.other["accuracy"] - pairs.one["accuracy"]),
        emd=pairs.other["emd_mean"] - pairs.one["emd_mean"],
        apart=pairs.signs != 0,
        collapsed=pairs.collapsed > 0,
    )
    names = {bound: name for name, bound in CLIPS.items()}
    order = list(MODE_NAMES).index
    lines = []
    keys = [changes["mode"].map(order), changes["bits"], changes["clip"]]
    for (mode, bits, clip), some in changes.groupby(keys):
        shown = {}
        for title, values, show in (
            ("accuracy, points", some["accuracy"], "{:+.2f}".format),
            ("EMD", some["emd"], signed_emd),
        ):
            text = show(values.mean())
            if len(some) > 1:
                text += f" ({show(values.min())} to {show(values.max())})"
            shown[title] = text
        lines.append(
            {"mode": list(MODE_NAMES.values())[mode], "bits": str(bits)}
            | {"clip": names.get(clip, str(clip)), "pairs": str(len(some))}
            | shown
            | {"EMDs clearly apart": str(some["apart"].sum())}
            | {"with a collapse": str(some["collapsed"].sum())}
        )
    return lines


def _describe_missing(run: Run, option: str) -> str:
    rows = plan(run.rows, run.config)
    rows = rows[~rows[option].isin([None, getattr(run.config, option)])]
    if not len(rows):
        return "Not part of this run.\n"
    left = (~rows["done"]).sum()
    return f"{left} of {len(rows)} rows are missing.\n\n" if left else ""
