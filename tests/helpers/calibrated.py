"""Small networks of `snnjax.layers` that fire, for tests of calibration."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import layers, neurons, train


class Net(nnx.Module):
    """Two spiking convolutions and a readout, with BatchNorm or with biases."""

    def __init__(self, *, norm=True, neuron=None, seed=0, channels=2):
        rngs = nnx.Rngs(seed)
        neuron = neurons.LIF() if neuron is None else neuron
        conv = dict(kernel_size=3, padding=1, use_bias=not norm, rngs=rngs)
        self.conv1 = layers.QuantConv(channels, 6, **conv)
        self.bn1 = layers.BatchNorm(6) if norm else None
        self.sn1 = layers.Spiking(neuron)
        self.conv2 = layers.QuantConv(6, 4, **conv)
        self.bn2 = layers.BatchNorm(4) if norm else None
        self.sn2 = layers.Spiking(neuron)
        self.fc = layers.QuantLinear(4, 10, rngs=rngs)
        for bias in (self.bn1, self.bn2) if norm else (self.conv1, self.conv2):
            bias.bias.set_value(bias.bias.get_value() + 0.5)
        self.eval()

    def __call__(self, x, *, timesteps=4, train=None, record=None):
        keep = (lambda s: s) if record is None else record
        h = jnp.broadcast_to(x, (timesteps, *x.shape)) if x.ndim == 4 else x
        found = {}
        for i in "12":
            h = getattr(self, f"conv{i}")(h, train=train)
            if getattr(self, f"bn{i}") is not None:
                h = getattr(self, f"bn{i}")(h, train=train)
            h = getattr(self, f"sn{i}")(h)
            found[f"sn{i}"] = keep(h)
        return self.fc(jnp.mean(h, axis=(2, 3)), train=train), found


def batches(number=2, size=8, seed=0):
    """Batches of normalised images [B, 6, 6, 2]."""
    keys = jax.random.split(jax.random.key(seed), number)
    return [jax.random.normal(key, (size, 6, 6, 2)) for key in keys]


def counts(model, images):
    """Spikes of each neuron over all batches, by layer."""
    found = [model(x, record=lambda s: jnp.sum(s, (0, 1)))[1] for x in images]
    return {name: np.asarray(sum(each[name] for each in found)) for name in found[0]}


def arrays(model):
    """All arrays of a network."""
    return [np.asarray(x) for x in jax.tree.leaves(train.split(model)[1:])]


def same(one, other):
    """Return True if two lists of arrays are equal."""
    return all(map(np.array_equal, one, other))


def darken(key, images, *, part):
    """Halve the pixels, as an augmentation of which the result is known."""
    return images // 2
