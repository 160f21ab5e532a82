"""Rows of all seeds that are quantized in the same way, and the tables of them."""

from collections.abc import Iterable, Sequence

import pandas as pd

from experiments.report.formats import (
    emd_text,
    is_missing,
    markdown_table,
    points,
    spread,
)
from experiments.report.judged import POINT, ROUNDING, SETTING
from experiments.report.names import MODE_NAMES
from experiments.report.run import Run
from experiments.study.config import MODES


def group_settings(judged: pd.DataFrame) -> pd.DataFrame:
    """Group quantized rows that differ by their seed alone, in the table's order.

    The columns of a row, with EMD, accuracy, floors and measures as means over seeds
    (NaN where one is missing), and:
        seeds: the seeds.
        keeps: True if accuracy is kept on the mean.
        within: True if EMD is at most the noise floor, on the mean.
        collapsed: True if a seed collapsed.
        drifts, moves: True if EMD is above the noise floor, the lower floor, in each.
        drift: the label that all seeds share, or in how many seeds it drifts.
    """
    quantized = judged[~judged["full"]]
    some = quantized.drop_duplicates(SETTING)
    means = [c for c in some if some[c].dtype == float]
    states = {
        "collapsed": quantized["state"] != "collapsed",
        "drifts": quantized["state"] == "drift",
        "moves": quantized["lower_state"] == "drift",
    }
    groups = quantized.assign(**states).groupby(SETTING, sort=False)
    known = groups[means].count().eq(groups.size(), axis=0)
    found = some.drop(columns=means).set_index(SETTING)
    found = found.join(groups[means].mean().where(known))
    every = groups[list(states)].all().astype(bool)
    return found.assign(
        seeds=groups["seed"].agg(frozenset),
        accuracies=groups["accuracy"].agg(list),
        emds=groups["emd_mean"].agg(list),
        keeps=found["loss"] <= POINT + ROUNDING,
        within=found["emd_mean"] <= found["floor"],
        collapsed=~every["collapsed"],
        drifts=every["drifts"],
        moves=every["moves"],
        drift=pd.Series(
            {name: _drift_label(own) for name, own in groups}, dtype=object
        ),
    ).reset_index()


def _drift_label(rows: pd.DataFrame) -> str:
    if len(set(rows["drift"])) == 1:
        return rows["drift"].iloc[0]
    states, lower = list(rows["state"]), list(rows["lower_state"])
    if set(states) == {"drift"}:
        return f"{rows['ratio'].mean():.2f} x floor"
    if set(states) == {"within"}:
        if set(lower) == {"drift"}:
            return f"{rows['lower_ratio'].mean():.2f} x lower"
        moved = lower.count("drift")
        return f"moved in {moved} of {len(states)}" if moved else "within"
    state = "collapsed" if "collapsed" in states else "drift"
    return f"{state} in {states.count(state)} of {len(states)}"


def common_seeds(judged: pd.DataFrame) -> frozenset[int]:
    """Return the seeds that every setting of the rows has."""
    seeds = judged.groupby(SETTING, sort=False)["seed"].agg(frozenset)
    return frozenset.intersection(*seeds) if len(seeds) else frozenset()


