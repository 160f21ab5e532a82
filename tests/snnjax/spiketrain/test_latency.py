"""First spikes against their definition, as counts, and their gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from snnjax import emd, encoding, surrogate
from snnjax.spiketrain import latency, latency_total


def first(x):
    return np.where(x.any(0), x.argmax(0), len(x))


def some(seed, shape):
    rng = np.random.default_rng(seed)
    return rng.random(shape) < rng.random(shape[1:]) ** 2


@pytest.mark.parametrize(
    ("steps", "dtype"),
    [(1, bool), (4, bool), (4, np.int8), (4, np.float32), (40, bool)],
)
def test_it_is_the_first_spike(steps, dtype):
    x = some(steps, (steps, 3, 50))
    x[:, 0, 0] = False
    got = latency(x.astype(dtype))
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, first(x))


def test_it_undoes_latency_encoding():
    x = np.linspace(0, 1, 41, dtype=np.float32)
    got = jax.jit(lambda x: latency(encoding.latency(x, timesteps=40)))(x)
    np.testing.assert_array_equal(got, np.round(39 * (1 - x)))


@pytest.mark.parametrize("steps", [5, 20])
def test_the_gradient_is_the_difference_that_a_spike_makes(x64, steps):
    """It is linear in each spike: by one that is there or not, its whole effect."""
    x = some(0, (steps, 30))
    slopes = jax.jit(jax.grad(lambda x: latency(x).sum()))(1.0 * x)
    for t in range(steps):
        without, within = x.copy(), x.copy()
        without[t], within[t] = 0, 1
        np.testing.assert_allclose(slopes[t], first(within) - first(without), 1e-12)


def test_descent_through_a_surrogate_moves_the_first_spike():
    target = np.arange(5.0)  # the last one is silence

    @jax.jit
    @jax.value_and_grad
    def loss(v):
        return jnp.mean((latency(surrogate.atan(v)) - target) ** 2)

    v = np.float32(np.random.default_rng(0).normal(0, 0.3, (4, 5)))
    assert loss(v)[0] > 0
    for _ in range(300):
        v = v - 0.1 * np.asarray(loss(v)[1])
    assert loss(v)[0] == 0


@pytest.mark.parametrize("steps", [4, 20])
def test_totals_merge_and_leave_out_what_is_masked(steps):
    x = some(1, (steps, 8, 3, 5))
    mask = np.array([1, 1, 1, 1, 1, 0, 1, 0])
    got = latency_total(x, mask)
    assert (got.dtype, got.shape) == (jnp.int32, (3, 5))
    np.testing.assert_array_equal(got, first(x)[mask != 0].sum(0))
    np.testing.assert_array_equal(latency_total(x), first(x).sum(0))
    np.testing.assert_array_equal(
        latency_total(x),
        sum(np.asarray(latency_total(half)) for half in (x[:, :4], x[:, 4:])),
    )


def test_totals_make_an_exact_distance_between_mean_latencies():
    steps, images = 4, 8
    x, y = some(2, (steps, images, 50)), some(3, (steps, images, 50))
    a, b = latency_total(x), latency_total(y)
    got = emd.emd_from_counts(a, b, steps * images) * steps
    means = [first(spikes).mean(0) for spikes in (x, y)]
    assert got == pytest.approx(wasserstein_distance(*means), rel=1e-12)


def test_an_add_blocks_values_count_as_spikes_inside_jit():
    x = np.array([[[0]], [[2]], [[1]]])
    assert jax.jit(latency_total)(x).tolist() == [1]
