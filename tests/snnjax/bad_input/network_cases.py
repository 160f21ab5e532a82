"""Bad input to layers, to networks, and to what is done with networks."""

from functools import partial

import jax
import numpy as np
from flax import nnx

from snnjax import calibrate, layers, models, neurons
from snnjax.quantize import QuantSpec
from tests.snnjax.bad_input.table import NAN, NO_ARRAY, NO_SIZE, allowed, refused

RNGS = nnx.Rngs(0)
X = np.ones((2, 8, 8, 1), np.float32)


class Small(nnx.Module):
    """The least that has a BatchNorm: it compiles fast."""

    def __init__(self):
        self.norm = layers.BatchNorm(1)

    def __call__(self, x, *, timesteps, train):
        return self.norm(x, train=train)


def cases():
    """Yield the cases of this module."""
    yield from layer_cases()
    yield from spiking_cases()
    yield from model_cases()
    yield from calibration_cases()


def inputs(name, call, good, named="C"):
    """Input that is no array of floating point with these channels."""
    bad = [*NO_ARRAY, good.astype(np.int32)]
    for value in bad:
        yield f"{name}: {value!r:.40}", partial(call, value), "x", value
    value = np.concatenate([good, good], axis=-1)
    shown = value.shape[-1] if name == "batch_norm" else value
    yield f"{name}: channels", partial(call, value), named, shown


def layer_cases():
    """Layers with weights, and BatchNorm."""
    features = {"in_features": NO_SIZE, "out_features": NO_SIZE}
    weights = {"quant": [4, "uniform"], "rngs": [0, None]}
    good = {"in_features": 2, "out_features": 2, "rngs": RNGS}
    geometry = {"kernel_size": NO_SIZE, "strides": NO_SIZE, "padding": [-1, 1.5, "1"]}
    conv = partial(layers.QuantConv, kernel_size=3)
    yield from refused(conv, good, **features, **weights, **geometry)
    yield from refused(layers.QuantLinear, good, **features, **weights, std=[-1, NAN])
    yield from refused(layers.BatchNorm, {}, features=NO_SIZE)
    made, norm = conv(**good), layers.BatchNorm(2)
    ones = partial(np.ones, dtype=np.float32)
    yield from inputs("QuantConv()", made, ones((1, 4, 4, 2)))
    yield from inputs("QuantLinear()", layers.QuantLinear(**good), ones((1, 2)))
    yield from inputs("BatchNorm()", norm, ones((1, 2)))
    function = lambda x: layers.batch_norm(x, ones(2), ones(2))  # noqa: E731
    yield from inputs("batch_norm", function, ones((3, 2)))
    train = partial(norm, train=True)
    for name, call, value, word in (
        ("QuantConv(): rank", made, ones((4, 2)), "x"),
        ("BatchNorm(): one value", train, ones((1, 2)), "BatchNorm"),
        ("BatchNorm(): no value", train, ones((0, 2)), "BatchNorm"),
        ("batch_norm: no value", function, ones((0, 2)), "x"),
        ("batch_norm: rank", function, np.float32(1), "x"),
    ):
        yield name, partial(call, value), word, value
    small = partial(made, ones((1, 2, 2, 2)))
    yield "QuantConv(): small", small, "image", (2, 2)
    yield allowed(
        "BatchNorm(): no image, running", partial(norm, ones((0, 2)), train=False)
    )


def spiking_cases():
    """`layers.Spiking`."""
    lif = neurons.LIF()
    bad = {"site": ["pre"], "quant": [4], "neuron": [2.0, neurons.LIF, None]}
    yield from refused(layers.Spiking, {"neuron": lif}, **bad)
    for spec, word in (
        (QuantSpec("dorefa", bits=2), "dorefa"),
        (QuantSpec("lq_net", bits=1), "lq_levels"),
        (QuantSpec(bits=2, per_channel=True), "per_channel"),
    ):
        call = partial(layers.Spiking, lif, quant=spec)
        yield f"Spiking: {spec.method}", call, word, word
    mint = QuantSpec("mint", bits=2)
    call = partial(layers.Spiking, lif, quant=mint, site="pre_fire")
    yield "Spiking: MINT before firing", call, "post_reset", "MINT"
    empty = np.ones((0, 2), np.float32)
    yield "Spiking(): T=0", partial(layers.Spiking(lif), empty), "T", empty


