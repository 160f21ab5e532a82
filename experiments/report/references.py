"""The networks that nothing quantizes: baselines, controls, and the noise floors."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from experiments.report.names import FLOORS, emd_text, is_full
from experiments.report.run import Run
from experiments.report.table import aligned, mean, points, spread
from snnjax.runs import Row


def markdown(run: Run) -> str:
    """The section."""
    rows = {(row["mode"], row["seed"]): row for row in run.rows if is_full(row)}
    bases = [row for (mode, _), row in rows.items() if mode == "fp32"]
    if not bases:
        return "No baseline is finished yet.\n"
    controls = [rows.get(("control", row["seed"]), {}) for row in bases]
    anew = [rows.get(("fp32_bn", row["seed"]), {}) for row in bases]
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
        shown["BatchNorm anew"] = (anew, "emd_mean", emd_text)
    columns = {
        title: [row.get(key) for row in some] for title, (some, key, _) in shown.items()
    }
    lines: list[dict[str, str]] = []
    for i, row in enumerate(bases):
        line = {"seed": str(row["seed"])}
        for title, (_, _, show) in shown.items():
            value = columns[title][i]
            line[title] = "-" if value is None else show(value)
        lines.append(line)
    if len(bases) > 1:
        line = {"seed": "mean"}
        for title, (_, _, show) in shown.items():
            known = [value for value in columns[title] if value is not None]
            # Of two seeds the floor is one distance, of more none is its own.
            told = mean if title == "floor: seed" else spread
            line[title] = told(known, show) if known else "-"
        lines.append(line)
    floors = ", ".join(f"{k.removeprefix('floor_')}: {v}" for k, v in FLOORS.items())
    text = f"{aligned(lines)}\nThe noise floors are EMDs without quantization ({floors}"
    text += "). The noise floor of a row is the largest of its seed, its lower floor "
    text += "that of its own way: sampling for PTQ, for QAT the control too"
    if "ptq_bn" in run.config.modes:
        text += ", for PTQ+BN what taking BatchNorm's statistics anew moves in the "
        text += "baseline, the last column"
    text += ". A setting is judged by the means of its seeds' floors. "
    text = f"{text}{_luck(run, bases)}".rstrip() + "\n"
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


def _luck(run: Run, bases: Sequence[Row]) -> str:
    """How far a measured accuracy is from the network's own, by the test images."""
    if not (images := run.info.get("images")):
        return ""
    p = statistics.fmean(row["accuracy"] for row in bases)
    error = 100 * math.sqrt(p * (1 - p) / images[1])
    parts = [f"{100 * math.sqrt(d / images[1]):.2f}" for d in (0.05, 0.1, 0.2)]
    return (
        f"Accuracy has no such floor: the standard error of one, by the choice of test "
        f"images, is {error:.2f} points. Of a difference of two networks it hangs on "
        "the share of images that one of them alone gets right: of 5, 10 or 20 % it is "
        f"{parts[0]}, {parts[1]} or {parts[2]} points."
    )
