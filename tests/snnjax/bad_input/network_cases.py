"""Bad input to what networks are made of, and to what is done with them."""

from functools import partial

import jax
import numpy as np
from flax import nnx

from snnjax import calibrate, layers, models, neurons
from snnjax.quantize import QuantSpec

RNGS = nnx.Rngs(0)
IMAGES, LABELS = np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 1, 2])
BAD_ARRAYS = (("text", "'text'"), (None, "None"), (np.array([None]), "object"))
X = np.ones((2, 8, 8, 1), np.float32)


class Small(nnx.Module):
    """The least that has a BatchNorm: it compiles fast."""

    def __init__(self):
        self.norm = layers.BatchNorm(1)

    def __call__(self, x, *, timesteps, train):
        return self.norm(x, train=train)


def cases():
    """Name, call, what the error says."""
    yield from layer_cases()
    yield from model_cases()
    yield from calibration_cases()


def spoilt(name, call, argument, bad, says):
    """Values that an argument cannot have."""
    for value in bad:
        text = f"{says}.*got .*{value}".replace("(", ".").replace(")", ".")
        yield f"{name}: {argument}={value!r}", partial(call, **{argument: value}), text


def inputs(name, call, shape):
    """Input that is no array of floating point of this shape."""
    for bad, says in BAD_ARRAYS:
        yield f"{name}: {bad!r}", partial(call, bad), f"x.* must be .*numbers, .*{says}"
    good = np.ones(shape, np.float32)
    bad = partial(call, good.astype(np.int32))
    yield f"{name}: integers", bad, "x.* must be floating point, got int32"
    bad = partial(call, good.astype(np.complex64))
    yield f"{name}: complex", bad, "x.* must be floating point, got complex64"
    bad = np.ones((*shape[:-1], shape[-1] + 1), np.float32)
    yield (
        f"{name}: channels",
        partial(call, bad),
        "C = |channels|scale and bias must be",
    )


def layer_cases():
    """Layers."""
    sizes = (0, -1, 2.5, "4", None)
    conv = partial(
        layers.QuantConv, in_features=2, out_features=2, kernel_size=3, rngs=RNGS
    )
    linear = partial(layers.QuantLinear, in_features=2, out_features=2, rngs=RNGS)
    for argument in ("in_features", "out_features", "kernel_size", "strides"):
        says = f"{argument} must be"
        yield from spoilt("QuantConv", conv, argument, sizes, says)
    yield from spoilt("QuantConv", conv, "padding", (-1, 1.5, "1"), "padding must be")
    for argument in ("in_features", "out_features"):
        says = f"{argument} must be"
        yield from spoilt("QuantLinear", linear, argument, sizes, says)
    yield from spoilt("QuantLinear", linear, "std", (-1, np.nan), "std must be")
    norm = partial(layers.BatchNorm, features=2)
    yield from spoilt("BatchNorm", norm, "features", sizes, "features must be")
    for name, make in (("QuantConv", conv), ("QuantLinear", linear)):
        yield from spoilt(
            name, make, "quant", (4, "uniform"), "quant must be a QuantSp"
        )
        yield from spoilt(name, make, "rngs", (0, None), "rngs must be .*nnx.Rngs")
    made = conv()
    yield from inputs("QuantConv()", made, (1, 4, 4, 2))
    bad = np.ones((4, 2), np.float32)
    yield "QuantConv(): rank", partial(made, bad), "\\[..., H W C\\].*\\(4, 2\\)"
    small = np.ones((1, 2, 2, 2), np.float32)
    yield "QuantConv(): small", partial(made, small), "larger than the image \\(2, 2\\)"
    yield from inputs("QuantLinear()", linear(), (1, 2))
    yield from inputs("BatchNorm()", norm(), (1, 2))
    one = partial(norm(), np.ones((1, 2), np.float32), train=True)
    yield "BatchNorm(): one value", one, "more than one value.*\\(1, 2\\)"
    none = partial(norm(), np.ones((0, 2), np.float32), train=True)
    yield "BatchNorm(): no value", none, "more than one value.*\\(0, 2\\)"
    yield (
        "BatchNorm(): none, running",
        partial(norm(), np.ones((0, 2), np.float32)),
        None,
    )
    run = layers.batch_norm
    yield from inputs("batch_norm", lambda x: run(x, np.ones(2), np.ones(2)), (3, 2))
    for bad in (np.ones((0, 2), np.float32), np.float32(1)):
        call = partial(run, bad, np.ones(2, np.float32), np.ones(2, np.float32))
        yield f"batch_norm: {bad.shape}", call, "x must be"
    spiking = partial(layers.Spiking, neurons.LIF())
    yield from spoilt("Spiking", spiking, "site", ("pre",), "site must be")
    yield from spoilt("Spiking", spiking, "quant", (4,), "quant must be a QuantSpec")
    for bad in (2.0, neurons.LIF, None):
        call = partial(layers.Spiking, bad)
        yield f"Spiking: {bad}", call, "neuron must be .*neurons.LIF.*got"
    for spec, says in (
        (QuantSpec("dorefa", bits=2), "dorefa makes levels of weights"),
        (QuantSpec("lq_net", bits=1), "signed lq_levels"),
        (QuantSpec(bits=2, per_channel=True), "per_channel bounds come from weights"),
    ):
        yield f"Spiking: {spec.method}", partial(spiking, quant=spec), says
    mint = partial(spiking, quant=QuantSpec("mint", bits=2), site="pre_fire")
    yield "Spiking: MINT before firing", mint, "post_reset"
    bad = partial(spiking(), np.ones((0, 2), np.float32))
    yield "Spiking(): T=0", bad, "T at least 1"


