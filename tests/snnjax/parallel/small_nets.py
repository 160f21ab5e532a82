"""Networks and images that are small, and that have all there is to go wrong."""

import json
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import calibrate, data, models, neurons
from snnjax.layers import BatchNorm, QuantLinear, Spiking
from snnjax.quantize import QuantSpec

LSQ = QuantSpec("lsq", bits=4, clip=1.0, signed=False)
MINT = QuantSpec("mint", bits=4, clip=1.0)
LQ = QuantSpec("lq_net", bits=2, clip=1.0)
UNIFORM = QuantSpec(bits=2, clip=1.0)


class Dense(nnx.Module):
    """Spiking layers without convolutions, which take long to compile."""

    def __init__(
        self,
        *,
        depth=2,
        weight=None,
        membrane=None,
        neuron=None,
        dtype=jnp.float32,
        param=None,
    ):
        param = param or dtype
        options = {"rngs": nnx.Rngs(0), "dtype": dtype, "param_dtype": param}
        self.depth, features = depth, 64
        for i in range(1, depth + 1):
            last = i == depth
            setattr(self, f"fc{i}", QuantLinear(features, 6, **options))
            setattr(self, f"bn{i}", BatchNorm(6, param_dtype=param))
            spiking = Spiking(neuron or neurons.LIF(), quant=membrane if last else None)
            setattr(self, f"sn{i}", spiking)
            features = 6
        self.fc = QuantLinear(features, 10, quant=weight, **options)

    def __call__(self, x, *, timesteps=4, train=False, record=lambda s: s):
        spikes, h = {}, x.reshape(len(x), -1)
        for i in range(1, self.depth + 1):
            layer = [getattr(self, f"{name}{i}") for name in ("fc", "bn", "sn")]
            h = layer[1](layer[0](h, train=train), train=train, repeats=timesteps)
            if i == 1:
                h = jnp.broadcast_to(h, (timesteps, *h.shape))
            h = layer[2](2 * h)
            spikes[f"sn{i}"] = record(h)
        return self.fc(h, train=train), spikes


def sew(*, dtype=jnp.float64, blocks=(1,), seed=0, **options):
    """A SEW-ResNet with LQ-Net weights and learned bounds of its membranes."""
    net = models.SEWResNet(
        10,
        blocks=blocks,
        width=2,
        in_channels=1,
        dtype=dtype,
        param_dtype=dtype,
        rngs=nnx.Rngs(seed),
        **options,
    )
    rules = {
        r"layer\d\.0\.conv\d": LQ,
        r"layer\d\.0\.sn1": LSQ,
        r"layer\d\.0\.sn2": MINT,
    }
    return calibrate.quantize(net, rules)


def vgg(**options):
    """A SpikingVGG of PLIF neurons, MINT's weights and membranes."""
    return models.SpikingVGG(
        10,
        stages=((1, 1), (2, 1)),
        width=2,
        image_size=(8, 8),
        in_channels=1,
        neuron=neurons.PLIF(),
        weight_quant=MINT,
        membrane_quant=MINT,
        dtype=jnp.float64,
        param_dtype=jnp.float64,
        rngs=nnx.Rngs(0),
        **options,
    )


def join():
    """Meet the other processes that `several.run` started; their number."""
    number = int(os.environ.get("PROCESSES", "1"))
    if number > 1:
        address = f"localhost:{os.environ['PORT']}"
        jax.distributed.initialize(address, number, int(os.environ["PROCESS"]))
    return number


def tell(found):
    """Print it as JSON, for `several.run` to read."""
    sys.stdout.write(json.dumps(found) + "\n")


def images(n=40):
    draw = np.random.default_rng(n)
    x = draw.integers(0, 256, (n, 8, 8, 1), np.uint8)
    return data.from_arrays(x, draw.integers(0, 10, n), num_classes=10)


def quiet(rates, strength):
    """A penalty that is no sum over images: the square of each layer's mean rate."""
    return strength * sum(jnp.square(jnp.mean(r)) for r in rates.values())


def host(tree):
    """A copy on the host."""
    return jax.tree.map(np.array, tree)


def same(a, b) -> bool:
    """Whether all arrays are equal, bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    # No np.array_equal, to which deleted arrays are only different.
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in leaves)


def farthest(a, b) -> float:
    """The largest difference of floating-point numbers, relative to their array."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    pairs = [(np.asarray(x, float), np.asarray(y, float)) for x, y in leaves]
    return max(
        float(np.max(np.abs(x - y)) / max(1e-30, np.max(np.abs(x)))) for x, y in pairs
    )
