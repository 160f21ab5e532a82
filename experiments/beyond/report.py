"""Make the page from the rows alone."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from experiments.beyond import arms
from experiments.beyond.config import BeyondConfig
from experiments.tables import emd_text, markdown_table, points, spread
from snnjax.runs import Row

_TEXT = ("quantizer", "arm")


def to_markdown(rows: Sequence[Row], config: BeyondConfig) -> str:
    """Return the page: baselines, calibration, training."""
    text = _read("head.md").format(
        dataset=config.dataset, width=config.width, images=config.images
    )
    base = [row for row in rows if row["part"] == "fp32"]
    if base:
        text += markdown_table([_baseline_line(row) for row in base]) + "\n"
    for part, first in (("ptq", arms.PTQ_BN), ("qat", arms.PLAIN)):
        mine = [row for row in rows if row["part"] == part and "failed" not in row]
        text += _read(f"{part}.md").format(epochs=config.qat_epochs)
        if not mine:
            text += "Nothing is measured yet.\n\n"
            continue
        text += markdown_table(_lines(mine, base, first), _TEXT) + "\n"
        text += "".join(f"- {s}\n" for s in find_ratios(mine, first)) + "\n"
    versions = {k: v for row in rows for k, v in row.get("versions", {}).items()}
    return text + f"{', '.join(f'{k} {v}' for k, v in versions.items())}.\n"


def _read(name: str) -> str:
    """Read prose that is kept next to this file."""
    return Path(__file__).with_name(name).read_text("utf-8")


def _baseline_line(row: Row) -> dict[str, str]:
    return {
        "seed": str(row["seed"]),
        "accuracy %": points(row["accuracy"]),
        "mean rate": f"{row['mean_rate']:.4f}",
        "sampling floor": emd_text(row["floor_sampling"]),
        "operations": f"{row['operations']:,.0f}",
    }


def _groups(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["quantizer"], row["arm"]), []).append(row)
    return found


def _lines(
    rows: Sequence[Row], base: Sequence[Row], first: str
) -> list[dict[str, str]]:
    operations = {row["seed"]: row["operations"] for row in base}
    groups, lines = _groups(rows), []
    for (quantizer, arm), found in groups.items():
        ratios = _compare(found, groups.get((quantizer, first), []))
        more = [row["operations"] / operations[row["seed"]] for row in found]
        lines.append(
            {
                "quantizer": quantizer,
                "arm": arm,
                "seeds": str(len(found)),
                "accuracy %": spread([r["accuracy"] for r in found], points),
                "EMD": spread([r["emd_mean"] for r in found], emd_text),
                "ratio": _ratio_text(ratios["emd_mean"]),
                "paired shift": spread(
                    [r["paired_shift_mean"] for r in found], emd_text
                ),
                "ratio of it": _ratio_text(ratios["paired_shift_mean"]),
                "time-W1": spread([r["time_w1_mean"] for r in found], emd_text),
                "operations": f"{statistics.fmean(more):.3f}",
                "seconds": f"{statistics.fmean(r['seconds'] for r in found):.0f}",
            }
        )
    return lines


def _ratio_text(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.2f}" if values else "-"


def _compare(rows: Sequence[Row], first: Sequence[Row]) -> dict[str, list[float]]:
    """Return each measure over that of the same seed in the arm to compare with."""
    theirs = {row["seed"]: row for row in first}
    return {
        key: [
            row[key] / theirs[row["seed"]][key] for row in rows if row["seed"] in theirs
        ]
        for key in ("emd_mean", "paired_shift_mean")
    }


def find_ratios(rows: Sequence[Row], first: str) -> list[str]:
    """Return a sentence on each arm: its ratios over all quantizers."""
    groups = _groups(rows)
    quantizers = list(dict.fromkeys(quantizer for quantizer, _ in groups))
    sentences = []
    for arm in dict.fromkeys(arm for _, arm in groups):
        ratios: dict[str, list[float]] = {"emd_mean": [], "paired_shift_mean": []}
        accuracy = []
        for quantizer in quantizers:
            found = groups.get((quantizer, arm), [])
            theirs = groups.get((quantizer, first), [])
            for key, values in _compare(found, theirs).items():
                if values:
                    ratios[key].append(statistics.fmean(values))
            seeds = {row["seed"]: row["accuracy"] for row in theirs}
            both = [
                r["accuracy"] - seeds[r["seed"]] for r in found if r["seed"] in seeds
            ]
            if both:
                accuracy.append(statistics.fmean(both))
        if arm == first or not accuracy:
            continue
        sentences.append(
            f"{arm}: of {len(accuracy)} quantizers the median EMD is "
            f"{statistics.median(ratios['emd_mean']):.2f} and the median paired shift "
            f"{statistics.median(ratios['paired_shift_mean']):.2f} times that of "
            f"“{first}”; accuracy differs by {100 * min(accuracy):+.2f} to "
            f"{100 * max(accuracy):+.2f} points, median "
            f"{100 * statistics.median(accuracy):+.2f}."
        )
    return sentences
