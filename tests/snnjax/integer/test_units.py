"""Widths hold for the worst inputs, and units are as fine as they allow."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import twins

from snnjax import integer, models, neurons
from snnjax.integer import reference
from snnjax.integer.network import accumulator_ranges, count_bits
from snnjax.integer.units import Dynamics, MembraneLevels, fold_neurons
from snnjax.quantize import QuantSpec

CHANNELS = 40
LEVELS = MembraneLevels(1 / 7, -7, 7, False, "post_reset", 1.0)


def draw(seed, levels=None, soft=False, decay=0.5):
    """Gain, bias, least and greatest sum, and neurons of a layer."""
    drawn = np.random.default_rng(seed)
    gain = 10.0 ** drawn.uniform(-6, 1, CHANNELS)
    gain[:2] = 0, 1e-30
    bias = drawn.normal(size=CHANNELS) * 10.0 ** drawn.uniform(-4, 2, CHANNELS)
    sums = drawn.integers(-2000, 1, CHANNELS), drawn.integers(0, 2000, CHANNELS)
    threshold, reset = drawn.uniform(0.5, 2, CHANNELS), drawn.uniform(-0.3, 0.3)
    dynamics = Dynamics(
        decay=np.full(CHANNELS, decay),
        threshold=threshold,
        reset=np.full(CHANNELS, 0.0 if soft else reset),
        soft=soft,
        levels=levels,
    )
    return gain, bias, sums, dynamics


@pytest.mark.parametrize("bits", [16, 24, 30])
@pytest.mark.parametrize("levels", [None, LEVELS])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.3])
def test_no_membrane_saturates(bits, levels, soft, decay):
    if levels and bits == 16:
        pytest.skip("currents of 1e5 and levels of 1 / 7 do not fit in 16 bits")
    steps = 6
    gain, bias, sums, dynamics = draw(bits, levels, soft, decay)
    folded = fold_neurons(
        "sn1",
        *(gain, bias, sums, dynamics),
        timesteps=steps,
        membrane_bits=bits,
    )
    layer = dataclasses.make_dataclass("Fake", ["neurons", "bias", "shift"])(
        folded.neurons, folded.bias, folded.shift
    )
    network = dataclasses.make_dataclass("Net", ["membrane_bits"])
    drawn = np.random.default_rng(0)
    ends = np.stack([np.where(folded.silent, 0, end) for end in sums])
    # All at one end, all at the other, and any mixture.
    picks = [np.zeros(steps), np.ones(steps), *drawn.integers(0, 2, (20, steps))]
    for pick in picks:
        accumulators = ends[np.asarray(pick, int)]
        left, right = np.maximum(layer.shift, 0), np.maximum(-layer.shift, 0)
        half = np.where(right > 0, 1 << np.maximum(right - 1, 0), 0)
        currents = ((accumulators << left) + half >> right) + layer.bias
        assert np.abs(currents).max() < 2 ** (bits - 1)
        # What 8 more bits would hold is the same: nothing was cut but above firing.
        narrow, wide = (
            reference.fire(network(width), layer, currents)
            for width in (bits, bits + 8)
        )
        np.testing.assert_array_equal(narrow, wide)


@pytest.mark.parametrize("soft", [False, True])
def test_spikes_are_those_of_exact_fractions(soft):
    steps = 5
    gain, bias, sums, dynamics = draw(3, None, soft)
    folded = fold_neurons(
        "sn1", *(gain, bias, sums, dynamics), timesteps=steps, membrane_bits=30
    )
    layer = dataclasses.make_dataclass("Fake", ["neurons"])(folded.neurons)
    drawn = np.random.default_rng(0)
    inputs = drawn.integers(sums[0], sums[1] + 1, (steps, CHANNELS))
    inputs = np.where(folded.silent, 0, inputs)
    currents = (inputs << np.maximum(folded.shift, 0)) >> np.maximum(-folded.shift, 0)
    network = dataclasses.make_dataclass("Net", ["membrane_bits"])(30)
    found = reference.fire(network, layer, currents + folded.bias)
    expected = np.zeros_like(found)
    for c in range(CHANNELS):
        rest, threshold = Fraction(dynamics.reset[c]), Fraction(dynamics.threshold[c])
        v = rest
        for t in range(steps):
            current = Fraction(gain[c]) * int(inputs[t, c]) + Fraction(bias[c])
            h = v - (v - rest) / 2 + current
            expected[t, c] = h >= threshold
            v = (h - threshold if soft else rest) if h >= threshold else h
    np.testing.assert_array_equal(found, expected)
    assert 0.02 < found.mean() < 0.98


def test_potentials_at_the_threshold_fire():
    # The bias alone reaches the threshold, in step 1, 2 or 3; gains are of any size.
    steps, thirds = 4, np.array([1.0, 1.5, 1.75] * 20)
    gain = np.random.default_rng(0).uniform(1e-3, 0.1, len(thirds))
    ones = np.ones(len(thirds))
    bias = 0.7 / thirds
    dynamics = Dynamics(0.5 * ones, 0.7 * ones, 0 * ones, False, None)
    sums = (-100 * ones).astype(int), (100 * ones).astype(int)
    folded = fold_neurons(
        "sn1", gain, bias, sums, dynamics, timesteps=steps, membrane_bits=24
    )
    layer = dataclasses.make_dataclass("Fake", ["neurons"])(folded.neurons)
    network = dataclasses.make_dataclass("Net", ["membrane_bits"])(24)
    currents = np.broadcast_to(folded.bias, (steps, len(thirds)))
    found = reference.fire(network, layer, currents)
    expected = {1.0: [1, 1, 1, 1], 1.5: [0, 1, 0, 1], 1.75: [0, 0, 1, 0]}
    for c, third in enumerate(thirds):
        assert found[:, c].tolist() == expected[third]


SLOW = ("pixels", "lq_net", "if")
OPTIONS = {
    "pixels": dict(weight_quant=QuantSpec(bits=8, clip="absmax"), quantize_all=True),
    "lq_net": dict(weight_quant=QuantSpec("lq_net", bits=2)),
    "if": dict(weight_quant=QuantSpec(bits=4, clip="mse"), neuron=neurons.IF()),
    "levels": dict(
        weight_quant=QuantSpec(bits=4, clip="mse"),
        membrane_quant=QuantSpec(bits=4, clip=2.0),
    ),
}


@pytest.mark.parametrize(
    "name", ["levels", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)]
)
def test_worst_inputs_stay_in_the_widths(name):
    model = twins.make(models.SEWResNet, blocks=(1,), **OPTIONS[name])
    twin = integer.from_model(model, image_size=(8, 8))
    low, high = twin.border.limits
    shape = (1, 8, 8, 1) if twin.border.name == "input" else (4, 1, 8, 8, 4)
    ends = [np.full(shape, low), np.full(shape, high)]
    for layer in twin.layers().values():
        least, greatest = accumulator_ranges(layer, *twin.ranges[layer.source])
        assert count_bits(np.array([least.min(), greatest.max()])) <= 31
        if layer.source == twin.border.name and layer.codes.shape[2] == shape[-1]:
            # The inputs that make the greatest and the least sum of a channel.
            for c in range(layer.codes.shape[3]):
                kernel = layer.weights[..., c]
                worst = np.where(kernel > 0, high, low)[None]
                sums = reference.convolve(worst, layer.weights, (1, 1), (0, 0), 1)
                assert sums[0, 0, 0, c] == greatest[c]
    for inputs in ends:
        inputs = inputs.astype(np.int16)
        by_jax, by_numpy = twin.run_border(inputs), twin.run_border_numpy(inputs)
        np.testing.assert_array_equal(by_jax.logits, by_numpy.logits)
        for key, spikes in by_numpy.spikes.items():
            np.testing.assert_array_equal(np.asarray(by_jax.spikes[key]), spikes)


def test_too_wide_sums_are_refused():
    model = twins.make(
        models.SEWResNet,
        blocks=(1,),
        weight_quant=QuantSpec(bits=16, clip="absmax"),
        quantize_all=True,
        in_channels=300,
    )
    with pytest.raises(ValueError, match="sums of conv1"):
        integer.from_model(model, image_size=(8, 8), mean=0.3017)


@pytest.mark.nightly
def test_narrow_membranes_cost_few_spikes():
    spec = QuantSpec(bits=4, clip="absmax")
    model = twins.make(models.SEWResNet, blocks=(1, 1), weight_quant=spec)
    images, mean, std = twins.digits(100)
    shares = []
    for bits in (12, 16, 24):
        twin = integer.from_model(
            model, image_size=(8, 8), mean=mean, std=std, membrane_bits=bits
        )
        found = integer.count_differences(twin, model, images).values()
        shares.append(sum(f.differing for f in found) / sum(f.size for f in found))
    assert shares[0] > shares[1] >= shares[2]
    assert shares[0] < 0.1
    assert shares[1] < 0.01
    assert shares[2] < 1e-4
