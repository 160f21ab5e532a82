"""Kernels scaled to their bounds: the same network, on levels that fit."""

import jax.numpy as jnp
import numpy as np
import pytest
from calibrated import Net, arrays, batches, counts, same
from flax import nnx

from snnjax import calibrate, examples, layers, neurons, train
from snnjax.layers.observe import observable_layers
from snnjax.quantize import QuantSpec

BOUNDS = {"narrow": 1.0, "wide": 10.0, "small": 0.05}
SMALLEST = 1e-6  # of the variances: less than the constant that BatchNorm adds


def with_statistics(**options):
    """A network whose BatchNorms have seen something."""
    model = Net(**options)
    for i, name in enumerate(("bn1", "bn2")):
        norm = getattr(model, name)
        if norm is not None:
            rng = np.random.default_rng(i)
            size = norm.mean.get_value().shape
            norm.mean.set_value(norm.mean.get_value() + rng.normal(0, 0.1, size))
            norm.var.set_value(norm.var.get_value() * rng.uniform(0.01, 2, size))
            norm.var.set_value(norm.var.get_value().at[0].set(SMALLEST))
    return model


def without_quantizers(model):
    copy = nnx.clone(model)
    for layer in observable_layers(copy).values():
        if getattr(layer, "quant", None) is not None:
            layer.quant = nnx.data(None)
    return copy


class Added(Net):
    """What the first convolution returns is added to what the second one gets."""

    def __call__(self, x, *, timesteps=4, train=None, record=None):
        h = jnp.broadcast_to(x, (timesteps, *x.shape))
        h = self.bn1(self.conv1(h, train=train) + 1, train=train)
        h = self.sn1(h)
        return self.fc(jnp.mean(h, axis=(2, 3))[..., :4], train=train), {}


class Pooled(Net):
    """The scale passes through the pooling."""

    def __call__(self, x, *, timesteps=4, train=None, record=None):
        h = self.conv1(jnp.broadcast_to(x, (timesteps, *x.shape)), train=train)
        h = h.reshape(*h.shape[:2], 3, 2, 3, 2, -1).max((3, 5))
        h = self.sn1(self.bn1(h, train=train))
        return self.fc(jnp.mean(h, axis=(2, 3))[..., :4], train=train), {}


@pytest.mark.slow
@pytest.mark.parametrize("norm", [True, False], ids=["BatchNorm", "threshold"])
@pytest.mark.parametrize("bound", BOUNDS)
def test_in_full_precision_nothing_changes(bound, norm):
    plain = with_statistics(norm=norm)
    spec = QuantSpec(bits=2, clip=BOUNDS[bound])
    model = calibrate.quantize(plain, {"conv.": spec})
    before = arrays(model)
    scaled = calibrate.scale_to_clip(model, batches())
    assert same(before, arrays(model))
    full = without_quantizers(scaled)
    for x in batches():
        np.testing.assert_allclose(full(x)[0], plain(x)[0], rtol=1e-4, atol=1e-5)
    for name, spikes in counts(plain, batches()).items():
        assert np.array_equal(counts(full, batches())[name], spikes), name


