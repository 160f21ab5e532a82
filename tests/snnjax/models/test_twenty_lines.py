"""A network of one's own in twenty lines, by calls that any network has."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from snnjax import (  # fmt: skip
    calibrate,
    checkpoint,
    cost,
    data,
    firing,
    integer,
    layers,
    models,
    neurons,
    train,
)
from snnjax.quantize import QuantSpec


@pytest.mark.nightly
def test_a_network_of_ones_own(tmp_path):
    images, test = data.load("digits", "train"), data.load("digits", "test")
    rngs = nnx.Rngs(0)
    parts = {
        "conv1": layers.QuantConv(1, 16, kernel_size=3, padding=1, rngs=rngs),
        "bn1": layers.BatchNorm(16),
        "sn1": layers.Spiking(neurons.LIF()),
        "pool1": layers.MaxPool(2),
        "conv2": layers.QuantConv(16, 32, kernel_size=3, padding=1, rngs=rngs),
        "bn2": layers.BatchNorm(32),
        "sn2": layers.Spiking(neurons.LIF()),
        "flatten": layers.Flatten(),
        "fc": layers.QuantLinear(512, 10, rngs=rngs),
    }
    net = models.Sequential(parts, in_shape=(8, 8, 1))
    optimizer = optax.adam(3e-3)
    net = train.fit(net, images, epochs=4, optimizer=optimizer, batch_size=32, seed=0)
    rules = {"conv2": QuantSpec(bits=4, clip="mse"), "sn2": QuantSpec(bits=4, clip=1.0)}
    quantized = calibrate.quantize(net, rules)
    quantized = calibrate.fire_match(quantized, net, images)
    full, low = (train.evaluate(m, test, outputs=True) for m in (net, quantized))
    report = firing.report(full.counts, low.counts)
    energy = cost.synaptic_operations(quantized.synapses(), low.spikes, len(test))
    restored = checkpoint.load(checkpoint.export(tmp_path / "n.safetensors", quantized))
    twin = integer.from_model(quantized)

    assert full.accuracy > 0.95
    assert low.accuracy > 0.94
    assert 0 < report.emd_mean < 0.02
    assert set(report.emd) == {"sn1", "sn2"}
    assert set(energy) == {"conv2", "fc"}
    x = data.network_input(test.images[:64], test.mean, test.std)
    run = jax.jit(lambda x: restored(x))
    logits, spikes = run(x)
    np.testing.assert_allclose(logits, jax.jit(lambda x: quantized(x))(x)[0])
    found = twin.run(x)
    for name, s in spikes.items():
        assert np.mean(np.asarray(found.spikes[name]) != s) < 1e-3, name
    assert np.mean(found.logits.mean(0).argmax(-1) == logits.mean(0).argmax(-1)) > 0.98
