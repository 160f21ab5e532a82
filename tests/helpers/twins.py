"""Quantized networks that fire in every layer, and digits, for the integer twin."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import calibrate, data, layers, models
from snnjax.quantize import QuantSpec


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


def make_sequential(neuron, spec, in_shape=(8, 8, 1), kernel=(3, 2)):
    """Own layers: grouped convolution, mean and maximum pooling, or linear ones."""
    rngs = nnx.Rngs(0)
    spiking = lambda: layers.Spiking(neuron)  # noqa: E731
    end = {"fc": layers.QuantLinear(12, 5, rngs=rngs)}
    if len(in_shape) == 1:
        parts = {
            "fc1": layers.QuantLinear(in_shape[0], 24, rngs=rngs),
            "sn1": spiking(),
            "fc2": layers.QuantLinear(24, 12, rngs=rngs),
            "norm2": layers.BatchNorm(12),
            "sn2": spiking(),
        }
    else:
        features = 6 * (4 - kernel[0]) * (4 - kernel[1])
        conv2 = dict(kernel_size=kernel, groups=2, use_bias=True, rngs=rngs)
        parts = {
            "conv1": layers.QuantConv(1, 4, kernel_size=3, padding=1, rngs=rngs),
            "norm1": layers.BatchNorm(4),
            "sn1": spiking(),
            "pool1": layers.AvgPool(2),
            "conv2": layers.QuantConv(4, 6, **conv2),
            "sn2": spiking(),
            "pool2": layers.MaxPool(2, strides=1),
            "flatten": layers.Flatten(),
            "fc1": layers.QuantLinear(features, 12, rngs=rngs),
            "sn3": spiking(),
        }
    model = models.Sequential(parts | end, in_shape=in_shape)
    drawn = np.random.default_rng(3)
    for _, layer in nnx.iter_modules(model):
        bias = getattr(layer, "bias", None)
        if bias is not None and not isinstance(layer, nnx.Variable):
            values = drawn.uniform(0, 2.5, bias.get_value().shape)
            bias.set_value(jnp.asarray(values, bias.get_value().dtype))
    return calibrate.quantize(model, {r"(conv|fc)\d?": spec} if spec else {"sn1": NONE})


NONE = QuantSpec("none")
