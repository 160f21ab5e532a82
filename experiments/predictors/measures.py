"""Measures of firing, and what they are to predict."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from experiments.report.judged import judge
from snnjax.runs import Row

MEASURES = {
    "mean rate": "rate_change",
    "mean shift": "mean.mean_shift",
    "EMD": "emd_mean",
    "KS": "mean.ks",
    "paired shift": "mean.paired_shift",
    "latency EMD": "mean.latency_emd",
    "time-W1": "mean.time_w1",
}
COST = {
    "synaptic operations": "operations_change",
    "largest layer's operations": "largest_change",
    "dead neurons": "dead_change",
}
ACCURACY = {
    "accuracy lost": "lost",
    "lost after fine-tuning": "lost_after",
    "lost with noise": "lost_noisy",
    "lost at half the steps": "lost_early",
}
OUTCOMES = COST | ACCURACY


def collect(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the quantized networks of one study that did not collapse.

    Beside the judged rows' keys, against the full-precision network of the same seed:
        rate_change: |change of the mean rate|.
        operations_change: |logarithm of the ratio of synaptic operations|.
        largest_change: the same of the layer with most operations.
        dead_change: |change of the share of dead neurons|.
        lost: accuracy.
        lost_after: accuracy that the same quantizer loses after fine-tuning, of
            networks quantized without; NaN elsewhere.
        lost_noisy: accuracy on images with noise; NaN where noise alone takes more than
            half of the full-precision network's.
        lost_early: accuracy of the outputs until half of the steps.

    What the rows do not tell is NaN.
    """
    table = judge(rows)
    table["early"] = table["accuracy_by_step"].map(_read_half_way, "ignore")
    keys = ["synops", "synops_largest", "mean_rate", "dead_fraction"]
    keys += ["accuracy", "accuracy_noisy", "early"]
    base = table[table["mode"] == "fp32"].drop_duplicates("seed", keep="last")
    some = table[~table["full"] & (table["state"] != "collapsed")]
    some = some.join(base.set_index("seed")[keys].add_suffix("_base"), on="seed")
    tuned = table[table["mode"] == "qat"].drop_duplicates(["setting", "seed"])
    tuned = tuned.set_index(["setting", "seed"])["accuracy"].rename("tuned")
    some = some.join(tuned, on=["setting", "seed"])
    after = some["accuracy_base"] - some["tuned"]
    noisy = some["accuracy_noisy_base"] - some["accuracy_noisy"]
    return some.assign(
        rate_change=(some["mean_rate"] - some["mean_rate_base"]).abs(),
        operations_change=_ratio(some, "synops"),
        largest_change=_ratio(some, "synops_largest"),
        dead_change=(some["dead_fraction"] - some["dead_fraction_base"]).abs(),
        lost=some["accuracy_base"] - some["accuracy"],
        lost_after=after.where(some["mode"] != "qat"),
        lost_noisy=noisy.where(some["accuracy_noisy_base"] > some["accuracy_base"] / 2),
        lost_early=(some["early_base"] - some["early"]).astype(float),
    )


def _read_half_way(accuracies: Sequence[float]) -> float:
    half = len(accuracies) // 2
    return accuracies[half - 1] if half else np.nan


def _ratio(table: pd.DataFrame, column: str) -> pd.Series:
    return np.abs(np.log(table[column] / table[f"{column}_base"]))


def predict(
    known: pd.DataFrame, new: pd.DataFrame, outcome: str, measures: Sequence[str]
) -> np.ndarray:
    """Predict an outcome of other networks, by linear least squares."""
    x, z = (
        np.column_stack([np.ones(len(t)), t[list(measures)].to_numpy(float)])
        for t in (known, new)
    )
    weights, *_ = np.linalg.lstsq(x, known[outcome].to_numpy(float), rcond=None)
    return z @ weights


def explain(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    r"""Return the share of the true values' variance that predictions explain.

    .. math:: R^2 = 1 - \sum_i w_i (y_i - \hat y_i)^2 / \sum_i w_i (y_i - \bar y)^2

    1 where they are exact, 0 where they are no better than the mean, negative where
    worse.

    Args:
        true: y ``[rows]``.
        predicted: ``[rows]``.
        weights: w ``[resamples, rows]``.

    Returns:
        ``[resamples]``; NaN where nothing varies.
    """
    mean = weights @ true / weights.sum(axis=1)
    whole = np.sum(weights * (true - mean[:, None]) ** 2, axis=1)
    wrong = weights @ (true - predicted) ** 2
    return 1 - wrong / np.where(whole > 0, whole, np.nan)
