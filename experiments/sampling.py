"""The differences that chance makes: of the choice of test images, and of seeds."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from snnjax import emd
from snnjax.firing import FiringCounts

REPLICATES, LEVEL = 200, 0.95


def bound_sampling_emd(groups: Sequence[FiringCounts]) -> float:
    """Return the mean EMD over layers that 5 % of bootstrap pairs exceed.

    Each pair are two evaluations of one network, on as many images as there are less
    one group (the correction of McCarthy and Snowden, 1985, for resampling a sample).
    Two networks on the same images share part of this noise: for them it is an upper
    bound.

    Args:
        groups: counts of disjoint groups of images, of equal size.
    """
    number, rng = len(groups), np.random.default_rng(0)
    sizes = np.array([group.observations for group in groups])
    # Sums of counts below 2**31 are exact in float64, whose products are fast.
    layers = [
        np.stack([np.ravel(group.spikes[name]) for group in groups]) * 1.0
        for name in groups[0].spikes
    ]
    found = []
    for _ in range(REPLICATES):
        x, y = rng.multinomial(number - 1, np.full(number, 1 / number), 2)
        of_each = int(x @ sizes), int(y @ sizes)
        w1 = [
            float(
                emd.emd_from_counts(
                    (x @ counts).astype(np.int64),
                    (y @ counts).astype(np.int64),
                    of_each,
                )
            )
            for counts in layers
        ]
        found.append(np.mean(w1))
    return float(np.quantile(found, LEVEL, method="higher"))


def half_width(values: Sequence[float], level: float = LEVEL) -> float:
    """Return half of the interval of a mean, by Student's t; inf for one value."""
    number = len(values)
    if number < 2:
        return math.inf
    scale = float(np.std(values, ddof=1)) / math.sqrt(number)
    return float(stats.t.ppf((1 + level) / 2, number - 1)) * scale
