"""The bound of sampling noise, against EMDs of fresh images and SciPy's."""

import numpy as np
from scipy import stats

from experiments.sampling import bound_sampling_emd
from snnjax.firing import FiringCounts

T, NEURONS, GROUPS, IMAGES = 4, 60, 32, 8


def record(rates, rng):
    counts = rng.binomial(T * IMAGES, rates, (GROUPS, NEURONS))
    return [FiringCounts({"a": each}, T * IMAGES) for each in counts]


def test_bound_is_exceeded_by_a_twentieth_of_fresh_pairs():
    rng = np.random.default_rng(0)
    rates = rng.beta(0.5, 2, NEURONS)
    bounds = [bound_sampling_emd(record(rates, rng)) for _ in range(5)]
    totals = rng.binomial(T * IMAGES * GROUPS, rates, (2, 2000, NEURONS))
    fresh = [
        stats.wasserstein_distance(x, y) / (T * IMAGES * GROUPS)
        for x, y in zip(*totals, strict=True)
    ]
    assert np.mean(fresh > np.mean(bounds)) < 0.1
    np.testing.assert_allclose(np.mean(bounds), np.quantile(fresh, 0.95), rtol=0.15)


def test_equal_groups_have_no_noise():
    group = FiringCounts({"a": np.arange(5), "b": np.ones(3, int)}, 8)
    assert bound_sampling_emd([group] * 4) == 0
