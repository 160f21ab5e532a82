"""The table: all rows in the paper's form, the noise floor beside each EMD."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from experiments.report.judge import Verdict, verdicts
from experiments.report.names import MODE_NAMES, emd_text, is_full, method_name
from snnjax.runs import Row

TEXT_COLUMNS = ("run", "method", "mode", "drift")
# What the EMD hides: columns of the table, and keys of a row.
COMPANIONS = {
    "paired shift": "paired_shift",
    "KS": "ks",
    "latency EMD": "latency_emd",
    "time-W1": "time_w1",
}


def markdown(rows: Sequence[Row]) -> str:
    """All rows as markdown."""
    titled = groups(verdicts(rows))
    if not titled:
        return "No row is finished yet.\n"
    text = ""
    for title, judged in titled.items():
        text += f"### {title}\n\n{aligned([cells(v) for v in judged])}\n"
    return text


def aligned(
    lines: Sequence[Mapping[str, str]], text_columns: Sequence[str] = TEXT_COLUMNS
) -> str:
    """Lines of one table, each by its columns, as markdown: text left, numbers right.

    >>> print(aligned([{"method": "LQ-Net", "EMD": "0.1"}]), end="")
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


def groups(judged: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    """What stands under one heading, by its title."""
    titled: dict[str, list[Verdict]] = {}
    for v in judged:
        mode = MODE_NAMES[v.row["mode"]]
        target = v.row["target"].capitalize()
        target += " everywhere" * bool(v.row.get("quantize_all"))
        target += " pre-fire" * (v.row["site"] == "pre_fire")
        title = f"{target}, {mode}"
        title = "Full precision" if is_full(v.row) else title
        titled.setdefault(title, []).append(v)
    return titled


def cells(verdict: Verdict) -> dict[str, str]:
    """One line of the table, by its columns."""
    row, floor = verdict.row, verdict.floor
    run = {"run": row["run"].replace("|", "\\|")} if "run" in row else {}
    return run | {
        "method": method_name(row),
        "mode": MODE_NAMES[row["mode"]],
        "bits": "-" if row["bits"] is None else str(row["bits"]),
        "seed": str(row["seed"]),
        "accuracy %": f"{100 * row['accuracy']:.2f}",
        "mean rate": f"{row['mean_rate']:.4f}",
        "dead %": f"{100 * row['dead_fraction']:.1f}",
        "saturated %": f"{100 * row['saturated_fraction']:.1f}",
        "EMD": emd_text(row["emd_mean"]),
        "noise floor": _shown(floor),
        "lower": _shown(verdict.lower),
        "drift": drift(verdict),
        **{title: _shown(over_layers(row, key)) for title, key in COMPANIONS.items()},
    }


def drift(verdict: Verdict) -> str:
    """In a word or two, whether the row fires otherwise than its baseline."""
    if verdict.state == "drift":
        return f"{verdict.ratio:.2f} x floor"
    if verdict.row["mode"] == "control":
        return "noise floor"
    if (lower := verdict.by_lower).state == "drift":
        return f"{lower.ratio:.2f} x lower"
    return "no drift seen" if verdict.unseen else verdict.state


def over_layers(row: Row, key: str) -> float | None:
    """The mean over layers; None where the row does not have it."""
    values = row.get(key)
    return statistics.fmean(values.values()) if values else None


def spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    """The mean, and the sample standard deviation where there are several."""
    text = show(statistics.fmean(values))
    if len(values) == 1 or not all(map(math.isfinite, values)):
        return text
    decimals = len(text.partition(".")[2])  # as many as the mean
    scale = 100 if show is points else 1
    return f"{text} ± {scale * statistics.stdev(values):.{decimals}f}"


def mean(values: Sequence[float], show: Callable[[float], str]) -> str:
    return show(statistics.fmean(values))


def points(share: float) -> str:
    return f"{100 * share:.2f}"


def _shown(value: float | None) -> str:
    return "-" if value is None else emd_text(value)