@pytest.mark.parametrize("grid", ["mid_rise", "mid_tread"])
@pytest.mark.parametrize("bound", BOUNDS)
def test_levels_are_those_of_the_best_bound_of_each_channel(bound, grid):
    """So a given bound quantizes as one that is chosen freely, channel by channel."""
    given = QuantSpec(bits=2, clip=BOUNDS[bound], grid=grid)
    free = QuantSpec(bits=2, clip="mse", per_channel=True, grid=grid)
    one = calibrate.scale_to_clip(
        calibrate.quantize(with_statistics(), {"conv.": given}), batches()
    )
    other = calibrate.quantize(with_statistics(), {"conv.": free})
    for name in ("conv1", "conv2"):
        a = np.asarray(getattr(one, name).quantized_kernel(train=False), np.float64)
        b = np.asarray(getattr(other, name).quantized_kernel(train=False), np.float64)
        best = np.abs(b).reshape(-1, b.shape[-1]).max(0)
        unit = np.abs(a).reshape(-1, a.shape[-1]).max(0)
        np.testing.assert_allclose(a / unit, b / best, atol=1e-6)
        assert (unit <= BOUNDS[bound] * (1 + 1e-6)).all()
    for x in batches():
        np.testing.assert_allclose(one(x)[0], other(x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pow2", [False, True])
def test_the_bound_is_the_one_in_use(pow2):
    """Also where the quantizer rounds it up, to a step that is a power of two."""
    spec = QuantSpec(bits=4, clip=1.0, pow2=pow2)
    model = calibrate.quantize(with_statistics(), {"conv.": spec})
    layer = calibrate.scale_to_clip(model, batches()).conv1
    kernel = np.asarray(layer.kernel.get_value(), np.float64)
    error = np.square(layer.quantized_kernel(train=False) - kernel).sum((0, 1, 2))
    free = QuantSpec(bits=4, clip="mse", per_channel=True)
    other = calibrate.quantize(with_statistics(), {"conv.": free}).conv1
    w = np.asarray(other.kernel.get_value(), np.float64)
    least = np.square(other.quantized_kernel(train=False) - w).sum((0, 1, 2))
    relative = error / np.square(kernel).sum((0, 1, 2))
    np.testing.assert_allclose(relative, least / np.square(w).sum((0, 1, 2)), rtol=1e-3)


def test_what_is_behind_must_see_the_kernel_alone():
    rules = {"conv1": QuantSpec(bits=2, clip=1.0)}
    with pytest.raises(ValueError, match="bn1 must see what conv1 returns"):
        calibrate.scale_to_clip(calibrate.quantize(Added(), rules), batches())
    plain = Pooled()
    scaled = calibrate.scale_to_clip(calibrate.quantize(plain, rules), batches())
    for x in batches():
        found = without_quantizers(scaled)(x)[0]
        np.testing.assert_allclose(found, plain(x)[0], rtol=1e-4, atol=1e-5)


def test_a_shared_kernel_is_refused():
    model = Net(channels=6)
    model.conv2 = layers.QuantConv(6, 6, kernel_size=3, padding=1, rngs=nnx.Rngs(1))
    model.bn2, model.fc = (
        layers.BatchNorm(6),
        layers.QuantLinear(6, 10, rngs=nnx.Rngs(1)),
    )
    model = calibrate.quantize(model, {"conv.": QuantSpec(bits=2, clip=1.0)})
    model.conv2.kernel = model.conv1.kernel
    images = [jnp.ones((2, 6, 6, 6))]
    with pytest.raises(ValueError, match="share its kernel"):
        calibrate.scale_to_clip(model, images)


@pytest.mark.parametrize("learn", ["v_threshold", "v_reset"])
def test_what_training_moves_takes_no_scale(learn):
    model = Net(norm=False, neuron=neurons.LIF(v_reset=-0.5))
    for name in ("sn1", "sn2"):
        spiking = layers.Spiking(neurons.LIF(v_reset=-0.5), learn=(learn,))
        setattr(model, name, spiking)
    model = calibrate.quantize(model, {"conv.": QuantSpec(bits=2, clip=1.0)})
    with pytest.raises(ValueError, match="rest at 0"):
        calibrate.scale_to_clip(model, batches())


def test_a_channel_of_zeros_and_the_last_layer_stay():
    model = Net()
    kernel = model.conv1.kernel.get_value().at[..., 2].set(0)
    model.conv1.kernel.set_value(kernel)
    quantized = calibrate.quantize(model, {"conv.|fc": QuantSpec(bits=3, clip=1.0)})
    scaled = calibrate.scale_to_clip(quantized, batches())
    assert all(np.isfinite(x).all() for x in arrays(scaled))
    assert not np.any(scaled.conv1.kernel.get_value()[..., 2])
    assert np.array_equal(scaled.fc.kernel.get_value(), model.fc.kernel.get_value())


def test_errors_say_what_is_missing():
    with pytest.raises(ValueError, match="no kernel with a quantizer"):
        calibrate.scale_to_clip(Net(), batches())
    model = Net()
    model.conv2.quant = nnx.data(
        layers.Hyperparameters(QuantSpec(bits=2, clip="absmax"))
    )
    with pytest.raises(ValueError, match="follows the weights"):
        calibrate.scale_to_clip(model, batches())
    for rules, words in (
        ({"conv2": QuantSpec("lq_net", bits=2)}, "method 'lq_net'"),
        ({"conv2": QuantSpec(bits=2, group_size=9)}, "for each group"),
        ({"fc": QuantSpec(bits=2, clip=1.0)}, "choose_clip"),
    ):
        with pytest.raises(ValueError, match=words):
            calibrate.scale_to_clip(calibrate.quantize(Net(), rules), batches())
    for options in ({"v_reset": 0.25}, {"v_min": -0.5}):
        model = Net(norm=False, neuron=neurons.LIF(**options))
        model = calibrate.quantize(model, {"conv.": QuantSpec(bits=2, clip=1.0)})
        with pytest.raises(ValueError, match="rest at 0"):
            calibrate.scale_to_clip(model, batches())


@pytest.mark.slow
def test_a_grid_that_kills_a_network_does_not_when_its_kernels_are_scaled():
    model, digits, test = examples.digits()
    rules = {r"layer.*(conv\d|downsample\.0)": QuantSpec(bits=2, clip=10.0)}
    plain = calibrate.quantize(model, rules)
    accuracies = [
        train.evaluate(calibrate.reestimate_batchnorm(x, digits), test).accuracy
        for x in (plain, calibrate.scale_to_clip(plain, digits))
    ]
    assert accuracies[0] < 0.5
    assert accuracies[1] > 0.9
