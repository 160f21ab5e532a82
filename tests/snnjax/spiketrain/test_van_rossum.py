"""Van Rossum distance against its definition, and its gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from snnjax import surrogate
from snnjax.spiketrain import van_rossum

STEPS = 6
words = st.lists(st.booleans(), min_size=STEPS, max_size=STEPS).map(np.array)


def some(seed, density=0.4, neurons=5):
    return np.random.default_rng(seed).random((STEPS, neurons)) < density


def test_it_is_the_integral():
    x, y, tau = some(0)[:, 0], some(1)[:, 0], 2.5

    def f(s):
        passed = s - np.arange(STEPS)
        kernel = np.where(passed >= 0, np.exp(-np.maximum(passed, 0) / tau), 0)
        return (kernel @ (1.0 * x - y)) ** 2

    pieces = [(t, t + 1) for t in range(STEPS)] + [(STEPS, np.inf)]
    integral = 2 / tau * sum(quad(f, *piece)[0] for piece in pieces)
    assert float(van_rossum(x, y, tau=tau)) == pytest.approx(integral**0.5, rel=1e-6)


@pytest.mark.parametrize("tau", [0, 0.3, 2.0, 1e3, 1e8, np.inf])
def test_one_spike_is_1_and_two_are_what_the_formula_says(tau):
    lone = np.eye(STEPS)  # a neuron for each place of its one spike
    got = van_rossum(lone, np.zeros_like(lone), tau=tau)
    np.testing.assert_allclose(got, 1, 1e-6)
    first = np.zeros_like(lone)
    first[0] = 1
    gaps = np.arange(STEPS)
    ratio = gaps / tau if tau else np.where(gaps, np.inf, 0)
    # Where tau is large nearly everything cancels, here not: to relative precision.
    expected = np.sqrt(-2 * np.expm1(-ratio))
    np.testing.assert_allclose(van_rossum(first, lone, tau=tau), expected, 1e-6)


def test_limits():
    x, y = some(0), some(1)
    got = van_rossum(x, y, tau=0)
    np.testing.assert_allclose(got, np.sqrt((x != y).sum(0)), 1e-6)
    got = van_rossum(x, y, tau=np.inf)
    np.testing.assert_array_equal(got, np.abs(x.sum(0) - 1 * y.sum(0)))
    np.testing.assert_allclose(van_rossum(x, y, tau=1e9), got, 1e-3, 2e-4)
    for tau in (1e-30, 1e-3, 0.01):
        np.testing.assert_array_equal(
            van_rossum(x, y, tau=tau), van_rossum(x, y, tau=0)
        )


@settings(deadline=None, max_examples=25, derandomize=True)
@given(words, words, words, st.sampled_from([0.0, 0.5, 3.0, 100.0, np.inf]))
def test_it_is_a_metric(x, y, z, tau):
    a = np.stack([x, y, x, x, y], 1)
    b = np.stack([y, x, x, z, z], 1)
    xy, yx, xx, xz, yz = np.asarray(van_rossum(a, b, tau=tau), float)
    assert xy == pytest.approx(yx, rel=1e-6)
    assert xx == 0
    assert xz <= xy + yz + 1e-5
    assert (xy > 0) == bool(np.any(x != y)) or tau == np.inf


@functools.partial(jax.jit, static_argnames="power")
@functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
def both(x, y, tau, power=1):
    return jnp.sum(van_rossum(x, y, tau=tau) ** power)


@pytest.mark.parametrize("steps", [STEPS, 20])
def test_gradients_are_finite_differences(x64, steps):
    """By real values, which a surrogate's cotangents are taken at, and by tau."""
    rng = np.random.default_rng(steps)
    x, y = rng.random((2, steps, 2))
    _, slopes = both(x, y, np.float64(2.5))
    h = 1e-6
    for place, at in ((0, (0, 0)), (0, (steps - 1, 1)), (1, (3, 0)), (2, ())):
        ends = []
        for sign in (1, -1):
            moved = [x.copy(), y.copy(), np.array(2.5)]
            moved[place][at] += sign * h
            ends.append(float(both(*moved)[0]))
        expected = (ends[0] - ends[1]) / (2 * h)
        slope = np.asarray(slopes[place])[at]
        assert slope == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("tau", [0.0, 1e-30, 1e-3, 0.2, 2.0, np.inf])
def test_gradients_are_finite_and_zero_where_trains_are_equal(tau):
    x, y = np.float32(some(0)), np.float32(some(1))
    y[:, :3] = x[:, :3]
    for power in (1, 2):
        by_x, by_y, by_tau = map(np.asarray, both(x, y, tau, power)[1])
        assert np.all(np.isfinite(by_x))
        assert not np.any(by_x[:, :3])
        assert np.any(by_x[:, 3:])
        np.testing.assert_array_equal(by_x, -by_y)
        assert np.isfinite(by_tau)
        assert (by_tau == 0) == (tau < 0.01 or tau == np.inf)


def test_descent_through_a_surrogate_makes_the_trains_equal():
    """A potential for each step: spikes appear and vanish as they should."""
    target = some(3)

    @jax.jit
    @jax.value_and_grad
    def loss(v):
        spikes = surrogate.atan(v)
        return jnp.mean(van_rossum(spikes, target, tau=2.0) ** 2)

    v = np.float32(np.random.default_rng(4).normal(0, 0.3, target.shape))
    assert loss(v)[0] > 1
    for _ in range(200):
        v = v - 0.3 * np.asarray(loss(v)[1])
    assert loss(v)[0] == 0
    np.testing.assert_array_equal(v >= 0, target)
