"""Quantized networks that fire in every layer, and digits, for the integer twin."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import data, layers, models


def make(make_model=models.sew_resnet8, seed=0, **options):
    """A network whose BatchNorm has seen data, with scales of both signs."""
    defaults = {"num_classes": 10, "in_channels": 1, "width": 4}
    model = make_model(**(defaults | options), rngs=nnx.Rngs(seed))
    drawn = np.random.default_rng(seed)
    bounds = {"mean": (-0.2, 0.2), "var": (0.5, 1.5), "scale": (-0.5, 1.5)}
    for _, layer in nnx.iter_modules(model):
        if isinstance(layer, layers.BatchNorm):
            for name, (low, high) in (bounds | {"bias": (0.0, 2.5)}).items():
                part = getattr(layer, name)
                values = drawn.uniform(low, high, part.get_value().shape)
                part.set_value(jnp.asarray(values, jnp.float32))
    return model


def round_scales(model):
    """Make BatchNorm's factors powers of 2 and its biases multiples of 1 / 16.

    In float64: there 1 - 1e-5 + 1e-5 is 1.
    """
    drawn = np.random.default_rng(1)
    for _, layer in nnx.iter_modules(model):
        if isinstance(layer, layers.BatchNorm):
            shape = layer.bias.get_value().shape
            layer.scale.set_value(jnp.asarray(2.0 ** drawn.integers(-2, 2, shape)))
            layer.bias.set_value(jnp.asarray(drawn.integers(0, 40, shape) / 16))
            layer.mean.set_value(jnp.zeros(shape))
            layer.var.set_value(jnp.full(shape, 1 - layers.EPSILON))
            assert (np.asarray(layer.var.get_value()) + layers.EPSILON == 1).all()
    return model


def digits(limit=None):
    """Test images as pixels, their mean and standard deviation by channel."""
    test = data.load("digits", "test")
    images = np.asarray(test.images)[:limit]
    return images, np.asarray(test.mean), np.asarray(test.std)
