"""Whole networks against SpikingJelly, in float64: every spike, logit and gradient.

The numbers are those of make_spikingjelly.py. In float32 SpikingJelly differs from
itself: see compare_layers.py.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest
from flax import nnx

from snnjax import models, neurons
from snnjax.interop import spikingjelly

GOLDEN = json.loads(Path(__file__).with_name("spikingjelly.json").read_text())
FIRST = {"sew_resnet18-iand-decayed"}


def network(config):
    name, connect, decay_input = nets.parse(config)
    model = getattr(models, name)(
        nets.CLASSES,
        connect=connect,
        neuron=neurons.LIF(tau=2.0, decay_input=decay_input, alpha=2.0),
        param_dtype=jnp.float64,
        rngs=nnx.Rngs(0),
    )
    shapes = {key: x.shape for key, x in spikingjelly.save(model).items()}
    return spikingjelly.load(model, nets.weights(shapes))


def images():
    return jnp.asarray(nets.images().transpose(0, 2, 3, 1))


@functools.partial(jax.jit, static_argnums=0)
def evaluate(graphdef, state):
    return nnx.merge(graphdef, state)(images(), timesteps=nets.TIMESTEPS)


@functools.partial(jax.jit, static_argnums=0)
def train(graphdef, params, rest):
    def loss(params):
        model = nnx.merge(graphdef, params, rest, copy=True)
        logits, _ = model(images(), timesteps=nets.TIMESTEPS, train=True)
        labels = jnp.asarray(nets.labels())
        each = optax.softmax_cross_entropy_with_integer_labels(logits.mean(0), labels)
        return each.mean(), nnx.state(model, nnx.BatchStat)

    return jax.value_and_grad(loss, has_aux=True)(params)


def assert_sketches(found, expected, tolerance):
    assert set(found) >= set(expected)
    for name, sketch in expected.items():
        got = nets.sketch(name, found[name])
        error = np.abs(np.subtract(got, sketch))
        assert (error <= tolerance * sketch[0]).all(), (name, got, sketch)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            config,
            marks=pytest.mark.slow if config in FIRST else pytest.mark.nightly,
        )
        for config in nets.CONFIGS
    ],
)
def test_whole_networks_are_spikingjellys(config, x64):
    golden, model = GOLDEN[config], network(config)
    logits, spikes = evaluate(*nnx.split(model))
    for layer, (fingerprint, rate) in golden["spikes"].items():
        assert spikes[layer].mean() == pytest.approx(rate, abs=1e-12), layer
        assert nets.fingerprint(np.asarray(spikes[layer])) == fingerprint, layer
    assert set(spikes) == set(golden["spikes"])
    assert all(rate > 0.02 for _, rate in golden["spikes"].values())
    np.testing.assert_allclose(logits, golden["logits"], 1e-9, 1e-9)

    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    (loss, statistics), gradients = train(graphdef, params, rest)
    assert loss == pytest.approx(golden["loss"], rel=1e-9)
    nnx.update(model, gradients, statistics)
    found = spikingjelly.save(model)
    assert_sketches(found, golden["gradients"], 1e-6)
    assert_sketches(found, golden["statistics"], 1e-9)
