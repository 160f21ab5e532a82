"""Group the rows of all seeds that are quantized in the same way."""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence

from experiments.report.judge import Verdict
from experiments.report.names import is_full, setting_name
from experiments.report.table import drift_label
from snnjax.firing._drift import POINT, ROUNDING
from snnjax.runs import Row

# Accuracy this close to a point's loss decides nothing: it is within chance.
MARGIN = 0.005


@dataclasses.dataclass(frozen=True)
class Setting:
    """Judged rows that differ by their seed alone; at least one."""

    judged: tuple[Verdict, ...]

    @property
    def row(self) -> Row:
        """One of its rows, for what is the same in all."""
        return self.judged[0].row

    @property
    def name(self) -> str:
        """Method and bits."""
        return setting_name(self.row)

    @property
    def seeds(self) -> frozenset[int]:
        """The seeds of its rows."""
        return frozenset(v.row["seed"] for v in self.judged)

    def restrict_to(self, seeds: frozenset[int]) -> "Setting":
        """Return the same setting with some of its seeds."""
        return Setting(tuple(v for v in self.judged if v.row["seed"] in seeds))

    def values(self, value: Callable[[Row], float | None]) -> list[float]:
        """Return a number of each row, without those that are missing."""
        found = (value(v.row) for v in self.judged)
        return [number for number in found if number is not None]

    def mean(self, key: str) -> float:
        """Return a row entry's mean over seeds."""
        return statistics.fmean(v.row[key] for v in self.judged)

    @property
    def has_collapsed(self) -> bool:
        """True if a seed collapsed."""
        return any(v.state == "collapsed" for v in self.judged)

    @property
    def by_lower(self) -> "Setting":
        """The same rows, judged by their lower floors."""
        return Setting(tuple(v.by_lower for v in self.judged))

    @property
    def loss(self) -> float | None:
        """Accuracy lost against the baselines; None where one is missing."""
        return _mean_if_all([v.loss for v in self.judged])

    @property
    def keeps_accuracy(self) -> bool:
        """True if accuracy is within a point of the baselines'."""
        return self.loss is not None and self.loss <= POINT + ROUNDING

    @property
    def accuracy_clearly_kept(self) -> bool:
        """True if accuracy is within a point by more than the margin."""
        return self.loss is not None and self.loss <= POINT - MARGIN + ROUNDING

    @property
    def accuracy_clearly_lost(self) -> bool:
        """True if accuracy misses a point by more than the margin."""
        return self.loss is not None and self.loss >= POINT + MARGIN - ROUNDING

    @property
    def floor(self) -> float | None:
        """The mean of its seeds' noise floors; None where one is missing."""
        return _mean_if_all([v.floor for v in self.judged])

    @property
    def is_within(self) -> bool:
        """True if EMD is at most the noise floor, on the mean."""
        return self.floor is not None and self.mean("emd_mean") <= self.floor

    @property
    def drifts(self) -> bool:
        """True if EMD is above the noise floor in every seed."""
        return all(v.state == "drift" for v in self.judged)

    @property
    def drift_label(self) -> str:
        """The label that all seeds share, or in how many seeds it drifts."""
        labels = {drift_label(v) for v in self.judged}
        if len(labels) == 1:
            return labels.pop()
        states = [v.state for v in self.judged]
        if self.drifts:
            return f"{statistics.fmean(v.ratio for v in self.judged):.2f} x floor"
        if set(states) == {"within"}:
            lower = self.by_lower
            if lower.drifts:
                return f"{statistics.fmean(v.ratio for v in lower.judged):.2f} x lower"
            moved = [v.state for v in lower.judged].count("drift")
            return f"moved in {moved} of {len(states)}" if moved else "within"
        state = "collapsed" if "collapsed" in states else "drift"
        return f"{state} in {states.count(state)} of {len(states)}"


def _mean_if_all(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def common_seeds(rows: Iterable[Row]) -> frozenset[int]:
    """Return the seeds that every setting of the rows has."""
    found: dict[tuple[str, str], set[int]] = {}
    for row in rows:
        key = (row["mode"], setting_name(row))
        found.setdefault(key, set()).add(row["seed"])
    return frozenset.intersection(*map(frozenset, found.values()))


def split_by_seeds(some: Sequence[Setting]) -> tuple[list[Setting], list[Setting]]:
    """Split settings into their common seeds, and those with more seeds.

    Seeds differ in their baselines: means of one and of two are not to be compared.
    """
    common = common_seeds(v.row for s in some for v in s.judged)
    if not common:
        return list(some), []
    return [s.restrict_to(common) for s in some], [s for s in some if s.seeds > common]


def group_settings(judged: Iterable[Verdict]) -> list[Setting]:
    """Group quantized rows by setting, in the table's order."""
    found: dict[tuple[str, str], list[Verdict]] = {}
    for v in judged:
        if not is_full(v.row):
            key = (v.row["mode"], setting_name(v.row))
            found.setdefault(key, []).append(v)
    return [Setting(tuple(some)) for some in found.values()]
