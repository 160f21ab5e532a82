"""Pairs of rows: one option apart, or equal in accuracy."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.report.formats import count, emd_text, points
from experiments.report.names import MODE_NAMES, group_items, setting_name
from experiments.report.settings import group_settings
from experiments.report.table import Verdict, drift_label, markdown_table, summarize
from snnjax.firing._drift import ROUNDING

EQUAL = 0.005  # accuracies that differ by no more are equal
DIFFERENT = 1.5  # EMDs further apart, one over the other, are different
SHOWN = 5
Matched = tuple[Verdict, Verdict]  # rows that differ in one option

_OPTIONS = (
    *("target", "method", "grid", "clip", "signed", "site", "quantize_all"),
    *("bits", "mode", "seed"),
)


def match_pairs(
    judged: Sequence[Verdict], option: str, one: Any, other: Any
) -> list[Matched]:
    """Return pairs that differ in one option alone, ``one`` against ``other``."""

    def rest(v: Verdict) -> tuple[Any, ...]:
        return tuple(v.row[name] for name in _OPTIONS if name != option)

    others = {rest(v): v for v in judged if v.row[option] == other}
    ones = [v for v in judged if v.row[option] == one]
    return [(v, others[rest(v)]) for v in ones if rest(v) in others]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two rows of equal accuracy, one mode and one seed."""

    far: Verdict
    near: Verdict

    @property
    def ratio(self) -> float:
        """The larger EMD over the smaller; 1 where both are 0."""
        far, near = self.far.row["emd_mean"], self.near.row["emd_mean"]
        return far / near if near else math.inf if far else 1.0

    @property
    def differs(self) -> bool:
        """True if the EMDs differ by more than a factor of `DIFFERENT`."""
        return self.ratio > DIFFERENT

    @property
    def keeps_accuracy(self) -> bool:
        """True if neither lost a point of accuracy."""
        return bool(self.far.keeps_accuracy and self.near.keeps_accuracy)

    @property
    def by_lower(self) -> "Pair":
        """The same rows, judged by their lower floors."""
        return Pair(self.far.by_lower, self.near.by_lower)

    @property
    def exceeds_floor(self) -> bool:
        """True if the larger EMD exceeds its floor, and the other EMD by as much."""
        apart = self.far.row["emd_mean"] - self.near.row["emd_mean"]
        floor = self.far.floor
        return self.far.state == "drift" and floor is not None and apart > floor

    @property
    def hides(self) -> bool:
        """True if accuracy, kept by both, hides a drift."""
        return self.differs and self.keeps_accuracy and self.exceeds_floor

    @property
    def mark(self) -> str:
        """The reason why it hides no drift, or that it does."""
        if not self.keeps_accuracy:
            return "accuracy not kept"
        if self.hides:
            return "hides a drift"
        lower = self.by_lower
        if lower.hides:
            return "hides a drift, by the lower floor"
        known = lower.far.floor is not None
        return f"difference within the {'lower ' * known}floor"

    @property
    def summary(self) -> str:
        """Both rows and their ratio, for a sentence."""
        far, near = summarize(self.far), summarize(self.near)
        return f"{far}, against {near}: {self.ratio:.1f} times"

    @property
    def settings(self) -> tuple[str, str, str]:
        """Mode and both settings, which pairs of other seeds share."""
        return (
            self.far.row["mode"],
            setting_name(self.far.row),
            setting_name(self.near.row),
        )


def equal_accuracy_pairs(judged: Iterable[Verdict]) -> list[Pair]:
    """Return pairs of equal accuracy, none collapsed, the furthest apart first."""
    alive = (v for v in judged if v.state not in ("reference", "collapsed"))
    groups = group_items(alive, lambda v: (v.row["mode"], v.row["seed"]))
    pairs = []
    for some in groups.values():
        for two in itertools.combinations(some, 2):
            near, far = sorted(two, key=lambda v: v.row["emd_mean"])
            apart = abs(near.row["accuracy"] - far.row["accuracy"])
            if apart <= EQUAL + ROUNDING:
                pairs.append(Pair(far, near))
    return sorted(pairs, key=lambda pair: -pair.ratio)


def find_repeated(
    pairs: Sequence[Pair], judged: Iterable[Verdict]
) -> list[tuple[Pair, int]]:
    """Return pairs that hide a drift in every seed with both, and the seed count."""
    ran = {(s.row["mode"], s.name): s.seeds for s in group_settings(judged)}
    hiding = group_items((p for p in pairs if p.hides), lambda pair: pair.settings)
    return [
        (min(seeds, key=lambda pair: pair.ratio), len(seeds))
        for (mode, far, near), seeds in hiding.items()
        if len(seeds) == len(ran[mode, far] & ran[mode, near])
    ]


def describe_counts(pairs: Sequence[Pair]) -> str:
    """Describe how many pairs there are, differ and hide a drift."""
    parts = []
    for mode, title in MODE_NAMES.items():
        some = [p for p in pairs if p.settings[0] == mode]
        if some:
            kept = [p for p in some if p.keeps_accuracy]
            parts.append(
                f"by {title} {count(len(some), 'pair')} of equal accuracy, of which "
                f"{len(kept)} keep it; EMDs are more than {DIFFERENT} times apart in "
                f"{sum(p.differs for p in some)}, and where accuracy is kept in "
                f"{sum(p.differs for p in kept)}; of these "
                f"{sum(p.hides for p in kept)} hide a drift by the noise floor, "
                f"{sum(p.by_lower.hides for p in kept)} by the lower one"
            )
    if not parts:
        return "No two networks have an equal accuracy."
    return "\n".join(f"- {part[0].upper()}{part[1:]}." for part in parts)


def tabulate(pairs: Sequence[Pair]) -> str:
    """Tabulate some pairs of each mode that differ: those that hide a drift first.

    The others are marked with what keeps them from it. A setting is named once a mode,
    so that one that hardly moves does not fill it.
    """
    lines = []
    for mode, title in MODE_NAMES.items():
        named: set[str] = set()
        some = [p for p in pairs if p.differs and p.settings[0] == mode]
        hiding = {id(p): p.hides + p.by_lower.hides for p in some}
        for pair in sorted(some, key=lambda p: (-hiding[id(p)], -p.ratio)):
            _, far, near = pair.settings
            if {far, near} & named or len(named) == 2 * SHOWN:
                continue
            named |= {far, near}
            lines.append(
                {
                    "mode": title,
                    "seed": str(pair.far.row["seed"]),
                    "further off": far,
                    "accuracy %": points(pair.far.row["accuracy"]),
                    "EMD": emd_text(pair.far.row["emd_mean"]),
                    "nearer": near,
                    "its accuracy %": points(pair.near.row["accuracy"]),
                    "its EMD": emd_text(pair.near.row["emd_mean"]),
                    "ratio": f"{pair.ratio:.2f}",
                    "drift": drift_label(pair.far),
                    "pair": pair.mark,
                }
            )
    if not lines:
        return "None was found.\n"
    return markdown_table(lines, ("mode", "further off", "nearer", "drift", "pair"))
