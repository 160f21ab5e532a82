"""Binary, ternary and powers of two beyond the conformance rows: channels, powers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import quantize
from snnjax.quantize import QuantSpec


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


def test_binary_has_the_scale_of_least_squared_error_in_each_channel():
    w = weights(3, 3, 8, 4) * np.float32([1, 2, 0.1, 30])
    got = np.asarray(quantize.binary(w, per_channel=True))
    best = np.abs(w.astype(np.float64)).mean((0, 1, 2))
    np.testing.assert_allclose(got, np.where(w < 0, -best, best), 1e-6)
    error = np.sum((got - w) ** 2, (0, 1, 2))
    for factor in (0.97, 1.03):
        assert (np.sum((factor * got - w) ** 2, (0, 1, 2)) > error).all()


def test_ternary_is_near_the_best_threshold():
    """Against all thresholds and the best magnitude of each: at most 2 % more error."""
    w = weights(2000, 3)
    got = np.asarray(quantize.ternary(w, per_channel=True))
    for c in range(3):
        size = np.sort(np.abs(w[:, c].astype(np.float64)))[::-1]
        gained = np.cumsum(size) ** 2 / np.arange(1, len(size) + 1)
        least = np.sum(size**2) - gained.max()
        assert np.sum((got[:, c] - w[:, c]) ** 2) < 1.02 * least


@pytest.mark.parametrize("method", ["binary", "ternary"])
def test_pow2_rounds_the_magnitude_to_the_nearest_power(method):
    w = weights(9, 6) * np.float32([0.1, 0.3, 1, 1.4, 1.5, 200])
    plain, power = (
        np.abs(QuantSpec(method, per_channel=True, pow2=pow2)(w)).max(0)
        for pow2 in (False, True)
    )
    np.testing.assert_array_equal(power, 2 ** np.round(np.log2(plain)))


@pytest.mark.parametrize("method", ["binary", "ternary"])
def test_levels_are_levels_of_themselves(method):
    for n in (7, 9, 288, 4608):
        spec = QuantSpec(method, per_channel=True)
        once = spec(weights(n, 5, seed=n))
        np.testing.assert_array_equal(spec(once), once)


def test_channels_of_zeros_stay_zero():
    w = jnp.asarray(weights(9, 3)).at[:, 1].set(0)
    for method in ("binary", "ternary"):
        got = QuantSpec(method, per_channel=True)(w)
        assert jnp.isfinite(got).all()
        assert jnp.abs(got[:, 1]).max() < 1e-30


def test_powers_of_two_take_the_nearest_exactly():
    """At the boundaries and one step below them, where a quotient would be rounded."""
    clip = np.float32(0.3)
    levels = np.concatenate([[0], clip * 2.0 ** -np.arange(7)[::-1]])
    edges = ((levels[1:] + levels[:-1]) / 2).astype(np.float32)
    for x, expected in (
        (edges, levels[1:]),
        (np.nextafter(edges, np.float32(0)), levels[:-1]),
    ):
        got = quantize.power_of_two(x, bits=4, clip=clip)
        np.testing.assert_allclose(got, expected, 1e-6)
        np.testing.assert_array_equal(
            quantize.power_of_two(-x, bits=4, clip=clip), -np.asarray(got)
        )


@pytest.mark.slow
def test_powers_of_two_by_a_rule():
    w = weights(288, 4) * np.float32([1, 3, 0.2, 1])
    spec = QuantSpec("power_of_two", bits=4, clip="absmax", per_channel=True).fit(w)
    np.testing.assert_allclose(spec.clip, np.abs(w).max(0), 1e-6)
    best = QuantSpec("power_of_two", bits=3, clip="mse").fit(w)
    error = lambda clip: np.sum((quantize.power_of_two(w, bits=3, clip=clip) - w) ** 2)  # noqa: E731
    assert error(best.clip) <= min(error(f * best.clip) for f in (0.8, 1.2))
    shifts = QuantSpec("power_of_two", bits=4, clip=0.3, pow2=True)(w)
    sizes = np.unique(np.abs(shifts))[1:]
    np.testing.assert_array_equal(np.log2(sizes), np.round(np.log2(sizes)))
    assert sizes.max() == 0.5


def zero_point_levels(x, step, zero, bits):
    low = -np.round(np.clip(zero, 0, 2**bits - 1))
    return step * np.clip(np.round(x / step), low, low + 2**bits - 1)


@pytest.mark.slow
@pytest.mark.parametrize("zero", [-3.0, 0.0, 1.4, 2.6, 9.0])
def test_a_zero_point_moves_the_range(zero, x64):
    x = np.random.default_rng(0).uniform(-3, 3, 300)
    got = quantize.lsq(x, 0.5, bits=2, zero_point=zero)
    np.testing.assert_allclose(got, zero_point_levels(x, 0.5, zero, 2), 1e-12)
    signed = quantize.lsq(x, 0.5, bits=2, zero_point=2.0)
    np.testing.assert_array_equal(signed, quantize.lsq(x, 0.5, bits=2))
    unsigned = quantize.lsq(x, 0.5, bits=2, signed=False, zero_point=0.0)
    np.testing.assert_array_equal(unsigned, quantize.lsq(x, 0.5, bits=2, signed=False))


@pytest.mark.slow
def test_gradient_of_a_zero_point(x64):
    """Minus the step for each element beyond the range, by 1 / sqrt(N Q)."""
    x = jnp.asarray(np.random.default_rng(0).uniform(-3, 3, 300))
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=300))
    total = lambda s, z: jnp.sum(cotangent * quantize.lsq(x, s, bits=2, zero_point=z))  # noqa: E731
    by_step, by_zero = jax.grad(total, (0, 1))(0.5, 1.3)
    beyond = jnp.asarray((x < -0.5) | (x > 1.0), float)
    share = 1 / np.sqrt(300 * 1)
    np.testing.assert_allclose(by_zero, -0.5 * share * jnp.sum(cotangent * beyond))
    code = np.clip(np.round(x / 0.5), -1, 2)
    by_hand = jnp.sum(cotangent * (code - jnp.where(beyond > 0, 0, x / 0.5))) * share
    np.testing.assert_allclose(by_step, by_hand)
