"""Recorded membranes are those that each neuron keeps after each step."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import encoding, layers, models, neurons
from snnjax.quantize import QuantSpec

RNG = np.random.default_rng(0)
CURRENTS = RNG.normal(0.7, 1, (9, 2, 5)).astype(np.float32)


def decay(v, x, *, rate):
    v = rate * v["v"] + x
    spikes = (v >= 1).astype(v.dtype)
    return {"v": v - spikes, "trace": spikes}, spikes


def test_of_a_lif_layer_in_numpy():
    expected, v = [], np.zeros((2, 5))
    for x in CURRENTS:
        v = v + (x - v) / 2
        v = np.where(v >= 1, 0, v)
        expected.append(v)
    layer = layers.Spiking(neurons.LIF())
    found = layers.record_membranes(layer, CURRENTS)
    np.testing.assert_allclose(found[""], expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "neuron",
    [
        neurons.IF(v_reset=None),
        neurons.PLIF(),
        neurons.CubaLIF(tau_syn=3.0),
        neurons.from_step(decay, rest={"v": 0.0, "trace": 0.0}, rate=0.9),
    ],
    ids=lambda x: type(x).__name__,
)
@pytest.mark.parametrize("site", ["post_reset", "pre_fire"])
def test_is_the_state_of_each_piece(neuron, site):
    spec = QuantSpec(bits=3, clip=2.0)
    if site == "pre_fire" and isinstance(neuron, neurons.own.StepNeuron):
        site = "post_reset"
    layer = layers.Spiking(neuron, quant=spec, site=site)
    found = layers.record_membranes(layer, CURRENTS)[""]
    for t in range(1, 10):
        _, state = layer(CURRENTS[:t], v_init=None)
        v = state["v"] if isinstance(state, dict) else getattr(state, "v", state)
        np.testing.assert_allclose(found[t - 1], v, atol=1e-6)


def test_of_a_network_with_recurrence_and_readout():
    rngs = nnx.Rngs(0)
    net = models.Sequential(
        {
            "fc1": layers.QuantLinear(5, 4, rngs=rngs),
            "bn": layers.BatchNorm(4),
            "rec": layers.Recurrent(4, neurons.LIF(v_threshold=0.3), rngs=rngs),
            "fc2": layers.QuantLinear(4, 3, rngs=rngs),
            "out": layers.Readout(),
        },
        in_shape=(5,),
    )
    found = layers.record_membranes(net, CURRENTS)
    assert {k: x.shape for k, x in found.items()} == {
        "rec.sn": (9, 2, 4),
        "out": (9, 2, 3),
    }
    logits, spikes = net(jnp.asarray(CURRENTS), timesteps=9)
    np.testing.assert_allclose(found["out"], logits, atol=1e-6)
    # A hard reset: where a neuron fired its membrane is 0.
    assert not np.asarray(found["rec.sn"])[np.asarray(spikes["rec.sn"]) > 0].any()
    assert np.asarray(spikes["rec.sn"]).any()
    only = layers.record_membranes(net, CURRENTS, layers=["out"])
    assert np.array_equal(only["out"], found["out"])
    with pytest.raises(ValueError, match="layers"):
        layers.record_membranes(net, CURRENTS, layers=["bn"])


def test_a_still_image_is_refused_and_the_remedy_works():
    rngs = nnx.Rngs(0)
    net = models.Sequential(
        {
            "conv": layers.QuantConv(1, 2, kernel_size=3, padding=1, rngs=rngs),
            "sn": layers.Spiking(neurons.LIF()),
            "flat": layers.Flatten(),
            "fc": layers.QuantLinear(32, 3, rngs=rngs),
        },
        in_shape=(4, 4, 1),
    )
    x = jnp.ones((2, 4, 4, 1))
    with pytest.raises(ValueError, match=r"encoding\.direct"):
        layers.record_membranes(net, x)
    found = layers.record_membranes(net, encoding.direct(x, timesteps=3))
    assert found["sn"].shape == (3, 2, 4, 4, 2)


@pytest.mark.slow
def test_each_channels_clip_lets_it_reach_the_threshold():
    clips = QuantSpec(bits=[4, 5], clip=[1.5, 2.0])
    layer = layers.Spiking(neurons.LIF(), quant=clips, site="pre_fire")
    assert layer(jnp.ones((2, 1, 2))).shape == (2, 1, 2)
    low = QuantSpec(bits=4, clip=[1.5, 0.5])
    with pytest.raises(ValueError, match="reach v_threshold"):
        layers.Spiking(neurons.LIF(), quant=low, site="pre_fire")
