"""Each arm beside the one it is compared with, seed by seed."""

import statistics
from collections.abc import Sequence
from typing import Any

import pandas as pd

from experiments.beyond import arms
from experiments.sampling import half_width
from snnjax.runs import Row

BOTH = ("emd_mean", "paired_shift_mean")


def group_by_arm(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Group rows by quantizer and arm, the quantizers together."""
    order = list(dict.fromkeys(row["quantizer"] for row in rows))
    found: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: order.index(row["quantizer"])):
        found.setdefault((row["quantizer"], row["arm"]), []).append(row)
    return found


def compare(rows: Sequence[Row], first: Sequence[Row], key: str) -> list[float]:
    """Return a measure over that of the same seed in the arm to compare with."""
    theirs = {row["seed"]: row[key] for row in first if key in row}
    return [
        row[key] / theirs[row["seed"]]
        for row in rows
        if key in row and theirs.get(row["seed"])
    ]


def compare_arms(rows: Sequence[Row], first: str) -> pd.DataFrame:
    """Compare each arm with the first one, quantizer by quantizer.

    Returns:
        A row an arm and quantizer: the ratios ``emd_mean`` and ``paired_shift_mean``
        and the difference ``accuracy`` in points, means over seeds; ``below``, True
        where both ratios are below 1 by their intervals; and the ``seeds``. Quantizers
        whose grid does not fit are left out after calibration: scaled, they are others
        of the table once more.
    """
    unfit = [quantizer.name for quantizer in arms.UNFIT]
    rows = [r for r in rows if r["part"] == "qat" or r["quantizer"] not in unfit]
    groups, found = group_by_arm(rows), []
    for (quantizer, arm), own in groups.items():
        theirs = groups.get((quantizer, first), [])
        ratios = {key: compare(own, theirs, key) for key in BOTH}
        if arm == first or not ratios[BOTH[0]]:
            continue
        line: dict[str, Any] = {"arm": arm, "quantizer": quantizer}
        line |= {key: statistics.fmean(values) for key, values in ratios.items()}
        line["accuracy"] = 100 * statistics.fmean(_differences(own, theirs))
        line["below"] = all(map(is_below_1, ratios.values()))
        line["seeds"] = {row["seed"] for row in own}
        found.append(line)
    columns = ["arm", "quantizer", *BOTH, "accuracy", "below", "seeds"]
    frame = pd.DataFrame(found, columns=columns)
    order = list(dict.fromkeys(arm for _, arm in groups))
    return frame.sort_values("arm", key=lambda arm: arm.map(order.index), kind="stable")


def is_below_1(values: Sequence[float]) -> bool:
    """Tell whether a mean ratio is below 1 by its interval."""
    return statistics.fmean(values) + half_width(values) < 1


def _differences(rows: Sequence[Row], first: Sequence[Row]) -> list[float]:
    theirs = {row["seed"]: row["accuracy"] for row in first}
    return [r["accuracy"] - theirs[r["seed"]] for r in rows if r["seed"] in theirs]
