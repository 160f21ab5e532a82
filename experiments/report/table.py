"""The tables: rows, or settings of several seeds, in the paper's form, judged."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.report.judged import COMPANIONS, REFERENCES, group_settings
from experiments.report.run import Run
from experiments.study.config import MODES
from experiments.study.names import MODE_NAMES
from experiments.tables import (
    emd_text,
    is_missing,
    list_seeds,
    markdown_table,
    points,
    signed_emd,
    spread,
)


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
    seeds = row.get("seeds", [row["seed"]])
    return run | {
        "method": row["way"],
        "mode": MODE_NAMES[row["mode"]],
        "bits": "-" if row["bits"] is None else str(row["bits"]),
        "seed": list_seeds(seeds),
        "accuracy %": points(row["accuracy"]),
        "mean rate": f"{row['mean_rate']:.4f}",
        "dead %": f"{100 * row['dead_fraction']:.1f}",
        "saturated %": f"{100 * row['saturated_fraction']:.1f}",
        **_answer(row),
        **{title: emd_text(row[f"mean.{key}"]) for title, key in COMPANIONS.items()},
    }


# Of settings alone: a row has one seed.
_OPERATIONS = "operations_low", "operations_high"


def _answer(row: dict) -> dict[str, str]:
    """Return what a row or a setting tells of firing, with intervals, and its verdict.

    That is the EMD, what it is above its margin, and the change of operations.
    """
    emds = row["emd_mean"], row["low"], row["high"]
    emds = emds[:1] if row["full"] else emds
    # PTQ without BatchNorm moves nothing by itself: all of its EMD is the quantizer's.
    excess = np.nan, np.nan, np.nan
    if row["margin"] > 0:
        excess = row["excess"], row["excess_low"], row["excess_high"]
    operations = [100 * row[k] for k in ("operations", *_OPERATIONS) if k in row]
    return {
        "EMD": _interval(emds, emd_text),
        "above margin": _interval(excess, signed_emd),
        "operations %": _interval(operations, "{:+.1f}".format),
        "verdict": row["verdict"],
    }


def _interval(values: Sequence[float], show: Callable[[float], str]) -> str:
    """Print a number and, if known, the ends of its interval."""
    if is_missing(values[0]):
        return "-"
    ends = [show(value) for value in values[1:] if not is_missing(value)]
    return show(values[0]) + f" [{', '.join(ends)}]" * bool(ends)


# Bits at a glance, or the nearest: where most methods differ.
_BITS = {"ptq": 4, "ptq_bn": 4, "qat": 2}


def tabulate_glance(run: Run) -> dict[str, Any]:
    """Return the methods at one number of bits, in the mode that trains most.

    That is the ``table``, the ``mode``, the ``bits``, and the ``seeds``.
    """
    rows, settings = run.judged_main, group_settings(run.judged_main)
    mode = max(settings["mode"], key=MODES.index)
    own = settings[settings["mode"] == mode]
    bits = min(own["bits"], key=lambda b: (abs(b - _BITS[mode]), b))
    own, lines = own[own["bits"] == bits], []
    seeds = sorted(set().union(*own["seeds"]))
    full = rows[(rows["mode"] == REFERENCES[mode]) & rows["seed"].isin(seeds)]
    if len(full):
        lines = [
            {
                "method": "full precision",
                "accuracy %": _percents(full["accuracy"]),
                "EMD": spread(list(full["emd_mean"]), emd_text),
                **dict.fromkeys(("above margin", "operations %", "verdict"), "-"),
            }
        ]
    for setting in own.to_dict("records"):
        accuracy = _percents(setting["accuracies"])
        hides = setting["keeps"] and setting["state"] == "drift"
        accuracy = f"**{accuracy}**" if hides else accuracy
        names = {"method": setting["way"], "accuracy %": accuracy}
        lines.append(names | _answer(setting))
    table = markdown_table(lines)
    return {"table": table, "mode": MODE_NAMES[mode], "bits": bits, "seeds": seeds}


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


def _name_seeds(seeds: Collection[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {list_seeds(seeds)}"


def _percents(accuracies: Iterable[float]) -> str:
    return spread([100 * a for a in accuracies], "{:.1f}".format)


def _cell(setting: dict) -> str:
    emds = spread(list(setting["emds"]), emd_text)
    text = f"{_percents(setting['accuracies'])} / {emds}"
    if setting["state"] == "collapsed":
        return f"*{text}*"
    hides = setting["keeps"] and setting["state"] == "drift"
    return f"**{text}**" if hides else text
