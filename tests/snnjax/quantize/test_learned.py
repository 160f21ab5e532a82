"""Learned scales: LSQ's step and MINT's scale; and the parts they are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import quantize
from snnjax.quantize.straight_through import round_through, round_within


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.7, shape)


def test_rounding_is_to_even_and_its_gradient_the_identity():
    x = jnp.array([-1.5, -0.5, -0.2, 0.5, 0.51, 1.5, 2.5])
    value, pullback = jax.vjp(round_through, x)
    np.testing.assert_array_equal(value, [-2, 0, 0, 0, 1, 2, 2])
    np.testing.assert_array_equal(*pullback(x), x)


def test_round_within_is_clip_then_round_and_bounds_have_no_gradient():
    x, one = jnp.array([-9.0, -2.0, -1.9, 0.6, 1.0, 1.1]), jnp.float32(1)
    value, pullback = jax.vjp(round_within, x, one, one, -2 * one, one, one)
    np.testing.assert_array_equal(value, [-2, -2, -2, 1, 1, 1])
    by_x, _, *rest = pullback(jnp.ones(6))
    np.testing.assert_array_equal(by_x, [0, 1, 1, 1, 1, 0])
    assert rest == [0, 0, 0, 0]


def step_rule(x, step, bits, signed, cotangent):
    """Esser et al., 2020, eq. 3, elementwise, with the gradient scale."""
    low = -(2 ** (bits - 1)) if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    y = x / step
    inside = np.where(y <= low, low, np.where(y >= high, high, np.round(y) - y))
    return cotangent * inside / np.sqrt(x.size * high)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("per_channel", [True, False])
def test_lsq_step_has_the_published_gradient(x64, signed, bits, per_channel):
    x, cotangent = numbers(3, 3, 5, 4), numbers(3, 3, 5, 4, seed=1)
    step = np.array([0.03, 0.1, 0.3, 1.0]) if per_channel else np.array(0.1)
    _, pullback = jax.vjp(
        lambda s: quantize.lsq(jnp.asarray(x), s, bits=bits, signed=signed),
        jnp.asarray(step),
    )
    expected = step_rule(x, step, bits, signed, cotangent)
    expected = expected.sum((0, 1, 2) if per_channel else None)
    np.testing.assert_allclose(*pullback(jnp.asarray(cotangent)), expected, 1e-10)


@pytest.mark.slow
def test_lsq_learns_the_step_that_fits():
    """Descent on the squared error finds a step near the best one of a grid."""
    x = jnp.asarray(numbers(1000), jnp.float32)

    def error(step):
        return jnp.sum(jnp.square(quantize.lsq(x, step, bits=3) - x))

    steps = jnp.linspace(0.01, 1, 300)
    best = jnp.min(jax.vmap(error)(steps))
    step = quantize.lsq_init(x, bits=3)
    first = error(step)
    descend = jax.jit(lambda s: s - 0.01 * jax.grad(error)(s))
    for _ in range(200):
        step = descend(step)
    assert error(step) < 1.02 * best < first


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_mint_scale_has_lsqs_gradient_behind_tanh(x64, bits):
    x, cotangent = numbers(6, 7), numbers(6, 7, seed=1)
    top, scale = 2 ** (bits - 1) - 1, 0.4
    _, pullback = jax.vjp(
        lambda a: quantize.mint(jnp.asarray(x), a, bits=bits), jnp.asarray(scale)
    )
    y = np.tanh(x) / scale * top
    inside = np.where(np.abs(y) >= top, np.sign(y) * top, np.round(y) - y)
    expected = np.sum(cotangent * inside / top) / np.sqrt(x.size * top)
    np.testing.assert_allclose(*pullback(jnp.asarray(cotangent)), expected, 1e-10)


def test_where_learned_scales_start():
    w = numbers(3, 3, 8, 4)
    for bits in (2, 4, 8):
        top = 2 ** (bits - 1) - 1
        step = 2 * np.abs(w).mean() / np.sqrt(top)
        w32 = w.astype(np.float32)
        np.testing.assert_allclose(quantize.lsq_init(w32, bits=bits), step, 1e-6)
        # MINT's scale is the bound, and the step a Q-th of it.
        np.testing.assert_allclose(quantize.mint_init(w32, bits=bits), step * top, 1e-6)
    zero = jnp.zeros((3, 2))
    assert quantize.lsq_init(zero, bits=2) == quantize.mint_init(zero, bits=2) == 1
    assert jnp.isnan(quantize.lsq_init(zero.at[0, 0].set(jnp.nan), bits=2))


@pytest.mark.slow
def test_dorefa_of_silence_is_finite():
    for bits in (1, 2):
        got, pullback = jax.vjp(lambda w: quantize.dorefa(w, bits=bits), jnp.zeros(3))  # noqa: B023
        assert jnp.isfinite(got).all()
        assert jnp.isfinite(pullback(jnp.ones(3))[0]).all()
