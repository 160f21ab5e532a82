"""Encodings against their definition, and as a network sees them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import encoding, models


def test_direct_repeats():
    x = jnp.arange(6.0).reshape(2, 3)
    got = encoding.direct(x, timesteps=5)
    np.testing.assert_array_equal(got, np.stack([x] * 5))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_poisson_fires_as_often_as_asked(key, dtype):
    x = jnp.asarray([[0.0, 0.1, 0.5], [0.9, 0.999, 1.0]], dtype)
    spikes = encoding.poisson(key, x, timesteps=20_000)
    assert spikes.shape == (20_000, 2, 3)
    assert spikes.dtype == dtype
    assert set(np.unique(spikes).tolist()) == {0.0, 1.0}
    rate = np.asarray(spikes, float).mean(0)
    expected = np.asarray(x, float)
    np.testing.assert_array_less(
        np.abs(rate - expected),
        5 * np.sqrt(expected * (1 - expected) / 20_000) + 1e-12,
    )
    # Steps are independent of each other, and keys of each other.
    half = np.asarray(spikes, float)[:, 0, 2]
    assert abs(np.corrcoef(half[1:], half[:-1])[0, 1]) < 0.04
    again = encoding.poisson(key, x, timesteps=20_000)
    np.testing.assert_array_equal(spikes, again)
    other = encoding.poisson(jax.random.key(1), x, timesteps=20_000)
    assert (other != spikes).any()


@pytest.mark.parametrize("timesteps", [1, 2, 7, 400])
@pytest.mark.parametrize("method", encoding.LATENCIES)
def test_latency_is_the_formula(x64, timesteps, method):
    x = np.random.default_rng(0).uniform(0, 1, (5, 40))
    x[0, :2] = 0, 1
    last = timesteps - 1
    if method == "linear":
        times = last * (1 - x)
    else:  # expm1 of 400 still is a float64
        times = last - np.log(np.expm1(last) * x + 1)
    expected = np.arange(timesteps)[:, None, None] == np.round(times)
    got = encoding.latency(jnp.asarray(x), timesteps=timesteps, method=method)
    np.testing.assert_array_equal(got, expected)
    assert (np.sum(got, 0) == 1).all()


@pytest.mark.parametrize("method", encoding.LATENCIES)
def test_latency_of_long_sequences_is_finite_in_float32(method):
    x = jnp.linspace(0, 1, 100)
    got = encoding.latency(x, timesteps=500, method=method)
    assert (got.sum(0) == 1).all()
    first = jnp.argmax(got, 0)
    assert (jnp.diff(first) <= 0).all()
    assert (first[0], first[-1]) == (499, 0)


def test_encodings_work_under_jit_and_vmap(key):
    x = jnp.linspace(0, 1, 12).reshape(3, 4)
    for encode in (
        lambda x: encoding.latency(x, timesteps=6),
        lambda x: encoding.direct(x, timesteps=6),
    ):
        expected = encode(x)
        np.testing.assert_array_equal(jax.jit(encode)(x), expected)
        mapped = jax.vmap(encode, in_axes=0, out_axes=1)(x)
        np.testing.assert_array_equal(mapped, expected)
    compiled = jax.jit(lambda x: encoding.poisson(key, x, timesteps=6))
    np.testing.assert_array_equal(compiled(x), encoding.poisson(key, x, timesteps=6))


@pytest.fixture(scope="module")
def model():
    """A network of one block, compiled for each length."""
    model = models.SEWResNet(10, blocks=(1,), width=2, in_channels=2, rngs=nnx.Rngs(0))
    return jax.jit(model.__call__, static_argnames="timesteps")


@pytest.mark.slow
def test_direct_sequence_is_what_a_model_makes_of_an_image(model):
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 2))
    logits, _ = model(x, timesteps=5)
    again, _ = model(encoding.direct(x, timesteps=5), timesteps=5)
    np.testing.assert_allclose(again, logits, 1e-5, 1e-6)


def test_event_frames_are_a_models_input(key, model):
    events = jax.random.poisson(key, 0.3, (5, 2, 8, 8, 2)).astype(jnp.float32)
    logits, spikes = model(events, timesteps=5)
    assert logits.shape == (5, 2, 10)
    assert spikes["sn1"].shape == (5, 2, 8, 8, 2)
    late = model(events.at[3:].set(0), timesteps=5)[0]
    np.testing.assert_array_equal(late[:3], logits[:3])
    assert (late[3:] != logits[3:]).any()
    with pytest.raises(ValueError, match=r"5 time steps .* timesteps is 4"):
        model(events, timesteps=4)


def test_intensities_may_be_closed_over(key):
    x = jax.random.uniform(key, (3, 2))
    beyond = x + 1
    for encode in (encoding.latency, functools.partial(encoding.poisson, key)):
        inside = jax.jit(lambda encode=encode: encode(x, timesteps=4))()
        np.testing.assert_array_equal(inside, encode(x, timesteps=4))
        with pytest.raises(ValueError, match=r"x must lie in \[0, 1\]"):
            jax.jit(lambda encode=encode: encode(beyond, timesteps=4))()