def model_cases():
    """Networks."""
    good = {"num_classes": 3, "width": 4, "in_channels": 1, "rngs": RNGS}
    sizes = dict.fromkeys(("num_classes", "width", "in_channels"), NO_SIZE)
    sizes |= {"neuron": [2.0], "rngs": [0, None]}
    for make in (models.sew_resnet8, models.spiking_vgg_small):
        yield from refused(make, good, **sizes)
        yield from refused(make, good, named="site", membrane_site=["pre"])
        bad = {"weight_quant": [4], "membrane_quant": [4]}
        yield from refused(make, good, named="quant", **bad)
    bad = {"stem": ["mnist"], "connect": ["or", None], "remat": ["all", True]}
    yield from refused(models.sew_resnet8, good, **bad)
    image_sizes = [(4, 4), (8.5, 8), "32"]
    yield from refused(models.spiking_vgg_small, good, image_size=image_sizes)
    resnet = models.sew_resnet8(**good)
    vgg = models.spiking_vgg_small(**good, image_size=(8, 8))
    for model in (resnet, vgg):
        name, call = f"{type(model).__name__}()", partial(model, timesteps=2)
        yield from inputs(name, call, X, named="channels")
        three = np.stack([X] * 3)
        for value in (X[0], three, three[:0], X[:0]):
            yield f"{name}: {value.shape}", partial(call, value), "x", len(value)
        yield from refused(model, {"x": X}, timesteps=NO_SIZE)
        yield from refused(model, {"x": X, "timesteps": 2}, record=[4])
        one = partial(jax.eval_shape, partial(call, train=False), X[:1])
        yield allowed(f"{name}: one image", one)
    small = X[:, :4]
    yield "SpikingVGG(): size", partial(vgg, small, timesteps=2), "x", small
    yield "SpikingVGG(): synapses", partial(vgg.synapses, (9, 9)), "image", (9, 9)
    sizes = [(0, 8), 8, (8,), (8.5, 8), "ab"]
    yield from refused(resnet.synapses, {}, image_size=sizes)


def calibration_cases():
    """Quantizing a network that is there."""
    model = models.sew_resnet8(3, width=4, in_channels=1, rngs=RNGS)
    spec = QuantSpec(bits=2)
    good = {"model": model, "rules": {"conv1": spec}}
    bad = {"membrane_site": ["pre"], "model": [None, "model", {}]}
    yield from refused(calibrate.quantize, good, rules=[None, spec, [spec]], **bad)
    for rules, word, value in (
        ({"c1": spec}, "layer", "c1"),
        ({"conv(": spec}, "regular expression", "conv("),
        ({"conv1": 4}, "QuantSpec", 4),
        ({1: spec}, "pattern", 1),
    ):
        call = partial(calibrate.quantize, model, rules)
        yield f"calibrate.quantize: {rules}", call, word, value
    for function in (calibrate.layer_bits, calibrate.describe):
        yield from refused(function, {}, model=["model"])
    good = {"model": model, "neurons": {}}
    yield from refused(calibrate.memory_bits, good, model=["model"])
    call = partial(calibrate.memory_bits, **good)
    yield "calibrate.memory_bits: neurons", call, "missing", "sn1"
    function = calibrate.reestimate_batchnorm
    yield from refused(function, {"model": model}, dataset=["text", 3])
    yield "reestimate_batchnorm: none", partial(function, model, []), "batch", "one"
    yield from refused(function, {"model": model, "dataset": [X]}, timesteps=[0])
    call = partial(function, Small(), [X * NAN])
    yield "reestimate_batchnorm: NaN", call, "statistics", "NaN"
    integers = X.astype(np.uint8)
    yield (
        "reestimate_batchnorm: integers",
        partial(function, model, [integers]),
        "x",
        (integers),
    )
