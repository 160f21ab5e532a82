"""The full-precision networks: baselines, controls, and the noise floors."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from experiments.report.formats import emd_text, points, spread
from experiments.report.names import FLOORS, is_full
from experiments.report.prose import PAGE
from experiments.report.run import Run
from experiments.report.table import markdown_table
from snnjax.runs import Row


def markdown(run: Run) -> str:
    """Return the section."""
    rows = {(row["mode"], row["seed"]): row for row in run.rows if is_full(row)}
    bases = [row for (mode, _), row in rows.items() if mode == "fp32"]
    if not bases:
        return "No baseline is finished yet.\n"
    controls = [rows.get(("control", row["seed"]), {}) for row in bases]
    reestimated = [rows.get(("fp32_bn", row["seed"]), {}) for row in bases]
    shown: dict[str, tuple[Iterable[Row], str, Callable[[float], str]]] = {
        "accuracy %": (bases, "accuracy", points),
        "mean rate": (bases, "mean_rate", lambda rate: f"{rate:.4f}"),
        "dead %": (bases, "dead_fraction", points),
        "saturated %": (bases, "saturated_fraction", points),
        "control's accuracy %": (controls, "accuracy", points),
        "floor: control": (controls, "emd_mean", emd_text),
        "floor: seed": (controls, "floor_seed", emd_text),
        "floor: sampling": (bases, "floor_sampling", emd_text),
    }
    if "ptq_bn" in run.config.modes:
        shown["BatchNorm re-estimated"] = (reestimated, "emd_mean", emd_text)
    lines = [{"seed": str(row["seed"])} for row in bases]
    lines += [{"seed": "mean"}] * (len(bases) > 1)
    for title, (some, key, show) in shown.items():
        values = [row.get(key) for row in some]
        known = [value for value in values if value is not None]
        # Of two seeds the floor is one distance, of more none is its own.
        if title == "floor: seed" and known:
            known = [statistics.fmean(known)]
        cells = ["-" if value is None else show(value) for value in values]
        cells.append(spread(known, show) if known else "-")
        for line, cell in zip(lines, cells, strict=False):
            line[title] = cell
    floors = ", ".join(f"{k.removeprefix('floor_')}: {v}" for k, v in FLOORS.items())
    reestimation = PAGE["reestimation"] * ("ptq_bn" in run.config.modes)
    about = PAGE["floors"].format(floors=floors, reestimation=reestimation)
    text = f"{markdown_table(lines)}\n{about} "
    text = f"{text}{_sampling_error(run, bases)}".rstrip() + "\n"
    for row in filter(None, controls):
        if (before := row.get("emd_mean_epoch_before")) is not None and before > 0:
            moved = row["emd_mean"] / before - 1
            text += (
                f"In its last epoch the EMD of seed {row['seed']}'s control went from "
                f"{emd_text(before)} to {emd_text(row['emd_mean'])}, by "
                f"{100 * moved:+.0f} %: it "
                f"{'still moved' if abs(moved) > 0.1 else 'had settled'} (by more or "
                "less than 10 %).\n"
            )
        elif before is None and run.config.qat_epochs > 1:
            text += f"Whether the EMD of seed {row['seed']}'s control had settled was "
            text += "not measured.\n"
    if len(bases) > 1:
        text += "± is the sample standard deviation over the seeds that have it.\n"
    return text


def _sampling_error(run: Run, bases: Sequence[Row]) -> str:
    """Describe the standard error of accuracy by the choice of test images."""
    if not (images := run.info.get("images")):
        return ""
    p = statistics.fmean(row["accuracy"] for row in bases)
    error = 100 * math.sqrt(p * (1 - p) / images[1])
    parts = [f"{100 * math.sqrt(d / images[1]):.2f}" for d in (0.05, 0.1, 0.2)]
    return PAGE["sampling_error"].format(error, *parts)
