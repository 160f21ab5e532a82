"""Pairs of rows: one option apart, or equal in accuracy."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from experiments.report.formats import emd_text, markdown_table, points, signed_emd
from experiments.report.judged import ROUNDING, SETTING, compare_emds, summarize
from experiments.report.names import MODE_NAMES
from experiments.report.run import Run
from experiments.study.grid import CLIPS, grid, name_row

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
        """How many of the two collapsed."""
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

    def summarize(self, at: Any) -> str:
        """Describe both rows of a pair and their ratio, for a sentence."""
        far, near = summarize(self.one.loc[at]), summarize(self.other.loc[at])
        return f"{far}, against {near}: {self.ratio.loc[at]:.1f} times"


def match_pairs(judged: pd.DataFrame, option: str, one: Any, other: Any) -> Pairs:
    """Return pairs that differ in one option alone, ``one`` against ``other``."""
    rest = [name for name in _OPTIONS if name != option]
    return _merge(*(judged[judged[option].isin([side])] for side in (one, other)), rest)


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
    apart = pairs.ratio > DIFFERENT
    flags = pairs.names.assign(
        kept=pairs.keeps, apart=pairs.keeps & apart, hides=pairs.hides
    )
    counts = flags.groupby("mode", sort=False)[["kept", "apart", "hides"]].sum()
    counts.insert(0, "pairs", flags.groupby("mode").size())
    titles = ("pairs", "keep accuracy", f"and are {DIFFERENT} times apart")
    lines = [
        {"mode": MODE_NAMES[m]}
        | dict(zip((*titles, "and hide a drift"), map(str, counts.loc[m]), strict=True))
        for m in MODE_NAMES
        if m in counts.index
    ]
    found = pairs.select(pairs.hides)
    shown, named = [], set()
    for at, pair in found.names.iterrows():
        settings = {(pair["mode"], pair["far"]), (pair["mode"], pair["near"])}
        if settings & named or sum(m == pair["mode"] for m, _ in named) == 2 * SHOWN:
            continue
        named |= settings
        far, near = found.one.loc[at], found.other.loc[at]
        shown.append(
            {"mode": MODE_NAMES[pair["mode"]], "seed": str(pair["seed"])}
            | {"further off": pair["far"], "accuracy %": points(far["accuracy"])}
            | {"EMD": emd_text(far["emd_mean"]), "nearer": pair["near"]}
            | {"its accuracy %": points(near["accuracy"])}
            | {"its EMD": emd_text(near["emd_mean"])}
            | {"ratio": f"{found.ratio.loc[at]:.2f}"}
        )
    text = ("mode", "further off", "nearer")
    return {
        "counts": markdown_table(lines) if lines else "",
        "pairs": markdown_table(shown, text) if shown else "",
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
    usual, done = getattr(run.config, option), {name_row(row) for row in run.rows}
    rows = [spec.to_row() for spec in grid(run.config)]
    rows = [row for row in rows if row[option] not in (None, usual)]
    left = sum(name_row(row) not in done for row in rows)
    if not rows:
        return "Not part of this run.\n"
    return f"{left} of {len(rows)} rows are missing.\n\n" if left else ""