def model_cases():
    """Networks."""
    make = partial(models.sew_resnet8, width=4, in_channels=1, rngs=RNGS)
    vgg = partial(models.spiking_vgg_small, width=4, in_channels=1, rngs=RNGS)
    sizes = (0, -1, 2.5, "4", None)
    for name, call in (("sew_resnet8", make), ("spiking_vgg_small", vgg)):
        for argument in ("num_classes", "width", "in_channels"):
            yield from spoilt(name, call, argument, sizes, f"{argument} must be")
        yield from spoilt(name, call, "weight_quant", (4,), "quant must be a QuantSpec")
        yield from spoilt(name, call, "membrane_quant", (4,), "quant must be a QuantS")
        yield from spoilt(name, call, "membrane_site", ("pre",), "site must be")
        yield from spoilt(name, call, "neuron", (2.0,), "neuron must be")
        yield from spoilt(name, call, "rngs", (0, None), "rngs must be .*nnx.Rngs")
    yield from spoilt("sew_resnet8", make, "stem", ("mnist",), "stem must be")
    yield from spoilt("sew_resnet8", make, "connect", ("or", None), "connect must be")
    yield from spoilt("sew_resnet8", make, "remat", ("all", True), "remat must be")
    bad = ((4, 4), (0, 0), 8, (8,), (8.5, 8), "32")
    yield from spoilt("spiking_vgg_small", vgg, "image_size", bad, "image_size must be")
    model, small = make(num_classes=3), vgg(num_classes=3, image_size=(8, 8))
    for name, run in (("SEWResNet", model), ("SpikingVGG", small)):
        call = partial(run, timesteps=2)
        yield from inputs(f"{name}()", call, X.shape)
        yield f"{name}(): rank", partial(call, X[0]), "\\[B, H, W, C\\].*\\(8, 8, 1\\)"
        bad = partial(call, np.stack([X] * 3))
        yield f"{name}(): events", bad, "x has 3 time steps.*timesteps is 2"
        bad = partial(call, np.stack([X] * 3)[:0])
        yield f"{name}(): no step", bad, "x has 0 time steps"
        yield f"{name}(): no image", partial(call, X[:0]), "at least one image.*\\(0, 8"
        bad = (0, -1, 2.5, "4", None)
        yield from spoilt(
            f"{name}()", partial(run, X), "timesteps", bad, "timesteps mu"
        )
        yield from spoilt(
            f"{name}()", partial(call, X), "record", (4,), "record must be"
        )
        one = partial(jax.eval_shape, partial(call, train=False), X[:1])
        yield f"{name}(): one image", one, None
    bad = partial(small, X[:, :4], timesteps=2)
    yield "SpikingVGG(): size", bad, "images of \\(8, 8\\), got x of shape \\(2, 4"
    yield (
        "SpikingVGG(): synapses",
        partial(small.synapses, (9, 9)),
        "\\(8, 8\\).*\\(9, 9",
    )
    for bad in ((0, 8), 8, (8.5, 8), "ab"):
        says = f"image_size must be .*got {bad!r}".replace("(", ".").replace(")", ".")
        yield f"SEWResNet(): {bad!r}", partial(model.synapses, bad), says


def calibration_cases():
    """Quantizing a network that is there."""
    model = models.sew_resnet8(3, width=4, in_channels=1, rngs=RNGS)
    run, spec = partial(calibrate.quantize, model), QuantSpec(bits=2)
    yield "calibrate.quantize: no layer", partial(run, {"c1": spec}), "'c1' matches no"
    bad = partial(run, {"conv(": spec})
    yield "calibrate.quantize: pattern", bad, "'conv\\(' is not a regular expression"
    yield "calibrate.quantize: bits", partial(run, {"conv1": 4}), "a QuantSpec, got 4"
    yield "calibrate.quantize: a key", partial(run, {1: spec}), "pattern.*got 1"
    for bad in (None, spec, [spec]):
        says = "rules must be \\{pattern: QuantSpec\\}, got"
        yield f"calibrate.quantize: {type(bad)}", partial(run, bad), says
    bad = partial(run, {"conv1": spec}, membrane_site="pre")
    yield "calibrate.quantize: site", bad, "membrane_site .*got 'pre'"
    for name in ("quantize", "layer_bits", "describe", "memory_bits"):
        rest = {"quantize": ({},), "memory_bits": ({},)}.get(name, ())
        for bad in (None, "model", {}):
            call = partial(getattr(calibrate, name), bad, *rest)
            says = f"model must be an nnx.Module, got {bad!r}"
            yield f"calibrate.{name}: {bad!r}", call, says
    yield (
        "calibrate.memory_bits: neurons",
        partial(calibrate.memory_bits, model, {}),
        "missing: \\['",
    )
    again = partial(calibrate.reestimate_batchnorm, model)
    yield "reestimate_batchnorm: none", partial(again, []), "at least one batch"
    for bad, says in (("text", "dataset"), (None, "dataset"), (3, "dataset")):
        call = partial(again, bad)
        yield f"reestimate_batchnorm: {bad!r}", call, f"{says} must be .*got {bad!r}"
    bad = partial(again, [X], timesteps=0)
    yield "reestimate_batchnorm: T=0", bad, "timesteps must be at least 1, got 0"
    bad = partial(calibrate.reestimate_batchnorm, Small(), [X * np.nan])
    yield "reestimate_batchnorm: NaN", bad, "finite statistics, got NaN"
    yield (
        "reestimate_batchnorm: integers",
        partial(again, [X.astype(np.uint8)]),
        "x must be floating point, got uint8",
    )
