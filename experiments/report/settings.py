"""Rows of all seeds that are quantized in the same way, and the tables of them."""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from experiments.report.formats import PAGE, emd_text, points, spread
from experiments.report.names import (
    MODE_NAMES,
    group_items,
    is_full,
    method_name,
    setting_key,
    setting_name,
)
from experiments.report.run import Run, is_main
from experiments.report.table import (
    Verdict,
    drift_label,
    markdown_table,
    mean_over_layers,
)
from experiments.study.config import MODES
from snnjax.firing._drift import POINT, ROUNDING
from snnjax.runs import Row


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

    def keeps_accuracy(self, most: float = POINT) -> bool:
        """Return True if accuracy is within ``most`` of the baselines', a point."""
        return self.loss is not None and self.loss <= most + ROUNDING

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
    found = group_items(rows, setting_key).values()
    return frozenset.intersection(
        *(frozenset(r["seed"] for r in some) for some in found)
    )


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
    quantized = (v for v in judged if not is_full(v.row))
    found = group_items(quantized, lambda v: setting_key(v.row))
    return [Setting(tuple(some)) for some in found.values()]


def _by_mode(judged: Iterable[Verdict]) -> dict[str, list[Setting]]:
    """Group settings by mode."""
    found = group_items(group_settings(judged), lambda s: s.row["mode"])
    return {mode: found[mode] for mode in MODES if mode in found}


def paper_tables(run: Run) -> str:
    """Return the paper's table by mode; empty if no quantized row is finished."""
    found = _by_mode(run.judged_main)
    if not found:
        return ""
    several = any(len(s.judged) > 1 for some in found.values() for s in some)
    spreads = ", of several seeds the mean ± the sample standard deviation"
    text = PAGE["paper_tables"].format(spreads=spreads * several) + "\n"
    for mode, some in found.items():
        fair, more = split_by_seeds(some)
        columns = [(f"{s.row['bits']} bit", s) for s in _by_bits(fair)]
        columns += [(f"{s.row['bits']} bit, {_seeds(s)}", s) for s in _by_bits(more)]
        lines = {
            name: {"method": name} | {title: "-" for title, _ in columns}
            for name in (method_name(s.row) for s in fair)
        }
        for title, setting in columns:
            lines[method_name(setting.row)][title] = _cell(setting)
        text += f"\n### {MODE_NAMES[mode]}\n\n"
        if more:
            text += f"Of {_seeds(fair[0])}, which all settings have; of more seeds in "
            text += "columns of their own.\n\n"
        text += markdown_table(list(lines.values()))
    return text


def _by_bits(some: Sequence[Setting]) -> list[Setting]:
    return sorted(some, key=lambda s: (s.row["bits"], sorted(s.seeds)))


def _seeds(setting: Setting) -> str:
    """Name the setting's seeds."""
    numbers = sorted(setting.seeds)
    return f"seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _cell(setting: Setting) -> str:
    accuracies = setting.values(lambda row: 100 * row["accuracy"])
    emd = spread(setting.values(lambda row: row["emd_mean"]), emd_text)
    text = f"{spread(accuracies, '{:.1f}'.format)} / {emd}"
    if setting.has_collapsed:
        return f"*{text}*"
    if not setting.keeps_accuracy():
        return text
    if setting.drifts:
        return f"**{text}**"
    return f"{text} \\*" if setting.by_lower.drifts else text


def tabulate_measures(run: Run) -> str:
    """Return every setting with all its measures; empty if there is none."""
    found = _by_mode(run.judged_main)
    if not found:
        return ""
    text = PAGE["measures"] + "\n"
    full = [v for v in run.judged_main if is_full(v.row)]
    unquantized = {(v.row["mode"], v.row["seed"]): v.row for v in full}
    # Baselines, controls and baselines with re-estimated BatchNorm, a seed a line.
    titled = {"Full precision": [Setting((v,)) for v in full]}
    for mode, some in found.items():
        fair, more = split_by_seeds(some)
        titled[f"{MODE_NAMES[mode]}, all measures"] = [*fair, *more]
    ablation = [v for v in run.judged if not is_main(v.row, run.config)]
    for mode, some in _by_mode(ablation).items():
        titled[f"{MODE_NAMES[mode]}, ablation, all measures"] = some
    for title, some in titled.items():
        lines = [_measures(setting, unquantized) for setting in some]
        text += (
            f"\n### {title}\n\n{markdown_table(lines, ('method', 'seeds', 'drift'))}"
        )
    return text


def _measures(
    setting: Setting, unquantized: Mapping[tuple[str, int], Row]
) -> dict[str, str]:
    row = setting.row
    mode = "fp32_bn" if row["mode"] == "ptq_bn" else "control"

    def mean(key: str) -> float | None:
        values = setting.values(lambda row: mean_over_layers(row, key))
        return statistics.fmean(values) if values else None

    def times(key: str) -> str:
        own, others = mean(key), [unquantized.get((mode, s), {}) for s in setting.seeds]
        known = [value for row in others if (value := mean_over_layers(row, key))]
        if is_full(row) or own is None or len(known) < len(others):
            return "-"
        return f"{own / statistics.fmean(known):.2f}"

    return {
        "method": MODE_NAMES[row["mode"]] if is_full(row) else method_name(row),
        "bits": "-" if is_full(row) else str(row["bits"]),
        "seeds": ", ".join(map(str, sorted(setting.seeds))),
        "accuracy %": points(setting.mean("accuracy")),
        "EMD": emd_text(setting.mean("emd_mean")),
        "noise floor": emd_text(setting.floor),
        "lower": emd_text(setting.by_lower.floor),
        "drift": "-" if is_full(row) else setting.drift_label,
        "mean rate": f"{setting.mean('mean_rate'):.4f}",
        "dead %": f"{100 * setting.mean('dead_fraction'):.1f}",
        "saturated %": f"{100 * setting.mean('saturated_fraction'):.2f}",
        "paired shift": emd_text(mean("paired_shift")),
        "x unquantized": times("paired_shift"),
        "time-W1": emd_text(mean("time_w1")),
        "x unquantized ": times("time_w1"),
    }
