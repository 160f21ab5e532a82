"""LQ-Net's levels of membranes: nearest ones, zero among them, learned by gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import neurons, quantize
from snnjax.layers import Spiking
from snnjax.quantize import QuantSpec

SIGNS = pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])


def numbers(n=500, seed=0, scale=1.0):
    draw = np.random.default_rng(seed).normal(0, scale, n)
    return jnp.asarray(draw, jnp.float32)


def levels_of(basis, signed):
    """All sums of some of the basis, and the negatives; sorted, in float64."""
    sums = [0.0]
    for v in np.asarray(basis, float):
        sums += [s + v for s in sums]
    return np.unique(np.round(sums + [-s for s in sums if signed], 12))


@pytest.mark.slow
@SIGNS
@pytest.mark.parametrize("bits", [2, 3, 5, 8])
@pytest.mark.parametrize("clip", [0.7, 3.0])
def test_the_first_levels_are_the_mid_tread_grid(bits, clip, signed):
    basis = quantize.lq_levels_init(bits=bits, clip=clip, signed=signed)
    assert basis.shape == (bits - signed,)
    x = numbers()
    expected = quantize.uniform(
        x, bits=bits, clip=clip, signed=signed, grid="mid_tread"
    )
    found = quantize.lq_levels(x, basis, signed=signed)
    np.testing.assert_allclose(found, expected, atol=1e-6 * clip)
    assert 0 in np.asarray(quantize.lq_levels(x * 1e-3, basis, signed=signed))


@SIGNS
@pytest.mark.parametrize(
    "basis", [[0.3], [0.5, 0.2], [-0.4, 1.1, 0.3], [0.1, 0.1], [0.2, -0.2, 0.9, 0.05]]
)
def test_it_is_the_nearest_level_whatever_learning_made_of_the_basis(basis, signed):
    levels, x = levels_of(basis, signed), numbers()
    away = np.abs(np.asarray(x, float)[:, None] - levels).min(1)
    found = quantize.lq_levels(x, jnp.asarray(basis), signed=signed)
    np.testing.assert_allclose(np.abs(np.asarray(x - found, float)), away, atol=1e-6)
    assert np.abs(np.asarray(found, float)[:, None] - levels).min(1).max() < 1e-6


@pytest.mark.slow
@SIGNS
def test_gradients_are_the_written_rules(signed):
    x, basis = numbers(40), jnp.asarray([0.35, 0.8])
    weights = numbers(40, seed=1)

    def loss(x, basis):
        return jnp.sum(weights * quantize.lq_levels(x, basis, signed=signed))

    by_x, by_basis = jax.grad(loss, (0, 1))(x, basis)
    top = 1.15
    inside = (x <= top) & (x >= (-top if signed else 0))
    np.testing.assert_array_equal(by_x, np.where(inside, weights, 0))
    found = np.asarray(quantize.lq_levels(x, basis, signed=signed), float)
    # Each level is one sum of these two: which, its size tells.
    size = np.abs(found)
    of = ([0.35, 1.15], [0.8, 1.15])
    codes = np.stack([np.isin(size.round(4), some) for some in of])
    expected = codes * np.sign(found) @ np.asarray(weights, float) / np.sqrt(40 * 3)
    np.testing.assert_allclose(by_basis, expected, rtol=1e-5)


@pytest.mark.slow
def test_it_keeps_dtype_and_nan_and_is_the_same_compiled():
    basis = quantize.lq_levels_init(bits=4)
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        x = numbers().astype(dtype).at[3].set(jnp.nan)
        found = quantize.lq_levels(x, basis)
        assert found.dtype == dtype
        assert np.isnan(found[3])
        assert np.isfinite(np.asarray(found, float)).sum() == len(x) - 1
        compiled = jax.jit(quantize.lq_levels)(x, basis)
        np.testing.assert_array_equal(
            *(np.asarray(y, float) for y in (found, compiled))
        )
    assert quantize.lq_levels(jnp.zeros((0, 3)), basis).shape == (0, 3)


def test_learned_levels_fit_better_than_the_grid_they_start_from():
    """Most of these numbers lie near 0, and two bits' uniform levels far apart."""
    x = jnp.abs(numbers(4000, scale=0.15))
    basis = quantize.lq_levels_init(bits=2, signed=False)

    @jax.jit
    def step(basis):
        def error(v):
            return jnp.mean((x - quantize.lq_levels(x, v, signed=False)) ** 2)

        value, slope = jax.value_and_grad(error)(basis)
        return basis - 0.5 * slope * jnp.sqrt(len(x) * 3), value

    errors = []
    for _ in range(300):
        basis, error = step(basis)
        errors.append(float(error))
    assert errors[-1] < errors[0] / 4


@pytest.mark.slow
@SIGNS
@pytest.mark.parametrize("bits", [2, 4])
def test_a_membrane_starts_from_the_uniform_one(bits, signed):
    x = numbers(4 * 6 * 5, seed=2, scale=2.0).reshape(4, 6, 5)
    spec = QuantSpec("lq_net", bits=bits, signed=signed)
    same = QuantSpec(bits=bits, signed=signed, grid="mid_tread")
    for site in ("post_reset", "pre_fire"):
        found, expected = (
            neurons.lif(x, tau=2.0, membrane_quantizer=s, membrane_site=site)
            for s in (spec, same)
        )
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


@pytest.mark.slow
@SIGNS
def test_a_layers_basis_is_a_parameter_that_the_gradient_moves(signed):
    layer = Spiking(neurons.LIF(), quant=QuantSpec("lq_net", bits=3, signed=signed))
    basis = layer.quant_scale.get_value()
    assert basis.shape == (3 - signed,)
    x = numbers(4 * 6 * 5, seed=2, scale=2.0).reshape(4, 6, 5)

    def fired(layer):
        return jnp.sum(layer(x) * numbers(6 * 5).reshape(1, 6, 5))

    slope = nnx.grad(fired)(layer)["quant_scale"].get_value()
    assert np.all(np.asarray(slope) != 0)
    before = layer(x)
    layer.quant_scale.set_value(basis * 0.5)
    assert (before != layer(x)).any()
    layer.quantize(None)
    assert layer.quant_scale is None
