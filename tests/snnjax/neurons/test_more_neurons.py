"""Synaptic currents, lower bounds, integrators and neurons of one's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import calibrate, checkpoint, layers, neurons, surrogate
from snnjax.quantize import QuantSpec

X = np.random.default_rng(0).normal(0.6, 1.5, (15, 3, 4))


def run_numpy(x, *, alpha, beta, threshold, gain=1.0, soft=True, v_min=None):
    """Integrate snnTorch's Synaptic (reset without delay) in float64."""
    syn, mem, spikes = np.zeros(x.shape[1:]), np.zeros(x.shape[1:]), []
    for current in x:
        syn = alpha * syn + current
        mem = beta * mem + gain * syn
        if v_min is not None:
            mem = np.maximum(mem, v_min)
        s = (mem >= threshold).astype(float)
        mem = mem - s * threshold if soft else mem * (1 - s)
        spikes.append(s)
    return np.stack(spikes), mem, syn


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("decay_input", [True, False])
def test_synaptic_currents_as_snntorch_computes_them(soft, decay_input):
    tau, tau_syn = 4.0, 2.5
    with jax.enable_x64(True):
        spikes, state = neurons.cuba_lif(
            jnp.asarray(X),
            tau=tau,
            tau_syn=tau_syn,
            decay_input=decay_input,
            v_reset=None if soft else 0.0,
        )
    expected, mem, syn = run_numpy(
        X,
        alpha=1 - 1 / tau_syn,
        beta=1 - 1 / tau,
        threshold=1.0,
        gain=1 / tau if decay_input else 1.0,
        soft=soft,
    )
    assert np.array_equal(spikes, expected)
    assert 0 < expected.mean() < 1
    np.testing.assert_allclose(state.v, mem, atol=1e-12)
    np.testing.assert_allclose(state.i, syn, atol=1e-12)


def test_synaptic_currents_as_norse_computes_them_a_step_earlier():
    """Integrate Norse's lif_feed_forward_step, which charges before the jump."""
    tau, tau_syn = 5.0, 2.0
    v, i, expected = np.zeros(X.shape[1:]), np.zeros(X.shape[1:]), []
    for x in X:
        v = v + (i - v) / tau
        i = i - i / tau_syn
        z = (v - 1.0 > 0).astype(float)
        v = (1 - z) * v
        i = i + x
        expected.append(z)
    with jax.enable_x64(True):
        spikes, _ = neurons.cuba_lif(jnp.asarray(X), tau=tau, tau_syn=tau_syn)
    assert np.array_equal(spikes[:-1], np.stack(expected)[1:])


def test_a_lower_bound_holds_the_potential():
    x = np.concatenate([-3 * np.ones((4, 1)), 1.2 * np.ones((4, 1))])
    for v_min in (None, -0.5):
        with jax.enable_x64(True):
            spikes, v = neurons.lif(jnp.asarray(x[:, None]), v_min=v_min, tau=4.0)
        expected, mem, _ = run_numpy(
            x[:, None],
            alpha=0.0,
            beta=0.75,
            threshold=1.0,
            gain=0.25,
            soft=False,
            v_min=v_min,
        )
        assert np.array_equal(spikes, expected)
        np.testing.assert_allclose(v, mem, atol=1e-12)
    with pytest.raises(ValueError, match="v_min"):
        neurons.LIF(v_min=0.5)(jnp.ones((2, 1)))


def test_an_integrator_leaks_and_never_fires():
    with jax.enable_x64(True):
        v_seq, end = neurons.li(jnp.asarray(X), tau=3.0)
    v, expected = 0.0, []
    for x in X:
        v = v + (x - v) / 3.0
        expected.append(v)
    np.testing.assert_allclose(v_seq, np.stack(expected), atol=1e-12)
    np.testing.assert_allclose(end, expected[-1], atol=1e-12)


def adaptive(state, x, *, tau, up, membrane_quantizer=None):
    """Step of a neuron whose threshold rises with each spike."""
    v = state["v"] + (x - state["v"]) / tau
    if membrane_quantizer is not None:
        v = membrane_quantizer(v)
    spikes = surrogate.atan(v - 1.0 - state["a"])
    return {"v": v * (1 - spikes), "a": 0.9 * state["a"] + up * spikes}, spikes