def split_by_seeds(judged: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split rows into those of the common seeds, and of settings with more seeds.

    Seeds differ in their baselines: means of one and of two are not to be compared.
    """
    common = common_seeds(judged)
    if not common:
        return judged, judged[:0]
    seeds = judged.groupby(SETTING)["seed"].transform("nunique")
    return judged[judged["seed"].isin(common)], judged[seeds > len(common)]


def split_modes(judged: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Split the quantized rows by mode."""
    quantized = judged[~judged["full"]]
    found = {mode: quantized[quantized["mode"] == mode] for mode in MODES}
    return {mode: rows for mode, rows in found.items() if len(rows)}


def paper_tables(run: Run) -> list[dict[str, str]]:
    """Return the paper's table of each mode: its title, its seeds and its text."""
    tables = []
    for mode, rows in split_modes(run.judged_main).items():
        fair, more = split_by_seeds(rows)
        own = _by_bits(group_settings(fair)) + _by_bits(
            group_settings(more), named=True
        )
        columns = dict.fromkeys(title for title, _ in own)
        lines = {
            way: {"method": way} | dict.fromkeys(columns, "-")
            for way in dict.fromkeys(fair["way"])
        }
        for title, setting in own:
            lines[setting["way"]][title] = _cell(setting)
        seeds = _name_seeds(fair["seed"]) if len(more) else ""
        text = markdown_table(list(lines.values()))
        tables.append({"title": MODE_NAMES[mode], "seeds": seeds, "text": text})
    return tables


def _by_bits(settings: pd.DataFrame, *, named: bool = False) -> list[tuple[str, dict]]:
    """Return settings with the titles of their columns, which may name the seeds."""
    found = settings.to_dict("records")
    return [
        (f"{s['bits']} bit" + f", {_name_seeds(s['seeds'])}" * named, s)
        for s in sorted(found, key=lambda s: (s["bits"], sorted(s["seeds"])))
    ]


def _name_seeds(seeds: Iterable[int]) -> str:
    numbers = sorted(set(seeds))
    return f"seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _cell(setting: dict) -> str:
    accuracy = spread([100 * a for a in setting["accuracies"]], "{:.1f}".format)
    text = f"{accuracy} / {spread(setting['emds'], emd_text)}"
    if setting["collapsed"]:
        return f"*{text}*"
    if not setting["keeps"]:
        return text
    if setting["drifts"]:
        return f"**{text}**"
    return f"{text} \\*" if setting["moves"] else text


def tabulate_measures(run: Run) -> dict[str, str]:
    """Return tables of all measures, a setting a line; none if none is finished."""
    found = split_modes(run.judged_main)
    if not found:
        return {}
    full = run.judged_main[run.judged_main["full"]]
    # Baselines, controls and baselines with re-estimated BatchNorm, a seed a line.
    lines = {"Full precision": [_measures(v, full) for v in full.to_dict("records")]}
    for mode, rows in found.items():
        title = f"{MODE_NAMES[mode]}, all measures"
        lines[title] = _lines(split_by_seeds(rows), full)
    ablation = run.judged.drop(index=run.judged_main.index)
    for mode, rows in split_modes(ablation).items():
        lines[f"{MODE_NAMES[mode]}, ablation, all measures"] = _lines([rows], full)
    text = ("method", "seeds", "drift")
    return {title: markdown_table(own, text) for title, own in lines.items()}


def _lines(parts: Sequence[pd.DataFrame], full: pd.DataFrame) -> list[dict[str, str]]:
    settings = pd.concat([group_settings(rows) for rows in parts if len(rows)])
    return [_measures(setting, full) for setting in settings.to_dict("records")]


def _measures(row: dict, full: pd.DataFrame) -> dict[str, str]:
    seeds = row.get("seeds", {row["seed"]})
    mode = "fp32_bn" if row["mode"] == "ptq_bn" else "control"
    unquantized = full[(full["mode"] == mode) & full["seed"].isin(seeds)]

    def times(key: str) -> str:
        others = unquantized[key][unquantized[key] > 0]
        if row["full"] or is_missing(row[key]) or len(others) < len(seeds):
            return "-"
        return f"{row[key] / others.mean():.2f}"

    return {
        "method": MODE_NAMES[row["mode"]] if row["full"] else row["way"],
        "bits": "-" if row["full"] else str(row["bits"]),
        "seeds": ", ".join(map(str, sorted(seeds))),
        "accuracy %": points(row["accuracy"]),
        "EMD": emd_text(row["emd_mean"]),
        "noise floor": emd_text(row["floor"]),
        "lower": emd_text(row["lower"]),
        "drift": "-" if row["full"] else row["drift"],
        "mean rate": f"{row['mean_rate']:.4f}",
        "dead %": f"{100 * row['dead_fraction']:.1f}",
        "saturated %": f"{100 * row['saturated_fraction']:.2f}",
        "paired shift": emd_text(row["mean.paired_shift"]),
        "x unquantized": times("mean.paired_shift"),
        "time-W1": emd_text(row["mean.time_w1"]),
        "x unquantized ": times("mean.time_w1"),
    }


def tabulate_baselines(run: Run) -> tuple[list[dict[str, str]], list[dict]]:
    """Tabulate the full-precision networks; returns lines, and the controls' rows."""
    full = run.judged[run.judged["full"]]
    modes = {m: full[full["mode"] == m].set_index("seed") for m in set(full["mode"])}
    if "fp32" not in modes:
        return [], []
    base = modes["fp32"]
    control, reestimated = (
        modes.get(mode, base[:0]).reindex(base.index) for mode in ("control", "fp32_bn")
    )
    shown = {
        "accuracy %": (base["accuracy"], points),
        "mean rate": (base["mean_rate"], "{:.4f}".format),
        "dead %": (base["dead_fraction"], points),
        "saturated %": (base["saturated_fraction"], points),
        "control's accuracy %": (control["accuracy"], points),
        "floor: control": (control["emd_mean"], emd_text),
        "floor: seed": (control["floor_seed"], emd_text),
        "floor: sampling": (base["floor_sampling"], emd_text),
    }
    if "ptq_bn" in run.config.modes:
        shown["BatchNorm re-estimated"] = (reestimated["emd_mean"], emd_text)
    lines = [{"seed": str(seed)} for seed in base.index]
    lines += [{"seed": "mean"}] * (len(base) > 1)
    lines = [dict(line) for line in lines]
    for title, (values, show) in shown.items():
        known = list(values.dropna())
        # Of two seeds the floor is one distance, of more none is its own.
        if title == "floor: seed" and known:
            known = [sum(known) / len(known)]
        cells = ["-" if is_missing(value) else show(value) for value in values]
        cells.append(spread(known, show) if known else "-")
        for line, cell in zip(lines, cells, strict=False):
            line[title] = cell
    controls = control.dropna(subset="accuracy").reset_index().to_dict("records")
    return lines, controls
