import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from snnjax import emd

sliced_jit = jax.jit(emd.sliced)


def cloud(seed, n=200, d=2):
    return np.random.default_rng(seed).random((n, d))


def test_it_is_scipys_along_each_direction():
    x, y = cloud(0, d=3), cloud(1, 130, d=3)
    ways = cloud(2, 5, 3)
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    expected = np.mean([wasserstein_distance(x @ w, y @ w) for w in ways])
    assert emd.sliced(x, y, directions=ways) == pytest.approx(expected, rel=1e-12)
    inside = jax.jit(lambda x, y: emd.sliced(x, y, directions=ways))(x, y)
    assert float(inside) == pytest.approx(expected, rel=1e-5)


def test_a_shift_costs_two_over_pi_of_its_length():
    x = cloud(0)
    for function in (emd.sliced, sliced_jit):
        moved = function(x, x + np.array([0.3, -0.4]))
        assert float(moved) == pytest.approx(0.5 * 2 / np.pi, rel=1e-3)


def test_it_sees_what_the_marginals_do_not():
    x = np.repeat([[0.0, 0.0], [1.0, 1.0]], 50, axis=0)
    y = np.repeat([[0.0, 1.0], [1.0, 0.0]], 50, axis=0)
    for axis in range(2):
        assert emd.wasserstein_1d(x[:, axis], y[:, axis]) == 0
    assert emd.sliced(x, y) > 0.2


@pytest.mark.slow
def test_gradient_is_a_finite_difference_and_0_where_equal(x64):
    x, y = cloud(0, 5), cloud(1, 5)
    value, slope = jax.value_and_grad(emd.sliced)(jnp.asarray(x), jnp.asarray(y))
    assert float(value) == pytest.approx(emd.sliced(x, y), rel=1e-12)
    h = 1e-7
    for i, j in np.ndindex(5, 2):
        e = np.zeros((5, 2))
        e[i, j] = h
        change = emd.sliced(x + e, y) - emd.sliced(x - e, y)
        assert float(slope[i, j]) == pytest.approx(change / (2 * h), abs=1e-6)
    for same in (x, np.zeros((8, 2))):
        value, slope = jax.value_and_grad(emd.sliced)(jnp.asarray(same), same[::-1])
        assert value == 0
        assert not np.any(slope)


@pytest.mark.parametrize("way", [[3.0, 4.0], [0.0, 0.0]])
def test_directions_are_unit_vectors(way):
    with pytest.raises(ValueError, match=r"must be unit vectors, got lengths"):
        emd.sliced(cloud(0), cloud(1), directions=np.array([[1.0, 0.0], way]))
