import jax.numpy as jnp
import numpy as np
import pytest
from calibrated import Net, arrays, batches, same
from flax import nnx

from snnjax import calibrate, layers, models, neurons
from snnjax.calibrate.compensate import quadratic_error
from snnjax.calibrate.layerwise import find_units
from snnjax.calibrate.osbc import compute_hessians
from snnjax.quantize import QuantSpec

SPECS = {
    "mid-rise": QuantSpec(bits=2, clip=0.5, grid="mid_rise"),
    "mid-tread": QuantSpec(bits=2, clip="mse"),
    "per channel": QuantSpec(bits=3, per_channel=True),
    "groups": QuantSpec(bits=3, group_size=9),
    "lsq": QuantSpec("lsq", bits=3),
    "lq_net": QuantSpec("lq_net", bits=2),
}
QUICK = ("mid-rise", "lq_net")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.nightly] * (name != "mid-rise"))
        for name in SPECS
    ],
)
def test_levels_of_least_error_in_its_own_objective(name):
    model = calibrate.quantize(Net(), {"conv.|fc": SPECS[name]})
    before, images = arrays(model), batches()
    found = calibrate.osbc(model, images, batchnorm=False)
    assert same(before, arrays(model))
    better = 0
    for unit in find_units(model, images[0], 4):
        layer, plain = getattr(found, unit.weights), getattr(model, unit.weights)
        kernel = np.asarray(layer.kernel.get_value())
        # What is kept are levels: the quantizer leaves them (LSQ's to rounding).
        again = layer.quantized_kernel(train=False)
        np.testing.assert_allclose(again, kernel, atol=1e-7)
        # The layers before are rounded already: their spikes are those it saw.
        [hessian] = compute_hessians(found, unit, images, 4)
        columns = lambda x: np.asarray(x, np.float64).reshape(-1, x.shape[-1])  # noqa: E731
        w = columns(plain.kernel.get_value())
        error, rounding = (
            quadratic_error(columns(x.quantized_kernel(train=False)), w, hessian)
            for x in (layer, plain)
        )
        assert (error <= rounding * (1 + 1e-6) + 1e-9).all()
        better += np.sum(error < 0.9 * rounding)
    assert better > 3


class Two(nnx.Module):
    """Neurons, and a convolution that sees their spikes."""

    def __init__(self, options):
        axes = len(options["kernel_size"])
        size = {"kernel_size": (1,) * axes, "rngs": nnx.Rngs(0)}
        self.conv1 = layers.QuantConv(1, 4, **size)
        self.sn1 = layers.Spiking(neurons.LIF(v_threshold=0.2))
        self.conv2 = layers.QuantConv(4, 4, rngs=nnx.Rngs(1), **options)
        self.sn2 = layers.Spiking(neurons.LIF())

    def __call__(self, x, *, timesteps=4):
        return self.sn2(self.conv2(self.fire(x, timesteps)))

    def fire(self, x, timesteps=4):
        """Return the spikes that the second convolution sees."""
        return self.sn1(self.conv1(jnp.broadcast_to(x, (timesteps, *x.shape))))


@pytest.mark.parametrize(
    "options",
    [
        dict(kernel_size=(3, 3), padding=1),
        dict(kernel_size=(3, 2), padding=(1, 0), strides=(2, 1), dilation=(1, 2)),
        dict(kernel_size=(3, 3), padding=2, dilation=2, groups=2),
        dict(kernel_size=(3,), padding=1, strides=2),
        dict(kernel_size=(2,), dilation=3, groups=4),
    ],
)
def test_the_second_moment_is_that_of_leak_filtered_inputs(options):
    """Of outputs of filtered inputs: by the layer's own convolution."""
    model, axes = Two(options), len(options["kernel_size"])
    shape = (3, *(6,) * axes, 1)
    images = jnp.asarray(np.random.default_rng(0).random(shape), jnp.float32)
    unit = find_units(model, images, 4)[1]
    found = compute_hessians(model, unit, [images], 4)
    filtered, h = [], 0.0
    for x in model.fire(images):
        h = h / 2 + x
        filtered.append(h)
    assert 0 < np.mean(filtered) < 1
    outputs = np.asarray(model.conv2(jnp.stack(filtered)), np.float64).reshape(-1, 4)
    kernel = np.asarray(model.conv2.kernel.get_value(), np.float64).reshape(-1, 4)
    for own, hessian in zip(np.split(np.arange(4), len(found)), found, strict=True):
        w, y = kernel[:, own], outputs[:, own]
        np.testing.assert_allclose(w.T @ hessian @ w, y.T @ y / len(y), rtol=1e-4)


def test_errors_name_what_is_missing():
    with pytest.raises(ValueError, match="quantizer"):
        calibrate.osbc(Net(), batches())
    dorefa = calibrate.quantize(Net(), {"conv2": QuantSpec("dorefa", bits=2)})
    with pytest.raises(ValueError, match="dorefa"):
        calibrate.osbc(dorefa, batches())
    model = calibrate.quantize(Net(), {"conv2": QuantSpec(bits=2)})
    with pytest.raises(ValueError, match="one shape"):
        calibrate.osbc(model, [*batches(1, 4), *batches(1, 3)])
    with pytest.raises(ValueError, match="damping"):
        calibrate.osbc(model, batches(), damping=0.0)


def test_units_of_a_residual_network_run_in_order():
    model = models.sew_resnet8(width=2, in_channels=1, rngs=nnx.Rngs(0))
    units = find_units(model, np.zeros((1, 8, 8, 1), np.float32), 2)
    names = [unit.weights for unit in units]
    assert names[:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    assert tuple(units[-2]) == (
        "layer3.0.downsample.0",
        "layer3.0.downsample.1",
        "layer3.0.downsample_sn",
    )
    assert tuple(units[-1]) == ("fc", None, None)
