"""A run's rows, judged by the library, in the table's order; and what a run misses."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.report.formats import emd_text, percent
from experiments.report.names import MODE_NAMES, method_order, setting_name
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
