import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import calibrate, data, firing, layers, models, neurons, report, train
from snnjax.layers import BatchNorm
from snnjax.quantize import QuantSpec
from snnjax.report import attribution

SPEC = QuantSpec(bits=8, clip=2.0)


def network():
    model = models.sew_resnet8(3, width=4, in_channels=1, rngs=nnx.Rngs(0))
    model = calibrate.reestimate_batchnorm(model, images(), timesteps=2)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm):  # untrained layers are next to silent
            module.bias[...] = jnp.full_like(module.bias[...], 0.8)
    return model


def images(number=32):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (number, 8, 8, 1)).astype(np.uint8)
    return data.from_arrays(pixels, rng.integers(0, 3, number), num_classes=3)


def test_batchnorm_goes_with_the_layer_in_front():
    units = attribution._find_units(network(), images(), 2)
    assert units["conv1"] == ["conv1", "bn1"]
    assert units["layer1.0.conv2"] == ["layer1.0.conv2", "layer1.0.bn2"]
    pair = ["layer2.0.downsample.0", "layer2.0.downsample.1"]
    assert units["layer2.0.downsample.0"] == pair
    assert units["layer1.0.sn1"] == ["layer1.0.sn1"]


def test_batchnorm_is_found_by_its_place_and_not_by_its_name():
    rngs = nnx.Rngs(0)
    parts = {
        "first": layers.BatchNorm(1),
        "conv1": layers.QuantConv(1, 4, kernel_size=3, padding=1, rngs=rngs),
        "norm1": layers.BatchNorm(4),
        "sn1": layers.Spiking(neurons.LIF()),
        "flatten": layers.Flatten(),
        "fc": layers.QuantLinear(256, 3, rngs=rngs),
    }
    model = models.Sequential(parts, in_shape=(8, 8, 1))
    units = attribution._find_units(model, images(), 2)
    assert units == {
        "conv1": ["conv1", "norm1"],
        "sn1": ["sn1"],
        "fc": ["fc"],
        "first": ["first"],
    }


@pytest.mark.nightly
@pytest.mark.parametrize("tries", [20])
def test_a_damaged_layer_is_named_in_all_tries(tries):
    model, dataset = network(), images()
    quantized = calibrate.quantize(model, {r"layer.*conv\d": SPEC})
    units = attribution._find_units(model, dataset, 2)
    kernels = [n for n in units if n.startswith("layer") and "conv" in n]
    for seed in range(tries):
        rng = np.random.default_rng(seed)
        target = kernels[seed % len(kernels)]
        damaged = nnx.clone(quantized)
        layer = attribution._follow(damaged, target.split("."))
        kernel = np.asarray(layer.kernel[...])
        layer.kernel[...] = jnp.asarray(rng.permutation(kernel.ravel())).reshape(
            kernel.shape
        )
        found = report.attribute(model, damaged, dataset, timesteps=2)
        assert next(iter(found.isolated)) == target, found.isolated
        assert next(iter(found.recovered)) == target


@pytest.mark.slow
def test_one_layer_makes_all_the_drift_of_a_network():
    model, dataset = network(), images()
    quantized = calibrate.quantize(
        model, {r"layer1\.0\.conv1": QuantSpec(bits=2, clip=1.0)}
    )
    found = report.attribute(model, quantized, dataset, timesteps=2)
    (name,) = found.contributions
    assert name == "layer1.0.conv1"
    counts = [
        train.evaluate(each, dataset, timesteps=2).counts for each in (model, quantized)
    ]
    whole = firing.report(*counts)
    assert found.accumulated == whole == found.contributions[name].alone
    assert whole.emd_mean > 0
    assert set(found.contributions[name].all_but.paired_shift.values()) == {0.0}
    most = max(whole.paired_shift.values())
    assert found.isolated == found.recovered == {name: most}
    with pytest.raises(ValueError, match="differ"):
        report.attribute(model, model, dataset)
