"""The twin fires as the fake-quantized network does, computed in float64."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import twins
from cifar import data_dir
from flax import nnx

from snnjax import calibrate, data, integer, layers, models, neurons
from snnjax.quantize import QuantSpec

SIZE = (8, 8)
FOUR = QuantSpec(bits=4, clip="absmax")
UNSIGNED = QuantSpec(bits=4, clip=1.0, signed=False)
VGG = dict(stages=((1, 1), (2, 2)), image_size=SIZE)

# Name, class, options.
QUICK = [
    (
        "uniform",
        models.SEWResNet,
        dict(blocks=(1,), weight_quant=FOUR, membrane_quant=UNSIGNED),
    ),
    pytest.param(
        "lq_net from pixels",
        models.SpikingVGG,
        VGG | dict(weight_quant=QuantSpec("lq_net", bits=2), quantize_all=True),
        marks=pytest.mark.slow,
    ),
]
WEIGHTS = {
    "mid-rise": QuantSpec(bits=3, clip="absmax", grid="mid_rise"),
    "power of 2": QuantSpec(bits=3, clip="absmax", pow2=True),
    "1 bit": QuantSpec(bits=1, clip="mse"),
    "8 bits": QuantSpec(bits=8, clip="absmax"),
    "per channel": QuantSpec(bits=4, per_channel=True),
    "per group": QuantSpec(bits=4, group_size=4),
    "lq_net": QuantSpec("lq_net", bits=3),
    "lsq": QuantSpec("lsq", bits=4),
    "mint": QuantSpec("mint", bits=4),
    "dorefa": QuantSpec("dorefa", bits=4),
    "dorefa, 1 bit": QuantSpec("dorefa", bits=1),
    "lq_net, codes 0 and 1": QuantSpec("lq_net", bits=2, codes=(0, 1)),
    "binary": QuantSpec("binary", per_channel=True),
    "ternary": QuantSpec("ternary", per_channel=True, pow2=True),
    "powers of two": QuantSpec("power_of_two", bits=4, per_channel=True),
}
MEMBRANES = {
    "signed": dict(membrane_quant=QuantSpec(bits=2, clip=1.0)),
    "mid-rise": dict(membrane_quant=QuantSpec(bits=3, clip=1.0, grid="mid_rise")),
    "lsq": dict(membrane_quant=QuantSpec("lsq", bits=4, clip=1.0)),
    "zero point": dict(
        membrane_quant=QuantSpec("lsq", bits=2, clip=1.0, zero_point=True)
    ),
    "before firing": dict(
        membrane_quant=QuantSpec(bits=4, clip=2.0, pow2=True),
        membrane_site="pre_fire",
    ),
    "clip at the threshold": dict(
        membrane_quant=QuantSpec(bits=4, clip=1.0), membrane_site="pre_fire"
    ),
}
NEURONS = {
    "if": neurons.IF(),
    "soft if": neurons.IF(v_reset=None),
    "soft, not decayed": neurons.LIF(
        tau=4.0, v_reset=None, decay_input=False, v_threshold=1.5
    ),
    "rest": neurons.LIF(v_reset=-0.25),
    "plif": neurons.PLIF(tau=1.7),
}
OTHERS = {
    "iand": (models.sew_resnet8, dict(connect="iand", quantize_all=True)),
    "and": (models.sew_resnet8, dict(connect="and", quantize_all=True)),
    "max-pooling stem": (models.sew_resnet8, dict(stem="imagenet", quantize_all=True)),
    "bottleneck": (
        models.SEWResNet,
        dict(blocks=(1, 1), connect="iand", block=models.sew_resnet.Bottleneck),
    ),
    "three blocks": (models.SEWResNet, dict(blocks=(3,))),
    "vgg": (models.SpikingVGG, VGG),
}
EVERY = [
    *((n, models.sew_resnet8, dict(weight_quant=s)) for n, s in WEIGHTS.items()),
    *(
        (f"{n}, all", models.sew_resnet8, dict(weight_quant=s, quantize_all=True))
        for n, s in WEIGHTS.items()
    ),
    *(
        (f"membrane {n}", models.sew_resnet8, o | dict(weight_quant=FOUR))
        for n, o in MEMBRANES.items()
    ),
    *(
        (f"neuron {n}", models.sew_resnet8, dict(neuron=o, weight_quant=FOUR))
        for n, o in NEURONS.items()
    ),
    *((n, cls, o | dict(weight_quant=FOUR)) for n, (cls, o) in OTHERS.items()),
]
# One of each kind is slow, the others are nightly: each takes 10 s.
SLOW = {"vgg"}


def check(make_model, options, limit, most=0.0):
    """Compare numpy, JAX and float64; return the share of differing spikes."""
    model = twins.make(make_model, **options)
    images, mean, std = twins.digits(limit)
    twin = integer.from_model(model, image_size=SIZE, mean=mean, std=std)
    by_jax, by_numpy = twin.run(images), twin.run_numpy(images)
    np.testing.assert_array_equal(by_jax.logits, by_numpy.logits)
    assert by_jax.spikes.keys() == by_numpy.spikes.keys()
    for name, spikes in by_numpy.spikes.items():
        np.testing.assert_array_equal(np.asarray(by_jax.spikes[name]), spikes)
        assert spikes.dtype.kind == "i"
    found = integer.count_differences(twin, model, images)
    assert found.keys() == by_numpy.spikes.keys()
    for name, layer in found.items():
        assert layer.fired > 0.02 * layer.size, name
        assert layer.size == by_numpy.spikes[name].size
    differing = sum(layer.differing for layer in found.values())
    assert differing <= most * sum(layer.size for layer in found.values())
    return model, twin, by_numpy


@pytest.mark.parametrize(("name", "make_model", "options"), QUICK)
def test_spikes_equal(name, make_model, options):
    model, twin, found = check(make_model, options, 16)
    images, mean, std = twins.digits(16)
    floats = data.normalize(images, mean, std)
    logits, _ = model(floats)
    scaled = np.asarray(found.logits) * found.logit_scale
    np.testing.assert_allclose(scaled, logits, atol=1e-5)
    # What the model takes gives the same as its pixels.
    if twin.border.name == "input":
        assert found.logits.dtype == np.int32
        again = twin.encode_input(np.asarray(floats))
        np.testing.assert_array_equal(again, twin.encode_input(images))


@pytest.mark.parametrize(
    ("name", "make_model", "options"),
    [
        pytest.param(
            *case, marks=pytest.mark.slow if case[0] in SLOW else pytest.mark.nightly
        )
        for case in EVERY
    ],
)
def test_all_test_digits(name, make_model, options):
    # tanh of float32 may round to another code than that of float64.
    loose = "dorefa" in name or "mint" in name or name == "neuron plif"
    # Levels of a layer that sees pixels have some 18 bits, so that sums fit in 32.
    loose |= "lq_net" in name and name.endswith("all")
    check(make_model, options, None, most=1e-4 if loose else 0.0)


@pytest.mark.nightly
@pytest.mark.usefixtures("x64")
def test_ties_are_equal_where_all_scales_are_powers_of_2():
    spec = QuantSpec(bits=3, clip=0.5, pow2=True)
    membrane = QuantSpec(bits=4, clip=1.0, signed=False, pow2=True)
    options = dict(weight_quant=spec, membrane_quant=membrane, quantize_all=True)
    options |= dict(blocks=(1,), param_dtype=jnp.float64)
    model = twins.round_scales(twins.make(models.SEWResNet, **options))
    images = np.random.default_rng(0).integers(0, 256, (16, *SIZE, 1), np.uint8)
    twin = integer.from_model(model, image_size=SIZE, std=2.0, full_scale=64.0)
    found = integer.count_differences(twin, model, images)
    assert not any(layer.differing for layer in found.values())
    assert all(layer.fired > 0.02 * layer.size for layer in found.values())


@pytest.mark.nightly
@pytest.mark.parametrize("everything", [False, True])
def test_images_of_cifar(everything):
    test = data.load("cifar10", "test", data_dir=data_dir("cifar10"), limit=1000)
    options = dict(in_channels=3, width=8, quantize_all=everything, weight_quant=FOUR)
    model = twins.make(membrane_quant=UNSIGNED, **options)
    twin = integer.from_model(model, mean=test.mean, std=test.std)
    found = integer.count_differences(twin, model, test.images)
    assert all(layer.fired > 0.02 * layer.size for layer in found.values())
    size = sum(layer.size for layer in found.values())
    assert sum(layer.differing for layer in found.values()) <= 1e-4 * size
    some = test.images[:20]
    spikes = twin.run(some).spikes
    for name, train in twin.run_numpy(some).spikes.items():
        np.testing.assert_array_equal(np.asarray(spikes[name]), train)


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        (dict(), {}, "conv1 is in full precision"),
        (dict(weight_quant=FOUR), dict(membrane_bits=31), "membrane_bits"),
        (dict(weight_quant=FOUR), dict(std=0.0), "std"),
        (dict(weight_quant=FOUR), dict(timesteps=0), "timesteps"),
        (
            dict(weight_quant=FOUR, membrane_quant=QuantSpec("mint", bits=4)),
            {},
            "multiples of a step",
        ),
        (dict(weight_quant=QuantSpec(bits=16, clip="absmax")), {}, None),
    ],
)
def test_arguments(options, arguments, message):
    model = twins.make(models.SEWResNet, blocks=(1,), **options)
    if message is None:
        integer.from_model(model, image_size=SIZE, **arguments)
        return
    with pytest.raises(ValueError, match=message):
        integer.from_model(model, image_size=SIZE, **arguments)


@pytest.mark.parametrize("number", ["v_threshold", "tau"])
def test_numbers_of_each_row_are_not_of_each_channel(number):
    """Though there are as many rows as channels."""
    rows = np.linspace(1.5, 3, 8).astype(np.float32).reshape(8, 1, 1)
    neuron = neurons.LIF(**{number: rows})
    rngs = nnx.Rngs(0)
    parts = {
        "conv": layers.QuantConv(1, 8, kernel_size=1, quant=FOUR, rngs=rngs),
        "sn": layers.Spiking(neuron),
        "flatten": layers.Flatten(),
        "fc": layers.QuantLinear(8 * 8 * 6, 3, rngs=rngs),
    }
    model = models.Sequential(parts, in_shape=(8, 6, 1))
    with pytest.raises(ValueError, match="one number or one a channel"):
        integer.from_model(model)


def test_bounds_of_each_channel_have_no_twin():
    bounds = QuantSpec(bits=4, clip=np.ones(4, np.float32))
    model = twins.make(models.SEWResNet, blocks=(1,), weight_quant=FOUR, width=4)
    model.layer1[0].sn1.quantize(bounds)
    with pytest.raises(ValueError, match="a clip for each channel"):
        integer.from_model(model, image_size=SIZE)
    with pytest.raises(ValueError, match="mean must be one number or one of each"):
        integer.from_model(model, image_size=SIZE, mean=np.zeros(3))


@pytest.mark.slow
def test_the_model_is_unchanged_and_mixed_rules_work():
    plain = twins.make(models.SEWResNet, blocks=(1, 1))
    rules = {
        r"layer1.*conv\d": QuantSpec(bits=3, clip="mse"),
        r"layer2.*(conv\d|downsample\.0)": QuantSpec("lq_net", bits=2),
        r"layer2.*sn\d": QuantSpec(bits=6, clip=2.0),
    }
    model = calibrate.quantize(plain, rules)
    twin = integer.from_model(model, image_size=SIZE)
    assert twin.layers()["layer1.0.sn1"].weight_bits == 3
    assert twin.layers()["layer2.0.sn1"].table.shape == (4, 8)
    codes, _ = model.layer1[0].conv1.encode()
    signs = np.where(np.asarray(model.layer1[0].bn1.scale.get_value()) < 0, -1, 1)
    np.testing.assert_array_equal(twin.layers()["layer1.0.sn1"].codes, codes * signs)
    images = np.random.default_rng(0).normal(size=(4, *SIZE, 1))
    found = integer.count_differences(twin, model, images)
    assert not any(layer.differing for layer in found.values())


@pytest.mark.slow
def test_inputs_at_the_border():
    model = twins.make(
        models.SEWResNet, blocks=(1,), weight_quant=FOUR, quantize_all=True
    )
    twin = integer.from_model(model, image_size=SIZE, mean=0.5, std=0.25)
    with pytest.raises(ValueError, match="mean and std"):
        twin.run_numpy(np.full((1, *SIZE, 1), 9.0))
    with pytest.raises(ValueError, match="channels"):
        twin.run_numpy(np.zeros((1, *SIZE, 3), np.uint8))
    with pytest.raises(ValueError, match="image_size"):
        twin.run_numpy(np.zeros((1, 16, 16, 1), np.uint8))
    with pytest.raises(ValueError, match="time"):
        twin.run_numpy(np.zeros((2, 1, *SIZE, 1), np.uint8))
    with pytest.raises(ValueError, match="finite"):
        twin.run_numpy(np.full((1, *SIZE, 1), np.nan))
    vgg = integer.from_model(twins.make(models.SpikingVGG, weight_quant=FOUR, **VGG))
    with pytest.raises(ValueError, match="image size"):
        vgg.run_numpy(np.zeros((1, 16, 16, 1)))


@pytest.mark.nightly
@pytest.mark.parametrize("in_shape", [(8, 8, 1), (16,)])
@pytest.mark.parametrize("everything", [False, True])
def test_layers_of_ones_own(in_shape, everything):
    model = twins.make_sequential(neurons.LIF(v_threshold=0.8), FOUR, in_shape)
    if not everything:
        ends = "(conv1|fc)" if len(in_shape) == 3 else "(fc1|fc)"
        model = calibrate.quantize(model, {ends: QuantSpec("none")})
    twin = integer.from_model(model)
    x = np.random.default_rng(0).uniform(0, 1, (20, *in_shape)).astype(np.float32)
    found = integer.count_differences(twin, model, x)
    assert not any(layer.differing for layer in found.values())
    assert all(layer.fired > 0.02 * layer.size for layer in found.values())
    by_numpy, (logits, spikes) = twin.run_numpy(x), model(x)
    assert {k: s.shape for k, s in by_numpy.spikes.items()} == {
        k: s.shape for k, s in spikes.items()
    }
    scaled = np.asarray(by_numpy.logits) * by_numpy.logit_scale
    np.testing.assert_allclose(scaled, logits, atol=1e-4)


def test_layers_without_a_twin_are_refused():
    model = twins.make_sequential(neurons.CubaLIF(), FOUR)
    with pytest.raises(ValueError, match="neurons of sn1"):
        integer.from_model(model)
    model = twins.make_sequential(neurons.LIF(v_min=-1.0), FOUR)
    with pytest.raises(ValueError, match="v_min"):
        integer.from_model(model)


@pytest.mark.parametrize(
    ("options", "in_shape"),
    [
        ({"kernel_size": 3, "padding": 2, "dilation": 2}, (8, 8, 1)),
        pytest.param(
            {"kernel_size": (3,), "padding": 1}, (8, 1), marks=pytest.mark.slow
        ),
    ],
    ids=["dilated", "one axis"],
)
def test_convolutions_without_a_twin_are_refused(options, in_shape):
    rngs = nnx.Rngs(0)
    parts = {
        "conv1": layers.QuantConv(1, 4, **options, quant=FOUR, rngs=rngs),
        "sn1": layers.Spiking(neurons.LIF()),
        "flatten": layers.Flatten(),
        "fc": layers.QuantLinear(4 * math.prod(in_shape), 5, quant=FOUR, rngs=rngs),
    }
    model = models.Sequential(parts, in_shape=in_shape)
    assert model(np.ones((2, *in_shape), np.float32))[0].shape == (4, 2, 5)
    with pytest.raises(ValueError, match="conv1 must be a convolution of two axes"):
        integer.from_model(model)


@pytest.mark.slow
def test_images_of_unknown_normalisation():
    model = twins.make(
        models.SEWResNet, blocks=(1,), weight_quant=FOUR, quantize_all=True
    )
    twin = integer.from_model(model, image_size=SIZE)
    images = np.random.default_rng(0).normal(size=(16, *SIZE, 1))
    found = integer.count_differences(twin, model, images)
    size = sum(layer.size for layer in found.values())
    assert sum(layer.differing for layer in found.values()) <= 1e-4 * size
    with pytest.raises(ValueError, match="mean and std"):
        twin.encode_input(images + 20)


@pytest.mark.slow
def test_sequences_and_other_numbers_of_steps():
    model = twins.make(
        models.SEWResNet, blocks=(1,), weight_quant=FOUR, quantize_all=True
    )
    twin = integer.from_model(model, image_size=SIZE, full_scale=1.0)
    events = np.random.default_rng(0).integers(0, 3, (10, 2, *SIZE, 1))
    found = integer.count_differences(twin, model, events[:, 0], timesteps=3)
    assert not any(layer.differing for layer in found.values())
    by_jax, by_numpy = (run(events, timesteps=10) for run in (twin.run, twin.run_numpy))
    _, spikes = model(events.astype(np.float32), timesteps=10)
    for name, train in by_numpy.spikes.items():
        np.testing.assert_array_equal(np.asarray(by_jax.spikes[name]), train)
        np.testing.assert_array_equal(np.asarray(spikes[name]), train)


EIGHT = QuantSpec(bits=8, clip="absmax")


def fire(threshold=0.2):
    return layers.Spiking(neurons.LIF(v_threshold=threshold))


def linear(inputs, outputs, quant=EIGHT):
    return layers.QuantLinear(inputs, outputs, quant=quant, rngs=nnx.Rngs(inputs))


def conv(inputs, outputs, kernel=3, quant=EIGHT):
    rngs, padding = nnx.Rngs(outputs), kernel // 2
    return layers.QuantConv(
        inputs, outputs, kernel_size=kernel, padding=padding, quant=quant, rngs=rngs
    )


OTHER_ENDS = {
    "flatten first": {
        "flatten": layers.Flatten(),
        "fc1": linear(64, 12),
        "sn1": fire(),
        "fc": linear(12, 3),
    },
    "pool first": {
        "pool": layers.AvgPool(2),
        "conv": conv(1, 4),
        "sn1": fire(),
        "flatten": layers.Flatten(),
        "fc": linear(64, 3),
    },
    "linear at each position": {
        "conv": conv(1, 3),
        "sn1": fire(),
        "each": linear(3, 5),
        "sn2": fire(0.1),
        "flatten": layers.Flatten(),
        "fc": linear(320, 3),
    },
    "BatchNorm behind floats": {
        "conv": conv(1, 4),
        "sn1": fire(),
        "flatten": layers.Flatten(),
        "fc": linear(256, 3, None),
        "norm": layers.BatchNorm(3),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_ENDS)
def test_networks_of_other_ends(name, tmp_path):
    model = models.Sequential(OTHER_ENDS[name], in_shape=(8, 8, 1))
    if hasattr(model, "norm"):
        model.norm.scale.set_value(jnp.array([1.0, -2.0, 3.0]))
        model.norm.bias.set_value(jnp.arange(3.0))
    twin = integer.from_model(model, mean=[0.5], std=[0.25])
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    x = (pixels / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    logits, spikes = model(x)
    twin.save(tmp_path / "twin.npz")
    for each in (twin, integer.load(tmp_path / "twin.npz")):
        found = each.run(pixels)
        assert found.spikes.keys() == spikes.keys()
        for layer, train in spikes.items():
            assert 0.02 < train.mean() < 0.98, layer
            differing = np.asarray(found.spikes[layer]) != np.asarray(train)
            assert differing.mean() < 1e-3
        scaled = np.asarray(found.logits, np.float64) * found.logit_scale
        np.testing.assert_allclose(scaled, logits, atol=1e-2)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"fc": linear(256, 3), "norm": layers.BatchNorm(3)}, "norm scales each logit"),
        ({"fc": linear(256, 3), "out": fire()}, "must end in a layer of logits"),
        ({"fc": linear(256, 3, None), "out": fire()}, "must end in a layer of logits"),
        ({}, "must end in a layer of logits"),
    ],
)
def test_ends_that_have_no_whole_logits_are_refused(more, message):
    parts = {"conv": conv(1, 4), "sn1": fire(), "flatten": layers.Flatten()} | more
    with pytest.raises(ValueError, match=message):
        integer.from_model(models.Sequential(parts, in_shape=(8, 8, 1)))


def test_a_first_layer_of_floats_sees_the_image():
    parts = {"flatten": layers.Flatten(), "fc1": linear(64, 12, None), "sn1": fire()}
    parts |= {"fc": linear(12, 3)}
    with pytest.raises(ValueError, match="fc1 is in full precision"):
        integer.from_model(models.Sequential(parts, in_shape=(8, 8, 1)))
