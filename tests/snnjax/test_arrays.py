import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import _arrays


@pytest.mark.parametrize("shape", [(1, 3), (4, 5, 2), (37, 2), (0, 3)])
def test_sums_over_the_first_axis_are_those_of_float64(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected, x = x.astype(np.float64).sum(0), jnp.asarray(x)
    for program in (_arrays.sum_over_first, jax.jit(_arrays.sum_over_first)):
        np.testing.assert_allclose(program(x), expected, rtol=1e-5, atol=1e-6)
    if shape[0]:
        found = _arrays.mean_over_first(x)
        np.testing.assert_allclose(found, expected / shape[0], rtol=1e-5, atol=1e-6)


def test_counts_are_summed_exactly():
    x = np.random.default_rng(0).integers(0, 3, (200, 50)).astype(np.float32)
    assert np.array_equal(_arrays.sum_over_first(jnp.asarray(x)), x.sum(0))


def test_the_gradient_of_a_sum_is_a_broadcast():
    x = jnp.arange(12.0).reshape(4, 3)
    weights = jnp.array([1.0, -2.0, 0.5])
    slope = jax.grad(lambda x: jnp.sum(weights * _arrays.sum_over_first(x) ** 2))(x)
    assert np.array_equal(slope, np.tile(2 * weights * x.sum(0), (4, 1)))
    curve = jax.hessian(lambda x: jnp.sum(_arrays.sum_over_first(x) ** 2))(x[:, :1])
    assert np.array_equal(curve.reshape(4, 4), np.full((4, 4), 2.0))


def test_means_are_the_same_with_and_without_gradients():
    """So that equal recordings of twelve steps are at distance 0."""
    x = jnp.asarray(np.random.default_rng(0).random((12, 20)).astype(np.float32))
    assert np.array_equal(
        _arrays.mean_over_first(x), jax.vjp(_arrays.mean_over_first, x)[0]
    )
