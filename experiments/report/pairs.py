"""Rows set beside each other: one option apart, or equal in accuracy."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.report.judge import Verdict
from experiments.report.names import (
    MODE_NAMES,
    count,
    emd_text,
    is_full,
    setting_name,
)
from experiments.report.table import aligned, drift

EQUAL = 0.005  # accuracies that differ by no more are equal
OTHERWISE = 1.5  # EMDs further apart, one over the other, are different
SHOWN = 5

_OPTIONS = (
    *("target", "method", "grid", "clip", "signed", "site", "quantize_all"),
    *("bits", "mode", "seed"),
)


def matched(
    judged: Sequence[Verdict], option: str, one: Any, other: Any
) -> list[tuple[Verdict, Verdict]]:
    """Rows that differ in one option alone, where it is ``one`` and ``other``."""

    def rest(v: Verdict) -> tuple[Any, ...]:
        return tuple(v.row.get(name) for name in _OPTIONS if name != option)

    others = {rest(v): v for v in judged if v.row.get(option) == other}
    ones = [v for v in judged if v.row.get(option) == one]
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
        """One EMD is so much larger than the other."""
        return self.ratio > OTHERWISE

    @property
    def kept(self) -> bool:
        """Neither lost a point of accuracy, as `Verdict.kept` tells."""
        return bool(self.far.kept and self.near.kept)

    @property
    def by_lower(self) -> "Pair":
        """The same rows, judged by their lower floors."""
        return Pair(self.far.by_lower, self.near.by_lower)

    @property
    def beyond(self) -> bool:
        """The larger EMD is above its floor, and above the other by as much."""
        apart = self.far.row["emd_mean"] - self.near.row["emd_mean"]
        floor = self.far.floor
        return self.far.state == "drift" and floor is not None and apart > floor

    @property
    def hides(self) -> bool:
        """Accuracy, kept by both, hides a drift."""
        return self.differs and self.kept and self.beyond

    @property
    def mark(self) -> str:
        """Whether it hides a drift, and if not why."""
        if not self.kept:
            return "accuracy not kept"
        if self.hides:
            return "hides a drift"
        lower = self.by_lower
        if lower.hides:
            return "hides a drift, by the lower floor"
        known = lower.far.floor is not None
        return f"difference within the {'lower ' * known}floor"

    @property
    def told(self) -> str:
        """Both, and how far apart they are, for a sentence."""
        return f"{self.far.told}, against {self.near.told}: {self.ratio:.1f} times"

    @property
    def settings(self) -> tuple[str, str, str]:
        """What it has in common with the pairs of other seeds."""
        return (
            self.far.row["mode"],
            setting_name(self.far.row),
            setting_name(self.near.row),
        )


def equal(judged: Iterable[Verdict]) -> list[Pair]:
    """All pairs of equal accuracy, without what collapsed; the furthest apart first."""
    groups: dict[tuple[str, int], list[Verdict]] = {}
    for v in judged:
        if not is_full(v.row) and v.state != "collapsed":
            groups.setdefault((v.row["mode"], v.row["seed"]), []).append(v)
    pairs = []
    for some in groups.values():
        for two in itertools.combinations(some, 2):
            near, far = sorted(two, key=lambda v: v.row["emd_mean"])
            apart = abs(near.row["accuracy"] - far.row["accuracy"])
            if apart <= EQUAL + 1e-9:
                pairs.append(Pair(far, near))
    return sorted(pairs, key=lambda pair: -pair.ratio)


def repeated(
    pairs: Sequence[Pair], judged: Iterable[Verdict]
) -> list[tuple[Pair, int]]:
    """The pairs that hide a drift in every seed that has both rows, and in how many."""
    ran: dict[tuple[str, str], set[int]] = {}
    for v in judged:
        if not is_full(v.row):
            ran.setdefault((v.row["mode"], setting_name(v.row)), set()).add(
                v.row["seed"]
            )
    hiding: dict[tuple[str, str, str], list[Pair]] = {}
    for pair in pairs:
        if pair.hides:
            hiding.setdefault(pair.settings, []).append(pair)
    return [
        (min(seeds, key=lambda pair: pair.ratio), len(seeds))
        for (mode, far, near), seeds in hiding.items()
        if len(seeds) == len(ran[mode, far] & ran[mode, near])
    ]


def counted(pairs: Sequence[Pair]) -> str:
    """How many pairs there are, differ and hide a drift, in a sentence."""
    parts = []
    for mode, title in MODE_NAMES.items():
        some = [p for p in pairs if p.settings[0] == mode]
        if some:
            kept = [p for p in some if p.kept]
            parts.append(
                f"by {title} {count(len(some), 'pair')} of equal accuracy, of which "
                f"{len(kept)} keep it; EMDs are more than {OTHERWISE} times apart in "
                f"{sum(p.differs for p in some)}, and where accuracy is kept in "
                f"{sum(p.differs for p in kept)}; of these "
                f"{sum(p.hides for p in kept)} hide a drift by the noise floor, "
                f"{sum(p.by_lower.hides for p in kept)} by the lower one"
            )
    if not parts:
        return "No two networks have an equal accuracy."
    return "\n".join(f"- {part[0].upper()}{part[1:]}." for part in parts)


def top(pairs: Sequence[Pair]) -> str:
    """Of each mode some pairs that differ, as markdown: those that hide a drift first.

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
                    "accuracy %": f"{100 * pair.far.row['accuracy']:.2f}",
                    "EMD": emd_text(pair.far.row["emd_mean"]),
                    "nearer": near,
                    "its accuracy %": f"{100 * pair.near.row['accuracy']:.2f}",
                    "its EMD": emd_text(pair.near.row["emd_mean"]),
                    "ratio": f"{pair.ratio:.2f}",
                    "drift": drift(pair.far),
                    "pair": pair.mark,
                }
            )
    if not lines:
        return "None was found.\n"
    return aligned(lines, ("mode", "further off", "nearer", "drift", "pair"))
