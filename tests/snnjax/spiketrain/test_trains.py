"""What all distances have in common: shapes, dtypes, errors, compilations."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import spiketrain
from snnjax.spiketrain import matching

DISTANCES = {
    "van_rossum": functools.partial(spiketrain.van_rossum, tau=2.0),
    "victor_purpura": functools.partial(spiketrain.victor_purpura, cost=0.7),
    "time_wasserstein": spiketrain.time_wasserstein,
    "isi": spiketrain.isi,
    "spike": spiketrain.spike,
}
NUMBERS = {
    "tau": spiketrain.van_rossum,
    "cost": spiketrain.victor_purpura,
    "unmatched": spiketrain.time_wasserstein,
}
CORES = {
    "tau": importlib.import_module("snnjax.spiketrain.van_rossum")._van_rossum,
    "cost": matching._match,
    "unmatched": matching._match,
}
every = pytest.mark.parametrize("name", DISTANCES)


def some(steps=4, shape=(2, 3)):
    x, y = np.random.default_rng(0).random((2, steps, *shape)) < 0.4
    return x, y


@every
def test_axes_behind_time_are_a_batch(name):
    """The same neuron by neuron, at once, mapped, and inside jit."""
    distance, (x, y) = DISTANCES[name], some()
    got = distance(x, y)
    assert got.shape == (2, 3)

    @jax.jit
    def inside(x, y):
        lists = (train.reshape(len(train), 6).T for train in (x, y))
        return distance(x, y), jax.vmap(distance)(*lists)

    for other in inside(x, y):
        np.testing.assert_allclose(np.ravel(other), np.ravel(got), 1e-6)
    assert jax.eval_shape(distance, x[:, 0, 1], y[:, 0, 1]).shape == ()


@every
def test_every_dtype_of_the_same_train_gives_the_same(name):
    distance, (x, y) = DISTANCES[name], some()
    expected = distance(x, y)
    assert expected.dtype == jnp.float32
    got = distance(x.astype(np.int32), y.astype(jnp.bfloat16))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, 1e-6)


@every
def test_one_step_and_no_neurons(name):
    distance = DISTANCES[name]
    x, y = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 0, 1]])
    got = np.asarray(distance(x, y))
    # A spike in the middle of the one step, or none; half a spike is left over.
    expected = {"isi": 0.5, "spike": 4 / 9, "time_wasserstein": 0.5}.get(name, 1)
    np.testing.assert_allclose(got, [0, expected, expected, 0], 1e-6)
    nobody = np.zeros((1, 0))
    assert jax.eval_shape(distance, nobody, nobody).shape == (0,)


@pytest.mark.parametrize("name", NUMBERS)
def test_sweeping_a_number_does_not_recompile(name):
    distance, (x, y) = NUMBERS[name], some()
    compiled = jax.jit(lambda x, y, value: distance(x, y, **{name: value}))
    values = (0.0, 0.5, 3.0, 1e9, np.inf)
    swept = jax.vmap(compiled, (None, None, 0))(x, y, jnp.array(values))
    for value, expected in zip(values, swept, strict=True):
        got = compiled(x, y, value)
        np.testing.assert_allclose(got, expected, 1e-6)
        # Outside jit too, where it is a Python number.
        np.testing.assert_allclose(distance(x, y, **{name: value}), got, 1e-6)
    for value in (-1.0, np.nan):
        assert np.all(np.isnan(compiled(x, y, value)))
    core = CORES[name]
    before = compiled._cache_size(), core._cache_size()
    compiled(x, y, 0.123)
    for value in (0.123, 7, np.float32(7), jnp.float32(0.3)):
        distance(x, y, **{name: value})
    assert (compiled._cache_size(), core._cache_size()) == before


@every
def test_a_train_may_be_closed_over(name):
    """Inside jit and scan too, where JAX traces what is done to it."""
    x, y = (jnp.asarray(a, jnp.float32) for a in some())
    expected = DISTANCES[name](x, y)
    inside = jax.jit(lambda x: DISTANCES[name](x, y))
    np.testing.assert_array_equal(inside(x), expected)
    step = lambda carry, x: (carry, DISTANCES[name](x, y))  # noqa: E731
    np.testing.assert_array_equal(jax.lax.scan(step, 0, x[None])[1][0], expected)
    half = y / 2
    with pytest.raises(ValueError, match="must be 0 and 1"):
        jax.jit(lambda x: DISTANCES[name](x, half))(x)


def test_trains_of_a_latency_may_be_closed_over():
    x = jnp.asarray(some()[0], jnp.float32)
    for count in (spiketrain.latency, spiketrain.latency_total):
        np.testing.assert_array_equal(jax.jit(lambda c=count: c(x))(), count(x))
