import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry import geometry
from ott.solvers import linear
from scipy.stats import wasserstein_distance

from snnjax import emd

histogram_jit = jax.jit(emd.histogram_emd)
WIDTH = 0.04


def masses(seed, shape=(25,)):
    """Many bins empty, not normalised."""
    rng = np.random.default_rng(seed)
    return rng.random(shape) * (rng.random(shape) < 0.4) + np.eye(1, shape[-1])[0]


def test_it_is_scipys_over_leading_axes_too():
    at = WIDTH * np.arange(25)
    p, q = masses(0, (3, 1, 25)), masses(1, (4, 25))
    found = emd.histogram_emd(p, q, WIDTH)
    assert (found.shape, found.dtype) == ((3, 4), np.float64)
    inside = histogram_jit(np.float32(p), np.float32(q), WIDTH)
    assert inside.dtype == jnp.float32
    for i in range(3):
        for j in range(4):
            expected = wasserstein_distance(at, at, p[i, 0], q[j])
            assert found[i, j] == pytest.approx(expected, rel=1e-12)
            assert float(inside[i, j]) == pytest.approx(expected, rel=2e-6)
    assert type(emd.histogram_emd(p[0, 0], q[0], WIDTH)) is float


@pytest.mark.nightly
def test_ott_comes_near_on_the_same_bins(x64):
    """Entropic, so from above, by some epsilon."""
    p, q = masses(0), masses(1)
    at = jnp.asarray(WIDTH * np.arange(25))
    cost = jnp.abs(at[:, None] - at)
    problem = geometry.Geometry(cost_matrix=cost, epsilon=2e-3)
    out = linear.solve(problem, a=p / p.sum(), b=q / q.sum(), max_iterations=20_000)
    assert out.converged
    exact = emd.histogram_emd(p, q, WIDTH)
    assert exact - 1e-4 <= float(out.primal_cost) <= exact + 4e-3


@pytest.mark.parametrize("bins", [5, 25, 1001])
def test_close_histograms_inside_jit(bins):
    rng = np.random.default_rng(bins)
    p = np.float32(rng.integers(0, 1000, bins))
    q = p.copy()
    q[[0, -1]] += 1, 2
    expected = emd.histogram_emd(p, q, 1 / bins)
    assert expected < 1e-3
    assert float(histogram_jit(p, q, 1 / bins)) == pytest.approx(expected, rel=1e-6)
    # Equal but for their totals: what division leaves over has no gradient.
    both = jax.jit(jax.value_and_grad(emd.histogram_emd))
    for times in (3, 7, 10):
        value, slope = both(p, times * p, 1 / bins)
        assert value == 0
        assert not np.any(slope)


def test_one_neuron_of_a_million_moved():
    p = np.zeros(41, np.float32)
    p[0] = 1e6
    q = p.copy()
    q[[0, 10]] += -1, 1
    assert float(histogram_jit(p, q, 1 / 40)) == pytest.approx(2.5e-7, rel=1e-6)


def test_counts_of_other_totals_are_normalised():
    assert emd.histogram_emd(np.array([2, 0, 2]), np.array([0, 0, 1]), 0.5) == 0.5


def test_silent_against_saturated_is_1():
    first, last = np.eye(101)[[0, -1]]
    for function in (emd.histogram_emd, histogram_jit):
        assert float(function(first, last, 0.01)) == pytest.approx(1, rel=1e-6)
        assert float(function(first, first, 0.01)) == 0


@pytest.mark.slow
def test_gradient_is_the_potential_and_0_where_equal(x64):
    p, q = masses(0) + 0.1, masses(1) + 0.1
    value, slope = jax.jit(jax.value_and_grad(emd.histogram_emd))(
        jnp.asarray(p), jnp.asarray(q), WIDTH
    )
    assert float(value) == pytest.approx(emd.histogram_emd(p, q, WIDTH), rel=1e-12)
    h = 1e-6
    for i in range(25):
        e = h * np.eye(25)[i]
        up, down = (emd.histogram_emd(p + s * e, q, WIDTH) for s in (1, -1))
        assert float(slope[i]) == pytest.approx((up - down) / (2 * h), abs=1e-8)
    for same in (p, np.eye(25)[0]):
        value, slope = jax.value_and_grad(emd.histogram_emd)(jnp.asarray(same), same, 1)
        assert value == 0
        assert not np.any(slope)


@pytest.mark.parametrize(
    ("p", "q", "width", "message"),
    [
        (np.ones(3), np.ones(4), 1.0, "equally many bins"),
        (np.ones(0), np.ones(0), 1.0, "equally many bins"),
        (np.array([1.0, -1, 2]), np.ones(3), 1.0, "p must have finite, non-negative"),
        (np.ones(3), np.array([1, np.nan, 2]), 1.0, "q must have finite"),
        (np.zeros(3), np.ones(3), 1.0, "p must have"),
        (np.ones(3), np.ones(3), 0.0, "bin_width must be positive"),
        (np.ones(3), np.ones(3), np.nan, "bin_width must be positive"),
    ],
)
def test_it_refuses_nonsense(p, q, width, message):
    with pytest.raises(ValueError, match=message):
        emd.histogram_emd(p, q, width)
    if "equally" in message:
        with pytest.raises(ValueError, match=message):
            histogram_jit(p, q, width)
    else:
        assert np.isnan(histogram_jit(p, q, width))
