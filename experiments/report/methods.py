"""The settings of a run, mode by mode: in the paper's form, and with all measures."""

import statistics
from collections.abc import Mapping, Sequence

from experiments.report.judge import verdicts
from experiments.report.names import MODE_NAMES, emd_text, is_full, method_name
from experiments.report.run import Run
from experiments.report.settings import Setting, alike, settings
from experiments.report.table import aligned, over_layers, points, spread
from experiments.study.config import MODES
from snnjax.runs import Row


def _some(rows: Sequence[Row]) -> dict[str, list[Setting]]:
    """Settings of each mode."""
    found: dict[str, list[Setting]] = {mode: [] for mode in MODES}
    for setting in settings(verdicts(rows)):
        found[setting.row["mode"]].append(setting)
    return {mode: some for mode, some in found.items() if some}


def paper(run: Run) -> str:
    """The paper's table, one a mode; empty where no quantized row is finished."""
    found = _some(run.main)
    if not found:
        return ""
    several = any(len(s.judged) > 1 for some in found.values() for s in some)
    spreads = ", of several seeds the mean ± the sample standard deviation"
    text = (
        f"Accuracy in % / mean EMD over layers{spreads * several}. "
        "**Bold**: accuracy within a point of the baseline's "
        "(after QAT, of the control's too) and in every seed EMD above the noise "
        "floor, a drift that accuracy hides; with an asterisk: in every seed above the "
        "lower floor, and not above the noise floor in each, it moved by less than "
        "another seed does. *Italic*: collapsed in at least one seed.\n"
    )
    for mode, some in found.items():
        fair, more = alike(some)
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
        text += aligned(list(lines.values()))
    return text


def _by_bits(some: Sequence[Setting]) -> list[Setting]:
    return sorted(some, key=lambda s: (s.row["bits"], sorted(s.seeds)))


def _seeds(setting: Setting) -> str:
    """Which they are, in words."""
    numbers = sorted(setting.seeds)
    return f"seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _cell(setting: Setting) -> str:
    accuracy = spread(
        setting.values(lambda row: 100 * row["accuracy"]), "{:.1f}".format
    )
    text = f"{accuracy} / {spread(setting.values(lambda r: r['emd_mean']), emd_text)}"
    if setting.collapsed:
        return f"*{text}*"
    if not setting.kept:
        return text
    if setting.drifts:
        return f"**{text}**"
    return f"{text} \\*" if setting.moved else text


def all_measures(run: Run) -> str:
    """Every setting with all that is measured of it; empty where there is none."""
    found = _some(run.main)
    if not found:
        return ""
    text = (
        "Of several seeds the means, of the floors too. Beside paired shift and "
        "time-W1 stands how many times what they are without a quantizer: in the "
        "control, for PTQ+BN in baseline+BN. Other floors of theirs are not measured.\n"
    )
    full = [v for v in verdicts(run.main) if is_full(v.row)]
    unquantized = {(v.row["mode"], v.row["seed"]): v.row for v in full}
    # Baselines, controls and baselines with BatchNorm anew, a seed a line.
    titled = {"Full precision": [Setting((v,)) for v in full]}
    for mode, some in found.items():
        fair, more = alike(some)
        titled[f"{MODE_NAMES[mode]}, all measures"] = [*fair, *more]
    main = {id(row) for row in run.main}
    # Beside the baselines by which rows are judged, which are of both.
    beside = [row for row in run.rows if is_full(row) or id(row) not in main]
    for mode, some in _some(beside).items():
        titled[f"{MODE_NAMES[mode]}, ablation, all measures"] = some
    for title, some in titled.items():
        lines = [_all_measures(setting, unquantized) for setting in some]
        text += f"\n### {title}\n\n{aligned(lines, ('method', 'seeds', 'drift'))}"
    return text


def _all_measures(
    setting: Setting, unquantized: Mapping[tuple[str, int], Row]
) -> dict[str, str]:
    def mean(key: str) -> str:
        values = setting.values(lambda row: over_layers(row, key))
        return emd_text(statistics.fmean(values)) if values else "-"

    row = setting.row
    mode = "fp32_bn" if row["mode"] == "ptq_bn" else "control"

    def times(key: str) -> str:
        values = setting.values(lambda row: over_layers(row, key))
        beside = [unquantized.get((mode, seed), {}) for seed in setting.seeds]
        rests = [rest for each in beside if (rest := over_layers(each, key))]
        if is_full(row) or not values or len(rests) < len(beside):
            return "-"
        return f"{statistics.fmean(values) / statistics.fmean(rests):.2f}"

    return {
        "method": MODE_NAMES[row["mode"]] if is_full(row) else method_name(row),
        "bits": "-" if is_full(row) else str(row["bits"]),
        "seeds": ", ".join(map(str, sorted(setting.seeds))),
        "accuracy %": points(setting.mean("accuracy")),
        "EMD": emd_text(setting.mean("emd_mean")),
        "noise floor": "-" if setting.floor is None else emd_text(setting.floor),
        "lower": "-" if setting.lower is None else emd_text(setting.lower),
        "drift": "-" if is_full(row) else setting.drift,
        "mean rate": f"{setting.mean('mean_rate'):.4f}",
        "dead %": f"{100 * setting.mean('dead_fraction'):.1f}",
        "saturated %": f"{100 * setting.mean('saturated_fraction'):.2f}",
        "paired shift": mean("paired_shift"),
        "x unquantized": times("paired_shift"),
        "time-W1": mean("time_w1"),
        "x unquantized ": times("time_w1"),
    }
