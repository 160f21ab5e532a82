"""The table: all rows in the paper's form, judged, the noise floor beside each EMD."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.report.formats import emd_text, percent, points
from experiments.report.names import (
    MODE_NAMES,
    group_items,
    is_full,
    method_name,
    method_order,
    setting_name,
)
from experiments.study.config import CLASSES, StudyConfig
from experiments.study.grid import name_row, planned
from snnjax.firing import _drift
from snnjax.firing._drift import Verdict
from snnjax.runs import Row


def judge(rows: Iterable[Row]) -> list[Verdict]:
    """Judge the rows of one or several runs (key "run"), in the table's order."""
    return _drift.judge(sorted(rows, key=table_order), CLASSES)


def table_order(row: Row) -> tuple[Any, ...]:
    """Sort key of the table's lines."""
    target, everywhere, site, *method = method_order(row)
    mode = list(MODE_NAMES).index(row["mode"])
    scope = (target, everywhere, site, mode)
    return (*scope, *method, row["bits"] or 0, row["seed"], row.get("run", ""))


def label(row: Row) -> str:
    """Return method, bits and mode."""
    return f"{setting_name(row)} {MODE_NAMES[row['mode']]}"


def summarize(verdict: Verdict) -> str:
    """Return a row's label and numbers, for a sentence."""
    text = f"{label(verdict.row)} with accuracy {percent(verdict.row['accuracy'])} and "
    text += f"EMD {emd_text(verdict.row['emd_mean'])}"
    return text + (f", {verdict.ratio:.2f} times its floor" if verdict.floor else "")


def describe_missing(rows: Sequence[Row], config: StudyConfig) -> list[str]:
    """Describe what a run of ``config`` has not finished yet."""
    done = {name_row(row) for row in rows}
    parts = [spec.to_row() for spec in planned(config)]
    wanted = Counter((row["target"], row["mode"]) for row in parts)
    left = Counter(
        (row["target"], row["mode"]) for row in parts if name_row(row) not in done
    )
    return [
        f"{target if target != 'none' else ''} {MODE_NAMES[mode]} "
        f"({left[target, mode]} of {number})".strip()
        for (target, mode), number in wanted.items()
        if left[target, mode]
    ]


TEXT_COLUMNS = ("run", "method", "mode", "drift")
# What the EMD hides: columns of the table, and keys of a row.
COMPANIONS = {
    "paired shift": "paired_shift",
    "KS": "ks",
    "latency EMD": "latency_emd",
    "time-W1": "time_w1",
}


def markdown(judged: Sequence[Verdict]) -> str:
    """Return all rows as markdown."""
    text = ""
    for title, some in group_rows(judged).items():
        text += f"### {title}\n\n{markdown_table([row_cells(v) for v in some])}\n"
    return text or "No row is finished yet.\n"


def markdown_table(
    lines: Sequence[Mapping[str, str]], text_columns: Sequence[str] = TEXT_COLUMNS
) -> str:
    """Return lines of one table, each by its columns: text left, numbers right.

    >>> print(markdown_table([{"method": "LQ-Net", "EMD": "0.1"}]), end="")
    | method | EMD |
    | ------ | --: |
    | LQ-Net | 0.1 |
    """
    widths = {k: max(2, len(k), *(len(c[k]) for c in lines)) for k in lines[0]}
    rule = {
        k: "-" * w if k in text_columns else "-" * (w - 1) + ":"
        for k, w in widths.items()
    }
    text = ""
    for line in ({k: k for k in widths}, rule, *lines):
        padded = (
            line[k].ljust(w) if k in text_columns else line[k].rjust(w)
            for k, w in widths.items()
        )
        text += f"| {' | '.join(padded)} |\n"
    return text


def group_rows(judged: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    """Group rows by the heading that they stand under."""
    return group_items(judged, lambda v: _heading(v.row))


def _heading(row: Row) -> str:
    if is_full(row):
        return "Full precision"
    target = row["target"].capitalize() + " everywhere" * bool(row["quantize_all"])
    target += " pre-fire" * (row["site"] == "pre_fire")
    return f"{target}, {MODE_NAMES[row['mode']]}"


def row_cells(verdict: Verdict) -> dict[str, str]:
    """Return one line of the table, by its columns."""
    row = verdict.row
    run = {"run": row["run"].replace("|", "\\|")} if "run" in row else {}
    return run | {
        "method": method_name(row),
        "mode": MODE_NAMES[row["mode"]],
        "bits": "-" if row["bits"] is None else str(row["bits"]),
        "seed": str(row["seed"]),
        "accuracy %": points(row["accuracy"]),
        "mean rate": f"{row['mean_rate']:.4f}",
        "dead %": f"{100 * row['dead_fraction']:.1f}",
        "saturated %": f"{100 * row['saturated_fraction']:.1f}",
        "EMD": emd_text(row["emd_mean"]),
        "noise floor": emd_text(verdict.floor),
        "lower": emd_text(verdict.lower),
        "drift": drift_label(verdict),
        **{k: emd_text(mean_over_layers(row, key)) for k, key in COMPANIONS.items()},
    }


def drift_label(verdict: Verdict) -> str:
    """Describe a row's drift in a word or two."""
    if verdict.state == "drift":
        return f"{verdict.ratio:.2f} x floor"
    if verdict.row["mode"] == "control":
        return "noise floor"
    if (lower := verdict.by_lower).state == "drift":
        return f"{lower.ratio:.2f} x lower"
    return "no drift seen" if verdict.within_sampling_noise else verdict.state


def mean_over_layers(row: Row, key: str) -> float | None:
    """Return the mean over layers; None where the row does not have it."""
    values = row.get(key)
    return statistics.fmean(values.values()) if values else None
