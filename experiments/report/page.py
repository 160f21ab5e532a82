"""The report of runs as one HTML file: the report card's page with more rows."""

from collections.abc import Sequence

import markupsafe
import pandas as pd

from experiments.console import format_duration
from experiments.report.figures import Picture
from experiments.report.findings import findings
from experiments.report.judged import STATES, baselines
from experiments.report.run import Run, describe_run, describe_unfinished
from experiments.report.table import group_rows, row_cells
from experiments.report.words import DEFINITIONS
from experiments.study.command import make_command
from experiments.study.names import MODE_NAMES
from experiments.tables import TEXT_COLUMNS, emd_text, percent, plain
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
        networks = pd.DataFrame(
            {
                "name": quantized["label"],
                "group": quantized["mode"].map(MODE_NAMES),
                "accuracy": 100 * quantized["accuracy"],
                "emd": quantized["emd_mean"],
                "state": quantized["verdict"].astype(str),
                "seed": quantized["seed"].astype(int),
            }
        )
        drawn["scatter"] = charts.scatter_networks(networks, hover=["seed"])
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
            "Definitions": [blocks.terms(DEFINITIONS)],
            "Make it again": [_origin(run) for run in runs],
        },
        drawn=drawn,
    )


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
    numbers = run.judged_main["state"].value_counts().drop("reference", errors="ignore")
    tiles = {f"networks: {STATES[str(k)]}": str(n) for k, n in numbers.items()}
    for row in baselines(run.judged_main).to_dict("records"):
        tiles[f"baseline accuracy, seed {row['seed']}"] = percent(row["accuracy"])
        tiles[f"baseline mean rate, seed {row['seed']}"] = f"{row['mean_rate']:.4f}"
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
    text = markupsafe.Markup("<h3>{}</h3><pre>{}</pre>")
    commits = [start.get("commit") for start in run.info.get("starts", [])]
    info = {"run time": format_duration(run.seconds), "commits": commits}
    info |= run.info.get("config", {})
    info |= {f"versions {k}": v for k, v in run.info.get("versions", {}).items()}
    terms = blocks.terms({key: plain(value) for key, value in info.items()})
    return text.format(run.name, make_command(run.info["config"])) + terms