@pytest.mark.slow
def test_a_step_function_becomes_a_neuron_of_a_layer(tmp_path):
    neuron = neurons.from_step(adaptive, rest={"v": 0.0, "a": 0.2}, tau=2.0, up=0.3)
    spikes, state = neuron(jnp.asarray(X, jnp.float32))
    v, a, expected = np.zeros(X.shape[1:]), np.full(X.shape[1:], 0.2), []
    for x in X:
        v = v + (x - v) / 2.0
        s = (v >= 1 + a).astype(float)
        v, a = v * (1 - s), 0.9 * a + 0.3 * s
        expected.append(s)
    assert np.array_equal(spikes, expected)
    assert np.mean(expected) > 0
    np.testing.assert_allclose(state["a"], a, atol=1e-6)

    layer = layers.Spiking(neuron, learn=("up",))
    x = jnp.asarray(X, jnp.float32)
    assert np.array_equal(layer(x), spikes)
    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)
    slope = jax.grad(lambda p: nnx.merge(graphdef, p, rest)(x).sum())(params)
    assert float(abs(slope["up"].get_value())) > 0

    spec = QuantSpec(bits=3, grid="mid_tread")
    for site in ("post_reset", "pre_fire"):
        quantized = calibrate.quantize(
            nnx.Sequential(layer), {r"layers\.0": spec}, membrane_site=site
        )
        assert "3 bit" in calibrate.describe(quantized)
        _, state = quantized.layers[0](x, v_init=None)
        levels = np.asarray(spec(jnp.linspace(-2, 2, 999)))
        if site == "post_reset":
            assert np.isin(np.asarray(state["v"]), levels).all()
    path = checkpoint.export(tmp_path / "own.safetensors", layer)
    again = checkpoint.load(path, layer)
    assert np.array_equal(again(x), spikes)
    # One class for equal ones: no program is compiled twice.
    other = neurons.from_step(adaptive, rest={"v": 0.0, "a": 0.2}, tau=3.0, up=0.3)
    assert jax.tree.structure(other) == jax.tree.structure(neuron)


def test_step_functions_that_cannot_be_neurons_are_refused():
    def plain(v, x):
        return v + x, surrogate.atan(v + x - 1)

    x = jnp.ones((3, 2))
    with pytest.raises(ValueError, match="membrane_quantizer"):
        neurons.from_step(plain)(
            x, membrane_quantizer=QuantSpec(bits=4), membrane_site="pre_fire"
        )
    with pytest.raises(ValueError, match="step"):
        neurons.from_step(plain, tau=2.0)
    with pytest.raises(ValueError, match="'v'"):
        neurons.from_step(plain, rest={"u": 0.0})
    with pytest.raises(ValueError, match="state"):
        neurons.from_step(lambda v, x: (v.sum(), x))(x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v_threshold", "tau"])
@pytest.mark.parametrize("channels", [(), (4,)])
def test_numbers_are_learned_as_their_derivatives(name, channels):
    """The surrogate's gradient of a learned number, against finite differences."""

    def smooth(x, alpha=None):  # a spike function with a true derivative
        return jax.nn.sigmoid(4 * x)

    value = jnp.full(channels, 1.3 if name == "v_threshold" else 2.5)
    neuron = neurons.LIF(
        **{name: value}, surrogate=smooth, v_reset=None, detach_reset=False
    )
    layer = layers.Spiking(neuron, learn=(name,))
    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)
    x = jnp.asarray(X, jnp.float32)

    def total(value):
        layer = nnx.merge(graphdef, params, rest, copy=True)
        getattr(layer, name).set_value(value)
        return (layer(x) ** 2).mean()

    slope = np.asarray(jax.grad(total)(value))
    assert slope.shape == channels
    step = 1e-2
    for place in np.ndindex(channels):
        up = np.asarray(total(value.at[place].add(step)))
        down = np.asarray(total(value.at[place].add(-step)))
        assert slope[place] == pytest.approx((up - down) / (2 * step), rel=0.02)


def test_learned_numbers_stay_in_their_range():
    layer = layers.Spiking(neurons.LIF(), learn=("v_threshold", "tau"))
    old = nnx.state(layer, nnx.Param)
    beyond = jax.tree.map(lambda x: x - 10, old)
    new = layers.project_scales(old, beyond)
    assert float(new["v_threshold"].get_value()) == 0.5
    assert float(new["tau"].get_value()) == 1.5
    with pytest.raises(ValueError, match="learn"):
        layers.Spiking(neurons.IF(), learn=("tau",))


def fire_at(v, x, *, v_threshold, membrane_quantizer=lambda v: v):
    v = membrane_quantizer(v + x)
    spikes = (v >= v_threshold).astype(v.dtype)
    return v * (1 - spikes), spikes


def test_a_membrane_that_cannot_reach_its_threshold_is_refused():
    """Of a neuron of one's own, and where the threshold is learned."""
    spec = QuantSpec(bits=4, clip=0.5)
    neuron = neurons.from_step(fire_at, v_threshold=1.0)
    with pytest.raises(ValueError, match="never fires"):
        neuron(jnp.ones((3, 1)), membrane_quantizer=spec, membrane_site="pre_fire")
    with pytest.raises(ValueError, match="never fires"):
        layers.Spiking(
            neurons.LIF(), learn=("v_threshold",), quant=spec, site="pre_fire"
        )


def test_a_number_named_w_is_no_leak():
    def named(name):
        def step(v, x, **numbers):
            v = v * jnp.asarray(0.5, v.dtype) + x * numbers[name]
            spikes = (v >= 1).astype(v.dtype)
            return v * (1 - spikes), spikes

        neuron = neurons.from_step(step, **{name: 1.0})
        spec = QuantSpec("mint", bits=4, clip=1.0)
        return neuron(jnp.full((3, 1), 0.3), membrane_quantizer=spec)[1]

    np.testing.assert_array_equal(named("w"), named("g"))
