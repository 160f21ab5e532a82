"""The report of runs as one HTML file: the report card's page with more rows."""

from collections.abc import Sequence
from typing import Any

import markupsafe
import pandas as pd

from experiments.console import format_duration
from experiments.report.figures import Picture
from experiments.report.findings import findings
from experiments.report.formats import (
    DEFINITIONS,
    TEXT_COLUMNS,
    emd_text,
    percent,
    plain,
)
from experiments.report.judged import STATES, baselines
from experiments.report.names import MODE_NAMES
from experiments.report.run import Run, describe_run, describe_unfinished, study_command
from experiments.report.table import group_rows, row_cells
from snnjax.report import charts, page
from snnjax.report.page import blocks

TITLE = "Accuracy and firing under quantization"
_SCATTER = "Accuracy and EMD of every network: point at one to see what it is, press a "
_SCATTER += "name in the legend to see its mode alone."


def html(runs: Sequence[Run], judged: pd.DataFrame, pictures: Sequence[Picture]) -> str:
    """Return the page of ``runs``, whose rows in the table's order are ``judged``."""
    drawn = {p.name: p.chart for p in pictures if p.chart is not None}
    quantized = judged[~judged["full"]]
    scatter = []
    if len(quantized):
        drawn["scatter"] = charts.scatter_networks(_networks(quantized), hover=["seed"])
        scatter = [blocks.figure("scatter", _SCATTER)]

    def figures(*names: str) -> list[markupsafe.Markup]:
        some = [p for p in pictures if p.name.startswith(names)]
        return [blocks.figure(p.name, p.caption, p.chart is not None) for p in some]

    nothing = [markupsafe.Markup("<p>No quantized row yet.</p>")]
    return page.make(
        title=f"{', '.join(run.name for run in runs)}: {TITLE}",
        heading=TITLE,
        head=markupsafe.Markup("").join(map(_head, runs)),
        sections={
            "Accuracy and EMD": scatter,
            "Accuracy and EMD over bits": figures("over_bits") or nothing,
            "All rows": [_table(judged)],
            "Layer by layer": figures("layers", "rates", "flows"),
            "Does EMD predict anything?": figures("prediction"),
            "Definitions": [blocks.terms(DEFINITIONS)],
            "Make it again": [_origin(run) for run in runs],
        },
        drawn=drawn,
    )


def _networks(quantized: pd.DataFrame) -> pd.DataFrame:
    found = quantized[["seed"]].assign(
        name=quantized["label"],
        state=quantized["verdict"],
        group=quantized["mode"].map(MODE_NAMES),
        accuracy=100 * quantized["accuracy"],
        emd=quantized["emd_mean"],
    )
    return found.astype({"seed": int, "state": str})


def _head(run: Run) -> markupsafe.Markup:
    """Return the run's description, findings, and its baseline's numbers."""
    text = markupsafe.Markup("<h3>{}</h3>").format(describe_run(run))
    if left := describe_unfinished(run):
        text += markupsafe.Markup("<p><strong>{}</strong></p>").format(left)
    item = markupsafe.Markup("<li>{}</li>")
    sentences = [item.format(sentence) for sentence in findings(run.judged_main)]
    text += markupsafe.Markup('<ol class="card">{}</ol>').format(
        markupsafe.Markup("").join(sentences)
    )
    tiles = {}
    bases = baselines(run.judged_main)
    for row in bases.to_dict("records"):
        seed = f", seed {row['seed']}" if len(bases) > 1 else ""
        tiles[f"baseline accuracy{seed}"] = percent(row["accuracy"])
        tiles[f"baseline mean rate{seed}"] = f"{row['mean_rate']:.4f}"
    for name, number in run.judged_main["state"].value_counts().items():
        if name != "reference":
            tiles[f"networks: {STATES[str(name)]}"] = str(number)
    margins = run.judged_main.groupby("mode")["margin"].max()
    for mode, margin in margins[margins > 0].items():
        tiles[f"margin of EMD, {MODE_NAMES[str(mode)]}"] = emd_text(margin)
    return text + blocks.tiles(tiles)


def _table(judged: pd.DataFrame) -> markupsafe.Markup:
    groups = {}
    for title, some in group_rows(judged).items():
        rows = some.to_dict("records")
        groups[title] = [
            {"state": row["state"], "cells": row_cells(row), "numbers": {}}
            for row in rows
        ]
    if not groups:
        return markupsafe.Markup("<p>No row is finished yet.</p>")
    kinds = dict.fromkeys(TEXT_COLUMNS, "text") | {
        "EMD": "judged",
        "verdict": "text judged",
    }
    titles = next(iter(groups.values()))[0]["cells"]
    columns = [{"title": title, "kind": kinds.get(title, "")} for title in titles]
    return blocks.table(columns, groups, "Press a heading to sort.")


def _origin(run: Run) -> markupsafe.Markup:
    """Return command, config and versions of the run."""
    starts = run.info.get("starts", [])
    info: dict[str, Any] = {"run time": format_duration(run.seconds)}
    info["commits"] = list(dict.fromkeys(start.get("commit") for start in starts))
    info |= run.info.get("config", {})
    info |= {f"versions {k}": v for k, v in run.info.get("versions", {}).items()}
    text = markupsafe.Markup(
        '<h3>{}</h3><pre>{}</pre><p class="soft">With --data-dir where prepared '
        "data lie elsewhere, and a fresh folder as --out: in the old one, finished "
        "rows are kept.</p>"
    ).format(run.name, study_command(run.info["config"]))
    return text + blocks.terms({key: plain(value) for key, value in info.items()})
