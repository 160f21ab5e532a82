"""Every surrogate: one row, a relaxation written in numpy float64."""

import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erfc, expit

from snnjax import surrogate

POINTS = np.append(np.linspace(-2.013, 1.987, 81), 0.0)


def extremes(dtype):
    info = jnp.finfo(dtype)
    half = [0.0, float(info.tiny), 0.5, 40.0, float(info.max), np.inf]
    return jnp.asarray([*half, *(-x for x in half)], dtype)


def smooth_triangle(x, a):
    z = np.clip(a * x, -1, 1)
    return 0.5 + z - z * np.abs(z) / 2


def exponential(x, a):
    return np.where(x < 0, np.exp(a * x) / 2, 1 - np.exp(-a * x) / 2)


def hard_tanh(x, a):
    return jnp.clip(a * x, -1, 1)


class Row(NamedTuple):
    """Default slope; the relaxation whose slope is the gradient; is it 0 far away?"""

    slope: float
    relaxation: object
    local: bool = True


ROWS = {
    "atan": Row(2.0, lambda x, a: np.arctan(np.pi / 2 * a * x) / np.pi + 0.5),
    "sigmoid": Row(4.0, lambda x, a: expit(a * x)),
    "fast_sigmoid": Row(25.0, lambda x, a: x / (1 + a * np.abs(x))),
    "superspike": Row(1.0, lambda x, a: a * x / (1 + np.abs(x))),
    "triangular": Row(1.0, smooth_triangle),
    "piecewise_exp": Row(1.0, exponential),
    "rectangular": Row(1.0, lambda x, a: np.clip(a * x + 0.5, 0, 1)),
    "erf": Row(2.0, lambda x, a: erfc(-a * x) / 2),
    "soft_sign": Row(2.0, lambda x, a: a * x / (1 + a * np.abs(x)) / 2 + 0.5),
    "leaky_k_relu": Row(1.0, lambda x, k: k * np.maximum(x, 0), local=False),
    "straight_through": Row(1.0, lambda x, a: a * x, local=False),
    "custom": Row(3.0, lambda x, a: np.clip(a * x, -1, 1)),
}
FUNCTIONS = {name: getattr(surrogate, name) for name in ROWS}
FUNCTIONS["custom"] = surrogate.custom(lambda x, a=3.0: hard_tanh(x, a))


def gradient(function):
    """The derivative at each point, as reverse mode sees it."""
    return lambda x, *slope: jax.grad(lambda x: function(x, *slope).sum())(x)


def difference(relaxation, x, slope, h=1e-6):
    """Its slope; at 0, where it may have a kink, that above: a tie fires."""
    below = np.where(x == 0, 0, h)
    return (relaxation(x + h, slope) - relaxation(x - below, slope)) / (h + below)


@pytest.fixture(params=ROWS)
def row(request):
    slope, relaxation, _ = ROWS[request.param]
    return FUNCTIONS[request.param], slope, relaxation


def test_every_surrogate_has_a_row():
    public = {
        name
        for name, value in vars(surrogate).items()
        if inspect.isfunction(value)
        and value.__module__ == surrogate.__name__
        and not name.startswith("_")
    }
    assert public == set(ROWS)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_forward_is_the_step_and_a_tie_fires(row, dtype):
    function, slope, _ = row
    x = extremes(dtype)
    expected = np.asarray(x, np.float64) >= 0
    for spikes in (function(x), function(x, 3 * slope), jax.jit(function)(x, slope)):
        assert spikes.dtype == dtype
        np.testing.assert_array_equal(np.asarray(spikes, np.float64), expected)


@pytest.mark.parametrize("scale", [None, 0.3, 1.0, 3.0])
def test_gradient_is_the_slope_of_the_relaxation(row, x64, scale):
    function, slope, relaxation = row
    arguments = () if scale is None else (scale * slope,)
    slope *= scale or 1.0
    expected = difference(relaxation, POINTS, slope)
    np.testing.assert_allclose(
        gradient(function)(jnp.asarray(POINTS), *arguments), expected, 1e-4, 1e-8
    )
    cotangent = np.random.default_rng(0).normal(size=POINTS.shape)
    _, pullback = jax.vjp(function, jnp.asarray(POINTS), slope)
    by_x, by_slope = pullback(jnp.asarray(cotangent))
    np.testing.assert_allclose(by_x, cotangent * expected, 1e-4, 1e-8)
    assert by_slope == 0


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 1e-4), (jnp.bfloat16, 0.03)]
)
def test_gradient_keeps_the_dtype(row, dtype, tolerance):
    function, slope, relaxation = row
    x = jnp.asarray([-0.75, -0.25, -0.0625, 0.0, 0.0625, 0.25, 0.75], dtype)
    got = gradient(function)(x)
    assert got.dtype == dtype
    expected = difference(relaxation, np.asarray(x, np.float64), slope)
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, tolerance)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", ROWS)
def test_gradient_is_finite_everywhere(name, dtype):
    got = np.asarray(gradient(FUNCTIONS[name])(extremes(dtype)), np.float64)
    assert np.isfinite(got).all()
    if ROWS[name].local:
        right, left = got.reshape(2, -1)
        np.testing.assert_array_equal(left, right)
        assert right[0] > 0
        assert (np.diff(right) <= 0).all()
        assert right[-1] == 0


@pytest.mark.slow
def test_slope_is_traced(row):
    function, slope, relaxation = row
    x = jnp.linspace(-1.03, 0.97, 21)
    slopes = slope * jnp.array([0.5, 1.0, 2.0])
    expected = [difference(relaxation, np.asarray(x, float), float(s)) for s in slopes]
    mapped = jax.vmap(gradient(function), in_axes=(None, 0))(x, slopes)
    np.testing.assert_allclose(mapped, np.stack(expected), 2e-3, 1e-5)

    compiled = jax.jit(gradient(function))
    for s, right in zip(slopes.tolist(), mapped, strict=True):
        np.testing.assert_allclose(compiled(x, s), right, 1e-5, 1e-7)
    assert compiled._cache_size() == 1
    for_each_neuron = jnp.broadcast_to(slopes, (21, 3))
    np.testing.assert_allclose(
        gradient(function)(jnp.stack([x] * 3, axis=1), for_each_neuron), mapped.T, 1e-5
    )


def test_slope_has_gradient_zero(row):
    function, slope, _ = row
    x = jnp.linspace(-1, 1, 7)
    assert jax.grad(lambda a: function(x, a).sum())(slope) == 0
    assert (jax.grad(lambda a: function(x, a).sum())(jnp.full(7, slope)) == 0).all()


def test_jaxpr_shows_a_custom_vjp(row):
    function, slope, _ = row
    assert "custom_vjp_call" in str(jax.make_jaxpr(function)(jnp.ones(3), slope))


def test_leaky_k_relu_has_two_slopes():
    x = jnp.array([-2.0, -0.1, 0.0, 0.1, 2.0])
    got = gradient(surrogate.leaky_k_relu)(x, 3.0, 0.25)
    np.testing.assert_array_equal(got, [0.25, 0.25, 3, 3, 3])


def test_custom_surrogates_of_one_function_are_equal():
    one, other = surrogate.custom(hard_tanh), surrogate.custom(hard_tanh)
    assert one == other
    assert hash(one) == hash(other)
    assert one != surrogate.custom(smooth_triangle)
    compiled = jax.jit(lambda x, f: f(x, 2.0), static_argnums=1)
    compiled(1.0, one), compiled(1.0, other)
    assert compiled._cache_size() == 1
