"""The tables: rows, or settings of several seeds, in the paper's form, judged."""

from collections.abc import Iterable

import pandas as pd

from experiments.report.judged import COMPANIONS, REFERENCES, group_settings
from experiments.report.run import Run
from experiments.study.config import MODES
from experiments.study.names import MODE_NAMES
from experiments.tables import emd_text, is_missing, markdown_table, points, spread


def markdown(judged: pd.DataFrame) -> str:
    """Return rows or settings as markdown, a table a target and mode."""
    text = ""
    for title, some in group_rows(judged).items():
        lines = [row_cells(row) for row in some.to_dict("records")]
        text += f"### {title}\n\n{markdown_table(lines)}\n"
    return text or "No row is finished yet.\n"


def group_rows(judged: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Group rows by the heading that they stand under."""
    titles = [_heading(row) for row in judged.to_dict("records")]
    return dict(list(judged.groupby(titles, sort=False))) if titles else {}


def _heading(row: dict) -> str:
    if row["full"]:
        return "Full precision"
    target = row["target"].capitalize() + " everywhere" * bool(row["quantize_all"])
    target += " pre-fire" * (row["site"] == "pre_fire")
    return f"{target}, {MODE_NAMES[row['mode']]}"


def row_cells(row: dict) -> dict[str, str]:
    """Return one line of the table, by its columns."""
    run = {"run": row["run"].replace("|", "\\|")} if row["run"] else {}
    known = not is_missing(row["high"]) and not row["full"]
    seeds = row.get("seeds", [row["seed"]])
    return run | {
        "method": row["way"],
        "mode": MODE_NAMES[row["mode"]],
        "bits": "-" if row["bits"] is None else str(row["bits"]),
        "seed": ", ".join(map(str, sorted(seeds))),
        "accuracy %": points(row["accuracy"]),
        "mean rate": f"{row['mean_rate']:.4f}",
        "dead %": f"{100 * row['dead_fraction']:.1f}",
        "saturated %": f"{100 * row['saturated_fraction']:.1f}",
        "EMD": emd_text(row["emd_mean"]),
        "interval": f"{emd_text(row['low'])} to {emd_text(row['high'])}"
        if known
        else "-",
        "margin": emd_text(row["margin"]),
        "verdict": row["verdict"],
        **{title: emd_text(row[f"mean.{key}"]) for title, key in COMPANIONS.items()},
    }


# Bits of each mode at a glance, or the nearest: where most methods differ.
_BITS = {"ptq": 4, "ptq_bn": 4, "qat": 2}


def tabulate_glance(run: Run) -> str:
    """Return the methods by modes, each at one number of bits, accuracy / EMD."""
    settings, rows = group_settings(run.judged_main), run.judged_main
    columns: dict[str, dict[str, str]] = {}
    for mode in MODES:
        own = settings[settings["mode"] == mode]
        if len(own):
            bits = min(own["bits"], key=lambda b: (abs(b - _BITS[mode]), b))
            own = own[own["bits"] == bits].to_dict("records")
            full = rows[rows["mode"] == REFERENCES[mode]]
            cells = {"full precision": _pair(full["accuracy"], full["emd_mean"])}
            cells = cells if len(full) else {}
            cells |= {setting["way"]: _cell(setting) for setting in own}
            columns[f"{MODE_NAMES[mode]}, {bits} bit"] = cells
    names = dict.fromkeys(name for cells in columns.values() for name in cells)
    lines = [
        {"method": name} | {title: c.get(name, "-") for title, c in columns.items()}
        for name in names
    ]
    return markdown_table(lines)


def tabulate_paper(run: Run) -> dict[str, str]:
    """Return the paper's table of each mode: methods by bits, accuracy / EMD."""
    tables = {}
    settings = group_settings(run.judged_main)
    for mode in MODES:
        own = settings[settings["mode"] == mode]
        if len(own):
            several = own["seeds"].nunique() > 1
            titles = own["bits"].astype(str) + " bit"
            titles += [f", {_name_seeds(s)}" * several for s in own["seeds"]]
            cells = [_cell(s) for s in own.to_dict("records")]
            wide = own.assign(title=titles, cell=cells).sort_values("bits")
            columns = list(dict.fromkeys(wide["title"]))
            wide = wide.pivot(index="way", columns="title", values="cell").fillna("-")
            wide = wide.loc[list(dict.fromkeys(own["way"])), columns]
            lines = wide.rename_axis("method").reset_index().to_dict("records")
            tables[MODE_NAMES[mode]] = markdown_table(lines)
    return tables


def _name_seeds(seeds: Iterable[int]) -> str:
    numbers = sorted(seeds)
    return f"seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _pair(accuracies: Iterable[float], emds: Iterable[float]) -> str:
    accuracy = spread([100 * a for a in accuracies], "{:.1f}".format)
    return f"{accuracy} / {spread(list(emds), emd_text)}"


def _cell(setting: dict) -> str:
    text = _pair(setting["accuracies"], setting["emds"])
    if setting["state"] == "collapsed":
        return f"*{text}*"
    hides = setting["keeps"] and setting["state"] == "drift"
    return f"**{text}**" if hides else text
