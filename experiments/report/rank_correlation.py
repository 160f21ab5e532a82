"""Spearman's rank correlations, and their bootstrap intervals."""

import dataclasses
from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
LEVEL = 95


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """Spearman's rank correlations of all rows, and of each resample.

    Attributes:
        found: ``[predictors, outcomes]``; NaN where one is the same in all rows.
        resampled: ``[resamples, predictors, outcomes]``.
    """

    found: np.ndarray
    resampled: np.ndarray

    @property
    def intervals(self) -> np.ndarray:
        """The correlations and the percentile interval's ends, an axis in front."""
        return _interval(self.found, self.resampled)

    def difference(self, one: int, other: int) -> np.ndarray:
        """Return one predictor's lead in correlation over another, likewise.

        The resamples are the same, so it is a paired bootstrap.
        """
        return _interval(
            self.found[one] - self.found[other],
            self.resampled[:, one] - self.resampled[:, other],
        )


def bootstrap(
    x: np.ndarray,
    y: np.ndarray,
    groups: Sequence[object],
    strata: Sequence[object] | None = None,
) -> Bootstrap:
    """Return rank correlations of rows, resampled by whole groups.

    Rows of one group (networks of one quantizer, in several modes and seeds) are not
    independent.

    Args:
        x: ``[rows, predictors]``.
        y: ``[rows, outcomes]``.
        groups: the group of each row.
        strata: the stratum of each row, where rows are ranked within their own.
    """
    names = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    times = np.stack([np.bincount(d, minlength=len(names)) for d in drawn])
    weights = times[:, [names[group] for group in groups]].astype(float)
    strata = [0] * len(x) if strata is None else strata
    one = np.ones((1, len(x)))
    return Bootstrap(spearman(x, y, one, strata)[0], spearman(x, y, weights, strata))


def _interval(of_all: np.ndarray, resampled: np.ndarray) -> np.ndarray:
    """Return the estimate and the percentiles of its resamples."""
    ends = (50 - LEVEL / 2, 50 + LEVEL / 2)
    # A resample may hold one value alone; of what never varies there is no interval.
    blank = np.isnan(resampled).all(0)
    low, high = np.nanpercentile(np.where(blank, 0, resampled), ends, axis=0)
    never = np.isnan(of_all) | blank
    return np.where(never, np.nan, np.stack([of_all, low, high]))


def spearman(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, strata: Sequence[object]
) -> np.ndarray:
    """Return Pearson's correlations of ranks, each row counted by its weight.

    Ranks are shares of a row's stratum, from its middle.
    """
    numbers = {name: i for i, name in enumerate(dict.fromkeys(strata))}
    of = np.array([numbers[name] for name in strata])
    same = (of[:, None] == of).astype(float)
    total = np.maximum(weights @ same, 1e-12)[..., None]
    unit = []
    for values in (x, y):
        before = (values[:, None] > values).astype(float)
        before += (values[:, None] == values) / 2
        # So many rows are smaller, and half of those that are equal: the middle rank.
        before *= same[..., None]
        ranks = np.einsum("sj,ijc->sic", weights, before, optimize=True) / total
        ranks -= 0.5  # the mean of middle ranks, whatever is tied
        length = np.sqrt(np.einsum("si,sic->sc", weights, ranks**2))[:, None]
        unit.append(ranks / np.where(length > 1e-9, length, np.nan))
    return np.einsum("si,sip,sio->spo", weights, *unit, optimize=True)
