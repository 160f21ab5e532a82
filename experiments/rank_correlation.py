"""Spearman's rank correlations, and their bootstrap intervals."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

RESAMPLES = 2000
LEVEL = 95
DECIMALS = 12  # of a column's largest value: the others are rounding


def bootstrap(
    x: np.ndarray,
    y: np.ndarray,
    groups: Sequence[object],
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """Return Spearman's rank correlations of all rows, and of resamples behind them.

    Whole groups are resampled: rows of one group (networks of one quantizer, in several
    modes and seeds) are not independent.

    Args:
        x: ``[rows, predictors]``.
        y: ``[rows, outcomes]``.
        groups: the group of each row.
        resamples: number of resamples.

    Returns:
        ``[1 + resamples, predictors, outcomes]``; NaN where something never varies.
    """
    return spearman(x, y, draw_weights(groups, resamples))


def draw_weights(groups: Sequence[object], resamples: int = RESAMPLES) -> np.ndarray:
    """Return how often each row counts in all rows, and in resamples of groups.

    Returns:
        ``[1 + resamples, rows]``, the first of ones.
    """
    of, names = pd.factorize(pd.Series(list(groups), dtype=object))
    drawn = np.random.default_rng(0).integers(len(names), size=(resamples, len(names)))
    times = [np.ones(len(names))]
    times += [np.bincount(d, minlength=len(names)) for d in drawn]
    return np.stack(times)[:, of].astype(float)


def estimate(correlations: np.ndarray) -> np.ndarray:
    """Return the estimate and its percentile interval's ends, of `bootstrap`."""
    ends = (50 - LEVEL / 2, 50 + LEVEL / 2)
    of_all, resampled = correlations[0], correlations[1:]
    # A resample may hold one value alone; of what never varies there is no interval.
    blank = np.isnan(resampled).all(0)
    low, high = np.nanpercentile(np.where(blank, 0, resampled), ends, axis=0)
    return np.where(np.isnan(of_all) | blank, np.nan, np.stack([of_all, low, high]))


def condition(correlations: np.ndarray, given: int) -> np.ndarray:
    """Return the partial correlations of columns among themselves, given one of them.

    .. math:: (r_{xy} - r_{xz} r_{yz}) / \\sqrt{(1 - r_{xz}^2) (1 - r_{yz}^2)}

    Args:
        correlations: ``[..., columns, columns]``.
        given: z.

    Returns:
        ``[..., columns, columns]``; NaN where z orders a column as the column itself.
    """
    z = correlations[..., given]
    rest = 1 - z**2
    length = np.sqrt(np.where(rest > 1e-9, rest, np.nan))
    top = correlations - z[..., :, None] * z[..., None, :]
    return top / (length[..., :, None] * length[..., None, :])


def spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Pearson's correlations of ranks, each row counted by its weight.

    Ranks are shares of all rows, from the middle. SciPy's take no weights. Values that
    differ by their rounding alone, on one machine or another, are equal.
    """
    total = weights.sum(axis=1)[:, None, None]
    unit = []
    for values in (_round(x), _round(y)):
        # So many rows are smaller, and half of those that are equal: the middle rank.
        before = (values[:, None] > values) + (values[:, None] == values) / 2
        ranks = np.einsum("sj,ijc->sic", weights, before, optimize=True) / total - 0.5
        length = np.sqrt(np.einsum("si,sic->sc", weights, ranks**2))[:, None]
        unit.append(ranks / np.where(length > 1e-9, length, np.nan))
    return np.einsum("si,sip,sio->spo", weights, *unit, optimize=True)


def _round(values: np.ndarray) -> np.ndarray:
    largest = np.max(np.abs(values), axis=0)
    return np.round(values / np.where(largest > 0, largest, 1), DECIMALS)
