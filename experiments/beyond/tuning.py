"""Choose the numbers of each loss from the rows of the tuning seeds."""

import math
import statistics
from collections.abc import Sequence

from experiments.beyond.losses import PLAIN, TRIALS, Numbers
from snnjax.runs import Row

_LEAST = -0.005  # of the accuracy that a choice may cost, against plain training


def score_trials(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return of each trial its ratios to plain training, and its cost in accuracy.

    Args:
        rows: of the part ``"tune"``: of each trial on each quantizer and seed.

    Returns:
        ``{trial: {"emd_mean", "paired_shift_mean", "accuracy", "score"}}``: geometric
        means of ratios, the mean difference of accuracies (fractions) to plain's, and
        the geometric mean of both ratios.
    """
    plain = {(r["quantizer"], r["seed"]): r for r in rows if r["arm"] == PLAIN}
    scores = {}
    for trial in TRIALS:
        pairs = [
            (row, plain[place])
            for row in rows
            if row["arm"] == trial
            and (place := (row["quantizer"], row["seed"])) in plain
        ]
        if not pairs:
            continue
        found = {
            key: math.exp(statistics.fmean(math.log(a[key] / b[key]) for a, b in pairs))
            for key in ("emd_mean", "paired_shift_mean")
        }
        found["score"] = math.sqrt(found["emd_mean"] * found["paired_shift_mean"])
        found["accuracy"] = statistics.fmean(
            a["accuracy"] - b["accuracy"] for a, b in pairs
        )
        scores[trial] = found
    return scores


def choose_trials(rows: Sequence[Row]) -> dict[str, Numbers]:
    """Return ``{arm: numbers}``: of least score among those that keep the accuracy.

    Where none is within half a point of plain training, the most accurate.
    """
    chosen: dict[str, tuple[tuple[bool, float], Numbers]] = {}
    for trial, found in score_trials(rows).items():
        arm, numbers = TRIALS[trial]
        loses = found["accuracy"] < _LEAST
        key = (loses, -found["accuracy"] if loses else found["score"])
        if arm not in chosen or key < chosen[arm][0]:
            chosen[arm] = key, numbers
    return {arm: numbers for arm, (_, numbers) in chosen.items()}
