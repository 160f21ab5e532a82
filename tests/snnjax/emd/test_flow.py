import numpy as np
import pytest
from drawn import samples
from scipy.stats import wasserstein_distance

from snnjax import emd


@pytest.mark.parametrize(("n", "m"), [(900, 900), (900, 500), (1, 7)])
def test_work_sums_to_w1_and_mass_to_the_histograms(n, m):
    for kind in ("rates", "tied"):
        x, y = samples(kind, n, 0), samples(kind, m, 1)
        edges = np.linspace(0, 1, 11)
        moved = emd.flow(x, y, edges=edges)
        assert moved.work.sum() == pytest.approx(wasserstein_distance(x, y), abs=1e-12)
        for axis, rates in ((1, x), (0, y)):
            shares = np.histogram(np.float64(rates), edges)[0] / rates.size
            np.testing.assert_allclose(moved.mass.sum(axis), shares, atol=1e-12)
        # No mass goes from a lower bin past mass of a higher one.
        cells = np.argwhere(moved.mass > 1e-12)
        assert np.all(np.diff(np.maximum.accumulate(cells[:, 1])) >= 0)
        assert np.all(cells[1:, 1] >= cells[:-1, 1])


def test_it_says_from_where_to_where():
    x, y = np.array([0.0, 0.0, 0.35, 1.0]), np.array([0.0, 0.1, 0.35, 0.5])
    moved = emd.flow(x, y)
    assert moved.mass.shape == (20, 20)
    assert moved.mass[0, 0] == moved.mass[0, 2] == moved.mass[19, 10] == 0.25
    assert moved.work[0, 0] == 0
    assert moved.work[0, 2] == pytest.approx(0.025)
    assert moved.work[19, 10] == pytest.approx(0.125)
    assert moved.work.sum() == pytest.approx(0.15)


def test_nothing_moves_between_equal_layers():
    silent = np.zeros(50)
    for rates in (silent, silent + 1, samples("tied", 50, 0)):
        moved = emd.flow(rates, rates[::-1])
        assert not moved.work.any()
        assert moved.mass.sum() == pytest.approx(1)
        assert np.count_nonzero(moved.mass - np.diag(np.diag(moved.mass))) == 0


@pytest.mark.parametrize("k", [20, 40, 100])
def test_rates_on_an_edge_are_in_the_bin_above(k):
    counts = np.arange(k + 1)
    mass = emd.flow(counts / k, counts / k).mass
    expected = np.bincount(np.minimum(counts * 20 // k, 19))
    np.testing.assert_allclose(np.diag(mass) * (k + 1), expected, atol=1e-9)
