"""Neurons on arbitrary currents, beside their equations in float64."""

import functools

import jax
import numpy as np
import pytest
from fuzzed import arrays
from hypothesis import given
from hypothesis import strategies as st

from snnjax import neurons

# 4 is unrolled and 16 scanned, as are the pieces of 16: 12 and 4.
LENGTHS = (4, 16)
KINDS = ("lif", "lif_no_decay", "if", "plif")
kinds = st.sampled_from(KINDS)
thresholds = st.floats(-3, 3).map(lambda e: np.float32(10.0**e))
taus = st.floats(1.0625, 1e3, width=32).map(np.float32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(kind, hard, x, tau, threshold, reset, v_init=None):
    """Compiled, as an operation at a time rounds products that programs do not."""
    numbers = dict(v_threshold=threshold, v_reset=reset if hard else None)
    numbers["v_init"] = v_init
    if kind == "if":
        return neurons.if_(x, **numbers)
    if kind == "plif":
        return neurons.plif(x, tau=tau, **numbers)
    return neurons.lif(x, tau=tau, decay_input=kind == "lif", **numbers)


def equations(kind, hard, x, tau, threshold, reset):
    """Spikes, last potential, and the least way to the threshold of each neuron."""
    rest = np.float64(reset if hard else 0)
    v, spikes, near = np.full(x.shape[1:], rest), [], np.full(x.shape[1:], np.inf)
    size = np.abs(v) + abs(threshold)
    for current in x:
        if kind == "if":
            h = v + current
        elif kind == "lif_no_decay":
            h = v - (v - rest) / tau + current
        else:
            h = v + (current - (v - rest)) / tau
        size = np.maximum(size, np.maximum(np.abs(h), np.abs(current)))
        s = h >= threshold
        near = np.minimum(near, np.abs(h - threshold) / size)
        spikes.append(s)
        v = np.where(s, rest, h) if hard else h - s * threshold
    return np.array(spikes), v, near, size


def draw_case(data):
    t = data.draw(st.sampled_from(LENGTHS))
    x = data.draw(arrays(1e6)).reshape(16, 4)[:t]
    threshold, tau = data.draw(thresholds), data.draw(taus)
    reset = threshold * np.float32(data.draw(st.sampled_from([0, -1, 0.5])))
    return x, tau, threshold, reset


@pytest.mark.slow
@given(kind=kinds, hard=st.booleans(), data=st.data())
def test_properties(kind, hard, data):
    x, tau, threshold, reset = draw_case(data)
    spikes, v = (np.asarray(a) for a in run(kind, hard, x, tau, threshold, reset))
    assert np.isin(spikes, (0, 1)).all()
    assert np.isfinite(v).all()
    if hard:
        assert (v[spikes[-1] == 1] == reset).all()
        assert (v[spikes[-1] == 0] < threshold).all()
    # In pieces: the same to the last bit.
    if len(x) == 16:
        first, between = run(kind, hard, x[:12], tau, threshold, reset)
        second, last = run(kind, hard, x[12:], tau, threshold, reset, between)
        np.testing.assert_array_equal(np.concatenate([first, second]), spikes)
        np.testing.assert_array_equal(last, v)
    # In units twice as large, and neuron by neuron in another order, exactly so.
    times = np.float32(4)
    other, there = run(kind, hard, times * x, tau, times * threshold, times * reset)
    if (np.abs(x[x != 0]) > 1e-20).all():
        np.testing.assert_array_equal(other, spikes)
        np.testing.assert_array_equal(there, times * v)
    other, there = run(kind, hard, x[:, ::-1], tau, threshold, reset)
    np.testing.assert_array_equal(other, spikes[:, ::-1])
    np.testing.assert_array_equal(there, v[::-1])


@pytest.mark.slow
@given(kind=kinds, hard=st.booleans(), data=st.data())
def test_equations(x64_on, kind, hard, data):
    x, tau, threshold, reset = (np.float64(a) for a in draw_case(data))
    spikes, v, near, size = equations(kind, hard, x, tau, threshold, reset)
    got, last = run(kind, hard, x, tau, threshold, reset)
    assert last.dtype == np.float64
    # A flip at the threshold is carried on.
    clear = near > 1e-9
    np.testing.assert_array_equal(np.asarray(got)[:, clear], spikes[:, clear])
    assert (np.abs(last - v)[clear] <= 1e-9 * size[clear]).all()


@pytest.fixture(scope="module")
def x64_on():
    """As x64, for all the cases of a test."""
    with jax.enable_x64(True):
        yield


gradient = jax.jit(
    jax.grad(
        lambda x, tau, threshold: neurons.lif(x, tau=tau, v_threshold=threshold)[
            0
        ].sum()
    )
)


@given(x=arrays(), tau=taus, threshold=thresholds)
def test_gradients_are_finite(x, tau, threshold):
    assert np.isfinite(gradient(x.reshape(16, 4), tau, threshold)).all()
