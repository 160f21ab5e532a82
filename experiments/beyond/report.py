"""Make the page from the rows alone."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.beyond import arms
from experiments.beyond.config import BeyondConfig
from experiments.tables import emd_text, markdown_table, points, spread
from snnjax.runs import Row

_TEXT = ("quantizer", "arm")
_KEY = ["quantizer", "arm"]
_MEASURES = ["emd_mean", "paired_shift_mean", "accuracy"]


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
        frame = compare_rows(mine, base, first)
        text += markdown_table(_lines(frame), _TEXT) + "\n"
        text += "".join(f"- {s}\n" for s in find_ratios(frame, first)) + "\n"
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
        "EMD by other images": emd_text(row["floor_sampling"]),
        "operations": f"{row['operations']:,.0f}",
    }


def compare_rows(rows: Sequence[Row], base: Sequence[Row], first: str) -> pd.DataFrame:
    """Return rows with each measure of the arm to compare with, of their seed.

    Ratios of EMD and paired shift, the gain of accuracy, and operations over the
    baseline's; NaN where the other arm has no such row.
    """
    frame = pd.DataFrame(rows)
    theirs = frame[frame["arm"] == first][["quantizer", "seed", *_MEASURES]]
    found = frame.merge(
        theirs, how="left", on=["quantizer", "seed"], suffixes=("", "_first")
    )
    operations = {row["seed"]: row["operations"] for row in base}
    return found.assign(
        emd_ratio=found["emd_mean"] / found["emd_mean_first"],
        shift_ratio=found["paired_shift_mean"] / found["paired_shift_mean_first"],
        gain=found["accuracy"] - found["accuracy_first"],
        cost=found["operations"] / found["seed"].map(operations),
    )


def _lines(frame: pd.DataFrame) -> list[dict[str, str]]:
    def ratio(values: pd.Series) -> str:
        return f"{values.mean():.2f}" if values.notna().any() else "-"

    return [
        {
            **dict(zip(_KEY, key, strict=True)),
            "seeds": str(len(own)),
            "accuracy %": spread(list(own["accuracy"]), points),
            "EMD": spread(list(own["emd_mean"]), emd_text),
            "ratio": ratio(own["emd_ratio"]),
            "paired shift": spread(list(own["paired_shift_mean"]), emd_text),
            "ratio of it": ratio(own["shift_ratio"]),
            "time-W1": spread(list(own["time_w1_mean"]), emd_text),
            "operations": f"{own['cost'].mean():.3f}",
            "seconds": f"{own['seconds'].mean():.0f}",
        }
        for key, own in frame.groupby(_KEY, sort=False)
    ]


def find_ratios(frame: pd.DataFrame, first: str) -> list[str]:
    """Return a sentence on each arm: its ratios over all quantizers."""
    ratios = ["emd_ratio", "shift_ratio", "gain"]
    means = frame.groupby(_KEY, sort=False)[ratios].mean().dropna().reset_index()
    return [
        f"{arm}: of {len(own)} quantizers the median EMD is "
        f"{own['emd_ratio'].median():.2f} and the median paired shift "
        f"{own['shift_ratio'].median():.2f} times that of “{first}”; accuracy differs "
        f"by {100 * own['gain'].min():+.2f} to {100 * own['gain'].max():+.2f} points, "
        f"median {100 * own['gain'].median():+.2f}."
        for arm, own in means.groupby("arm", sort=False)
        if arm != first
    ]
