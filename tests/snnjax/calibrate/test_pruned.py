"""Pruned filters stay pruned under every quantizer, and accuracy with them."""

import dataclasses
import re

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from snnjax import calibrate, data, layers, models, train
from snnjax.layers import inspect
from snnjax.quantize import QuantSpec

WEIGHTS = r"layer.*(conv\d|downsample\.0)"
SPECS = [
    QuantSpec(bits=bits, clip=clip, grid=grid, per_channel=True)
    for bits in (3, 4, 8)
    for clip in ("absmax", "mse")
    for grid in ("mid_rise", "mid_tread")
]
SPECS += [QuantSpec("lsq", bits=bits, per_channel=True) for bits in (3, 4, 8)]
SPECS += [QuantSpec(bits=4, group_size=16), QuantSpec("lq_net", bits=4)]


def prune(model):
    """Zero the eighth of the filters of each layer with the least magnitude."""
    model = nnx.clone(model)
    for name, layer in inspect.quantizable_layers(model).items():
        if re.fullmatch(WEIGHTS, name):
            w = np.array(layer.kernel.get_value())
            size = np.abs(w).reshape(-1, w.shape[-1]).sum(0)
            w[..., np.argsort(size)[: w.shape[-1] // 8]] = 0
            layer.kernel.set_value(jax.numpy.asarray(w))
    return model


@pytest.mark.nightly
def test_an_eighth_of_the_filters_pruned_costs_a_quantizer_nothing():
    digits, test = data.load("digits", "train"), data.load("digits", "test")
    # A point of the test images alone is three and a half images.
    whole = dataclasses.replace(
        digits,
        images=np.concatenate([digits.images, test.images]),
        labels=np.concatenate([digits.labels, test.labels]),
    )
    model = models.sew_resnet8(10, width=16, in_channels=1, rngs=nnx.Rngs(0))
    adam = optax.adam(3e-3)
    model = train.fit(model, digits, epochs=10, optimizer=adam, batch_size=32, seed=0)
    pruned = calibrate.reestimate_batchnorm(prune(model), digits)
    full, less = (train.evaluate(m, whole).accuracy for m in (model, pruned))
    assert less > 0.95
    for spec in SPECS:
        lost, lost_pruned = (
            accuracy - train.evaluate(quantized, whole).accuracy
            for accuracy, quantized in (
                (full, calibrate.quantize(model, {WEIGHTS: spec})),
                (less, calibrate.quantize(pruned, {WEIGHTS: spec})),
            )
        )
        assert lost_pruned <= 0.01 or lost > 0.01, spec


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.filterwarnings("error")  # filters of zeros are no reason to warn
def test_filters_of_zeros_stay_zero(spec):
    layer = layers.QuantConv(16, 16, kernel_size=3, rngs=nnx.Rngs(0))
    kernel = layer.kernel.get_value().at[..., :2].set(0)
    layer.kernel.set_value(kernel)
    layer.quantize(spec)
    levels = np.asarray(layer.quantized_kernel())
    assert np.abs(levels[..., 2:]).max() > 0
    if spec.group_size is None:
        assert np.abs(levels[..., :2]).max() < 1e-30
