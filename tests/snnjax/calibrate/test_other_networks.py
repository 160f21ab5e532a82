"""Calibration of networks in which something lies between a layer and its neurons."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import calibrate, layers, models, neurons
from snnjax.calibrate.layerwise import find_units
from snnjax.calibrate.osbc import compute_hessians
from snnjax.quantize import QuantSpec

T = 4


def sequential(in_shape, **parts):
    return models.Sequential(parts, in_shape=in_shape)


def pooled(pool, seed=3):
    """A convolution, pooling, and neurons behind it."""
    rngs = nnx.Rngs(seed)
    conv = layers.QuantConv(1, 3, kernel_size=3, padding=1, use_bias=True, rngs=rngs)
    conv.kernel.set_value(2 * conv.kernel.get_value())
    parts = {"conv1": conv} | ({"pool": pool} if pool else {})
    parts |= {"sn1": layers.Spiking(neurons.LIF()), "flatten": layers.Flatten()}
    fc = layers.QuantLinear(27 if pool else 108, 3, rngs=rngs)
    return sequential((6, 6, 1), **parts, fc=fc)


def draw(*shape, seed=3):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("calibration", [calibrate.correct_bias, calibrate.fire_match])
def test_sums_between_a_layer_and_its_neurons_are_refused(calibration):
    """An offset would arrive four times."""
    model = pooled(layers.SumPool(2))
    quantized = calibrate.quantize(model, {"conv1": QuantSpec(bits=2, clip="mse")})
    with pytest.raises(ValueError, match="sn1 must see what conv1 returns"):
        calibration(quantized, model, [draw(8, 6, 6, 1)])


def test_means_and_maxima_between_them_are_corrected():
    x = draw(8, 6, 6, 1)
    for pool in (layers.AvgPool(2), layers.MaxPool(2)):
        model = pooled(pool)
        quantized = calibrate.quantize(model, {"conv1": QuantSpec(bits=2, clip="mse")})
        found = calibrate.correct_bias(quantized, model, [x])
        means = [np.mean(pool(m.conv1(x)), (0, 1, 2)) for m in (found, model)]
        np.testing.assert_allclose(*means, atol=1e-6)


def test_the_bound_for_a_still_image_is_that_for_frames():
    model = pooled(None)
    quantized = calibrate.quantize(model, {"conv1": QuantSpec(bits=3, clip=5.0)})
    x = jax.random.uniform(jax.random.key(1), (16, 6, 6, 1)) * 2
    still, frames = (
        calibrate.choose_clip(quantized, model, [data]).conv1.quant.get_value().clip
        for data in (x, jnp.stack([x] * T))
    )
    assert float(still) == float(frames)


def test_no_bound_by_firing_behind_pooling():
    model = pooled(layers.MaxPool(2))
    quantized = calibrate.quantize(model, {"conv1": QuantSpec(bits=3, clip=1.0)})
    with pytest.raises(ValueError, match=r'sn1 must see.*choose by="mse"'):
        calibrate.choose_clip(quantized, model, [draw(8, 6, 6, 1)])
    calibrate.choose_clip(quantized, model, [draw(8, 6, 6, 1)], by="mse")


def test_a_batchnorm_behind_the_last_layer_is_corrected():
    rngs, x = nnx.Rngs(0), draw(64, 6)
    model = sequential(
        (6,),
        fc1=layers.QuantLinear(6, 8, rngs=rngs),
        sn1=layers.Spiking(neurons.LIF(v_threshold=0.3)),
        fc=layers.QuantLinear(8, 3, rngs=rngs),
        norm=layers.BatchNorm(3),
    )
    model = calibrate.reestimate_batchnorm(model, [x])
    quantized = calibrate.quantize(model, {"fc": QuantSpec(bits=2, clip=0.5)})
    found = calibrate.correct_bias(quantized, model, [x])
    means = [np.mean(m(x)[0], (0, 1)) for m in (quantized, found, model)]
    assert np.abs(means[0] - means[2]).max() > 0.1
    np.testing.assert_allclose(means[1], means[2], atol=1e-5)


class Head(nnx.Module):
    """A convolution whose still output no neurons see."""

    def __init__(self, padding):
        rngs = nnx.Rngs(0)
        options = dict(kernel_size=(3,), use_bias=True, rngs=rngs)
        self.conv1 = layers.QuantConv(2, 5, padding=1, **options)
        self.sn1 = layers.Spiking(neurons.LIF(v_threshold=0.3))
        self.conv2 = layers.QuantConv(5, 3, padding=padding, spikes=True, **options)
        self.eval()

    def __call__(self, x, *, timesteps=T, train=None):
        still = self.conv1(x, train=train)
        spikes = self.sn1(jnp.broadcast_to(still, (timesteps, *still.shape)))
        return self.conv2(spikes, train=train).mean(-2), {"sn1": spikes}


@pytest.mark.slow
@pytest.mark.parametrize("padding", [0, 1])
def test_a_convolution_as_the_last_layer_is_corrected(padding):
    model, x = Head(padding), draw(8, 9, 2)
    quantized = calibrate.quantize(model, {"conv2": QuantSpec(bits=2, clip="mse")})
    found = calibrate.correct_bias(quantized, model, [x])
    means = [np.mean(jax.jit(m)(x)[0], (0, 1)) for m in (quantized, found, model)]
    assert np.abs(means[0] - means[2]).max() > 1e-3
    np.testing.assert_allclose(means[1], means[2], atol=1e-5)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_statistics_are_those_of_the_network_that_is_evaluated(rounding):
    """Neither dropout nor stochastic rounding is in them."""
    rngs, x = nnx.Rngs(0), draw(64, 5)
    quantizer = QuantSpec(bits=3, clip=0.3, rounding=rounding)
    model = sequential(
        (5,),
        fc1=layers.QuantLinear(5, 64, rngs=rngs),
        sn1=layers.Spiking(neurons.LIF(v_threshold=0.3)),
        drop=layers.Dropout(0.5, rngs=rngs),
        fc2=layers.QuantLinear(64, 8, quant=quantizer, rngs=rngs),
        norm=layers.BatchNorm(8),
        sn2=layers.Spiking(neurons.LIF()),
        fc=layers.QuantLinear(8, 3, rngs=rngs),
    )
    model = calibrate.reestimate_batchnorm(model, [x], timesteps=T)
    spikes = model(x, timesteps=T)[1]["sn1"]
    seen = np.asarray(model.fc2(spikes), np.float64).reshape(-1, 8)
    np.testing.assert_allclose(model.norm.mean.get_value(), seen.mean(0), atol=1e-5)
    var = seen.var(0, ddof=1)
    np.testing.assert_allclose(model.norm.var.get_value(), var, rtol=1e-4)


class Shared(nnx.Module):
    """A BatchNorm that runs so often, and one that does not."""

    def __init__(self, times):
        self.times = times
        self.fc = layers.QuantLinear(5, 5, rngs=nnx.Rngs(0))
        self.norm, self.spare = layers.BatchNorm(5), layers.BatchNorm(5)
        self.sn = layers.Spiking(neurons.LIF())

    def __call__(self, x, *, timesteps=T, train=None):
        for _ in range(self.times):
            x = self.norm(self.fc(x), train=train, repeats=timesteps)
        return self.sn(jnp.broadcast_to(x, (timesteps, *x.shape))), {}


def test_a_batchnorm_runs_once_or_keeps_its_statistics():
    x = draw(64, 5)
    found = calibrate.reestimate_batchnorm(Shared(1), [x], timesteps=T)
    np.testing.assert_array_equal(found.spare.var.get_value(), 1)
    np.testing.assert_array_equal(found.spare.mean.get_value(), 0)
    assert np.abs(found.norm.var.get_value() - 1).max() > 0.01
    with pytest.raises(ValueError, match="norm more than once"):
        calibrate.reestimate_batchnorm(Shared(2), [x], timesteps=T)


def test_tokens_in_time_are_filtered_and_still_ones_are_not():
    rngs, leak = nnx.Rngs(0), 1 - 1 / 5
    model = sequential(
        (7, 6),
        fc1=layers.QuantLinear(6, 5, quant=QuantSpec(bits=3), rngs=rngs),
        sn1=layers.Spiking(neurons.LIF(tau=5.0)),
        flatten=layers.Flatten(),
        fc=layers.QuantLinear(35, 3, rngs=rngs),
    )
    x = jax.random.uniform(jax.random.key(0), (T, 8, 7, 6))
    [found] = compute_hessians(model, find_units(model, x, T)[0], [x], T)
    h, rows = 0, []
    for step in np.asarray(x, np.float64):
        h = leak * h + step
        rows.append(h.reshape(-1, 6))
    rows = np.concatenate(rows)
    np.testing.assert_allclose(found, rows.T @ rows / len(rows), rtol=1e-5)
    [found] = compute_hessians(model, find_units(model, x[0], T)[0], [x[0]], T)
    rows = np.asarray(x[0], np.float64).reshape(-1, 6)
    np.testing.assert_allclose(found, rows.T @ rows / len(rows), rtol=1e-5)


def leaky(v, x, *, v_threshold):
    v = 0.5 * v + x
    spikes = (v >= v_threshold).astype(v.dtype)
    return v * (1 - spikes), spikes


def test_dynamics_of_ones_own_keep_their_gain():
    rngs, x = nnx.Rngs(0), draw(64, 6)
    neuron = neurons.from_step(leaky, v_threshold=0.7)
    model = sequential(
        (6,),
        fc1=layers.QuantLinear(6, 8, rngs=rngs),
        sn1=layers.Spiking(neuron),
        fc=layers.QuantLinear(8, 3, rngs=rngs),
    )
    quantized = calibrate.quantize(model, {"fc1": QuantSpec(bits=2, clip=0.6)})
    found = calibrate.fire_match(quantized, model, [x])
    assert float(found.sn1.neuron.get_value().v_threshold) == pytest.approx(0.7)
    spikes = [m(x)[1]["sn1"].sum((0, 1)) for m in (quantized, found, model)]
    before, after = (np.abs(s - spikes[2]).sum() for s in spikes[:2])
    assert after < before
    with pytest.raises(ValueError, match="rest at 0"):
        calibrate.scale_to_clip(quantized, [x])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_firing_is_matched_in_short_currents(dtype):
    """Where neurons do not rest at 0 the gain stays 1."""
    options = dict(dtype=dtype, rngs=nnx.Rngs(0))
    model = sequential(
        (6,),
        fc1=layers.QuantLinear(6, 8, **options),
        sn1=layers.Spiking(neurons.LIF(v_reset=-0.5)),
        fc=layers.QuantLinear(8, 3, **options),
    )
    quantized = calibrate.quantize(model, {"fc1": QuantSpec(bits=2, clip=0.6)})
    x = draw(64, 6)
    found = calibrate.fire_match(quantized, model, [x])
    spikes = [m(x)[1]["sn1"].astype(int).sum((0, 1)) for m in (quantized, found, model)]
    before, after = (np.abs(s - spikes[2]).sum() for s in spikes[:2])
    assert after < before


def test_means_of_0_behind_a_batchnorm_are_corrected():
    """By the statistics of the same batch: what is left is rounding."""
    rngs, x = nnx.Rngs(0), draw(16, 6)
    model = sequential(
        (6,),
        fc1=layers.QuantLinear(6, 8, rngs=rngs),
        norm1=layers.BatchNorm(8),
        sn1=layers.Spiking(neurons.LIF()),
        fc=layers.QuantLinear(8, 3, rngs=rngs),
    )
    model = calibrate.reestimate_batchnorm(model, [x])
    quantized = calibrate.quantize(model, {"fc1": QuantSpec(bits=4, clip="mse")})
    for start in (quantized, calibrate.reestimate_batchnorm(quantized, [x])):
        found = calibrate.correct_bias(start, model, [x])
        currents = found.norm1(found.fc1(x))
        np.testing.assert_allclose(jnp.mean(currents, 0), 0, atol=1e-5)
