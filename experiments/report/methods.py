"""Tables of a run's settings by mode: in the paper's form, and with all measures."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from experiments.report.formats import emd_text, points, spread
from experiments.report.judge import Verdict
from experiments.report.names import MODE_NAMES, is_full, method_name
from experiments.report.prose import PAGE
from experiments.report.run import Run, is_main
from experiments.report.settings import Setting, group_settings, split_by_seeds
from experiments.report.table import markdown_table, mean_over_layers
from experiments.study.config import MODES
from snnjax.runs import Row


def _by_mode(judged: Iterable[Verdict]) -> dict[str, list[Setting]]:
    """Group settings by mode."""
    found: dict[str, list[Setting]] = {mode: [] for mode in MODES}
    for setting in group_settings(judged):
        found[setting.row["mode"]].append(setting)
    return {mode: some for mode, some in found.items() if some}


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
    if not setting.keeps_accuracy:
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
