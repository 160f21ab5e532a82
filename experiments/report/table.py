"""The table: all rows in the paper's form, the noise floor beside each EMD."""

import statistics
from collections.abc import Mapping, Sequence

from experiments.common import Row
from experiments.report.judge import Verdict, verdicts
from experiments.report.names import MODE_NAMES, emd_text, is_full, method_name

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
        lines = [cells(verdict) for verdict in judged]
        widths = {k: max(len(k), *(len(c[k]) for c in lines)) for k in lines[0]}
        rule = {
            k: "-" * w if k in TEXT_COLUMNS else "-" * (w - 1) + ":"
            for k, w in widths.items()
        }
        text += f"### {title}\n\n"
        for line in ({k: k for k in widths}, rule, *lines):
            padded = (
                line[k].ljust(w) if k in TEXT_COLUMNS else line[k].rjust(w)
                for k, w in widths.items()
            )
            text += f"| {' | '.join(padded)} |\n"
        text += "\n"
    return text


def groups(judged: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    """What stands under one heading, by its title."""
    titled: dict[str, list[Verdict]] = {}
    for v in judged:
        mode = MODE_NAMES[v.row["mode"]]
        title = f"{v.row['target'].capitalize()}, {mode}"
        title = "Full precision" if is_full(v.row) else title
        titled.setdefault(title, []).append(v)
    return titled


def cells(verdict: Verdict) -> dict[str, str]:
    """One line of the table, by its columns."""
    row, floor = verdict.row, verdict.floor
    mark = verdict.state
    if mark == "drift":
        mark = f"{verdict.ratio:.2f} x floor"
    elif row["mode"] == "control":
        mark = "noise floor"
    elif verdict.unseen:
        mark = "no drift seen"
    run = {"run": row["run"].replace("|", "\\|")} if "run" in row else {}
    return run | {
        "method": method_name(row),
        "mode": MODE_NAMES[row["mode"]],
        "bits": "-" if row["bits"] is None else str(row["bits"]),
        "accuracy %": f"{100 * row['accuracy']:.2f}",
        "mean rate": f"{row['mean_rate']:.4f}",
        "dead %": f"{100 * row['dead_fraction']:.1f}",
        "saturated %": f"{100 * row['saturated_fraction']:.1f}",
        "EMD": emd_text(row["emd_mean"]),
        "noise floor": "-" if floor is None else emd_text(floor),
        "drift": mark,
        **{title: _mean_over_layers(row.get(key)) for title, key in COMPANIONS.items()},
    }


def _mean_over_layers(values: Mapping[str, float] | None) -> str:
    return emd_text(statistics.fmean(values.values())) if values else "-"
