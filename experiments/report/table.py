"""The table: all rows in the paper's form, judged, the noise floor beside each EMD."""

import pandas as pd

from experiments.report.formats import emd_text, markdown_table, points
from experiments.report.judged import COMPANIONS
from experiments.report.names import MODE_NAMES


def markdown(judged: pd.DataFrame) -> str:
    """Return all rows as markdown."""
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
    return run | {
        "method": row["way"],
        "mode": MODE_NAMES[row["mode"]],
        "bits": "-" if row["bits"] is None else str(row["bits"]),
        "seed": str(row["seed"]),
        "accuracy %": points(row["accuracy"]),
        "mean rate": f"{row['mean_rate']:.4f}",
        "dead %": f"{100 * row['dead_fraction']:.1f}",
        "saturated %": f"{100 * row['saturated_fraction']:.1f}",
        "EMD": emd_text(row["emd_mean"]),
        "noise floor": emd_text(row["floor"]),
        "lower": emd_text(row["lower"]),
        "drift": row["drift"],
        **{title: emd_text(row[f"mean.{key}"]) for title, key in COMPANIONS.items()},
    }
