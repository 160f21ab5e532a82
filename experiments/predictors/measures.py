"""Measures of firing, what they are to predict, and correlations between the two."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

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
OUTCOMES = {
    "synaptic operations": "operations_change",
    "dead neurons": "dead_change",
    "accuracy lost": "lost",
    "lost after fine-tuning": "lost_after",
}
RESAMPLES = 1000
LEAST = 1e-6  # of a measure, before its logarithm


def collect(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the quantized networks of one study that did not collapse.

    Beside the judged rows' keys, against the full-precision network of the same seed:
        rate_change: |change of the mean rate|.
        operations_change: |logarithm of the ratio of synaptic operations|.
        dead_change: |change of the share of dead neurons|.
        lost: accuracy.
        lost_after: accuracy that the same quantizer loses after fine-tuning, of
            networks quantized without; NaN elsewhere.
    """
    table = judge(rows)
    keys = ["synops", "mean_rate", "accuracy", "dead_fraction"]
    base = table[table["mode"] == "fp32"].drop_duplicates("seed", keep="last")
    some = table[~table["full"] & (table["state"] != "collapsed")]
    some = some.join(base.set_index("seed")[keys].add_suffix("_base"), on="seed")
    tuned = table[table["mode"] == "qat"].drop_duplicates(["setting", "seed"])
    tuned = tuned.set_index(["setting", "seed"])["accuracy"].rename("tuned")
    some = some.join(tuned, on=["setting", "seed"])
    after = some["accuracy_base"] - some["tuned"]
    return some.assign(
        rate_change=(some["mean_rate"] - some["mean_rate_base"]).abs(),
        operations_change=np.abs(np.log(some["synops"] / some["synops_base"])),
        dead_change=(some["dead_fraction"] - some["dead_fraction_base"]).abs(),
        lost=some["accuracy_base"] - some["accuracy"],
        lost_after=after.where(some["mode"] != "qat"),
    )


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return Spearman's rank correlation; NaN where one of them never varies."""
    return _correlate_ranks(_centre_ranks(x), _centre_ranks(y))


def partial_correlation(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> float:
    """Return Spearman's partial rank correlation of x and y given a third measure.

    .. math:: (r_{xy} - r_{xz} r_{yz}) / \\sqrt{(1 - r_{xz}^2) (1 - r_{yz}^2)}
    """
    x, y, z = map(_centre_ranks, (x, y, given))
    xy, xz, yz = (_correlate_ranks(*pair) for pair in ((x, y), (x, z), (y, z)))
    rest = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / np.sqrt(rest) if rest > 0 else np.nan


def _centre_ranks(values: np.ndarray) -> np.ndarray:
    ranks = stats.rankdata(values)
    return ranks - ranks.mean()


def _correlate_ranks(x: np.ndarray, y: np.ndarray) -> float:
    length = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / length) if length else np.nan


def predict(
    known: pd.DataFrame, new: pd.DataFrame, outcome: str, measures: Sequence[str]
) -> np.ndarray:
    """Predict an outcome of other networks, by least squares on log measures."""
    x, z = (
        np.column_stack(
            [np.ones(len(t)), np.log(t[list(measures)].to_numpy(float) + LEAST)]
        )
        for t in (known, new)
    )
    weights, *_ = np.linalg.lstsq(x, known[outcome].to_numpy(float), rcond=None)
    return z @ weights


def resample(
    compute: Callable[..., float], groups: Sequence[object], *columns: np.ndarray
) -> list[float]:
    """Return a number of columns, and its 95 % interval by bootstrap over groups.

    All rows of a group are drawn together: networks of one quantizer, in several modes
    and seeds, are not independent.
    """
    of, names = pd.factorize(np.asarray(groups, object))
    places = [np.flatnonzero(of == i) for i in range(len(names))]
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    found = []
    for draw in drawn:
        rows = np.concatenate([places[i] for i in draw])
        found.append(compute(*(column[rows] for column in columns)))
    low, high = np.nanquantile(found, [0.025, 0.975])
    return [compute(*columns), float(low), float(high)]
