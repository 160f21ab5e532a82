"""Calibration that restores currents and firing: known shifts are undone."""

import jax.numpy as jnp
import numpy as np
import pytest
from calibrated import Net, arrays, batches, counts, same
from flax import nnx

from snnjax import calibrate, layers, neurons
from snnjax.calibrate import fire
from snnjax.quantize import QuantSpec


def shifted(reference, *, gain=True, seed=0):
    """A copy whose channels have another gain and offset."""
    rng, model = np.random.default_rng(seed), nnx.clone(reference)
    for i in "12":
        norm = getattr(model, f"bn{i}")
        if norm is None:
            bias = getattr(model, f"conv{i}").bias
            bias.set_value(bias.get_value() + jnp.asarray(rng.normal(0, 0.3)))
            continue
        n = norm.scale.shape[0]
        g = rng.uniform(0.6, 1.5, n) if gain else np.ones(n)
        norm.scale.set_value(norm.scale.get_value() * g)
        norm.bias.set_value(norm.bias.get_value() * g + rng.normal(0, 0.3, n))
    return model


def distance(model, reference, images):
    ours, theirs = counts(model, images), counts(reference, images)
    return {name: np.abs(x - theirs[name]).sum() for name, x in ours.items()}


@pytest.mark.slow
def test_fire_match_undoes_a_known_shift():
    reference, images = Net(), batches()
    model = shifted(reference)
    before = arrays(model), arrays(reference)
    calls = []
    found = calibrate.fire_match(
        model,
        reference,
        images,
        batchnorm=False,
        on_layer=lambda name, done, of: calls.append((name, done, of)),
    )
    assert same(before[0], arrays(model))
    assert same(before[1], arrays(reference))
    assert calls == [("sn1", 1, 2), ("sn2", 2, 2)]
    was, now = (distance(m, reference, images) for m in (model, found))
    total = {name: x.sum() for name, x in counts(reference, images).items()}
    for name in was:
        assert was[name] > 0.05 * total[name]
        # Rounding of the current flips a spike in a thousand at most.
        assert now[name] <= 1e-3 * total[name] + 1


@pytest.mark.nightly
@pytest.mark.parametrize("neuron", [neurons.IF(), neurons.LIF(v_reset=None)])
def test_fire_match_without_batchnorm_moves_bias_and_threshold(neuron):
    reference, images = Net(norm=False, neuron=neuron), batches()
    model = shifted(reference)
    threshold = neurons.IF(v_threshold=1.3) if neuron.v_reset is not None else None
    if threshold is not None:
        model.sn1.neuron = type(model.sn1.neuron)(threshold)
    found = calibrate.fire_match(model, reference, images)
    was, now = (distance(m, reference, images) for m in (model, found))
    total = {name: x.sum() for name, x in counts(reference, images).items()}
    for name in was:
        assert now[name] <= 2e-3 * total[name] + 2 < was[name]


@pytest.mark.nightly
def test_fire_match_improves_every_layer_of_a_quantized_network():
    reference, images = Net(), batches()
    spec = QuantSpec(bits=2, clip=0.4, grid="mid_rise")
    model = calibrate.quantize(reference, {"conv.": spec})
    first = calibrate.reestimate_batchnorm(model, images)
    found = calibrate.fire_match(model, reference, images)
    was, now = (distance(m, reference, images) for m in (first, found))
    assert all(now[name] < was[name] for name in was)


@pytest.mark.slow
def test_silent_and_saturated_channels_stay_so():
    reference, images = Net(), batches()
    bias = np.asarray(reference.bn1.bias.get_value()).copy()
    bias[0], bias[1] = -50.0, 50.0
    reference.bn1.bias.set_value(jnp.asarray(bias))
    model = nnx.clone(reference)
    model.bn1.bias.set_value(jnp.full(6, 0.5))
    found = calibrate.fire_match(model, reference, images, batchnorm=False)
    fired = counts(found, images)["sn1"]
    assert fired[..., 0].max() == 0
    assert fired[..., 1].min() == 4 * 16
    assert all(np.isfinite(x).all() for x in arrays(found))
    # A kernel of zeros leaves a constant current: the offset alone is solved for.
    model.conv1.kernel.set_value(jnp.zeros_like(model.conv1.kernel.get_value()))
    found = calibrate.fire_match(model, reference, images, batchnorm=False)
    assert all(np.isfinite(x).all() for x in arrays(found))


@pytest.mark.parametrize("norm", [True, False])
def test_correct_bias_undoes_known_offsets(norm):
    reference, images = Net(norm=norm), batches()
    model = shifted(reference, gain=False)
    model.fc.bias.set_value(model.fc.bias.get_value() + jnp.linspace(-1, 2, 10))
    before = arrays(model)
    found = calibrate.correct_bias(model, reference, images)
    assert same(before, arrays(model))
    for one, other in zip(arrays(found), arrays(reference), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.nightly
@pytest.mark.parametrize("by", ["mse", "kl", "firing"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_choose_clip_finds_a_good_bound(by, per_channel):
    reference, images = Net(), batches()
    clip = None if per_channel else 10.0
    spec = QuantSpec(bits=3, clip=clip, grid="mid_tread", per_channel=per_channel)
    model = calibrate.quantize(reference, {"conv.": spec})
    found = calibrate.choose_clip(model, reference, images, by=by)
    chosen = found.conv1.quant.get_value()
    assert np.shape(chosen.clip) == ((6,) if per_channel else ())
    top = np.abs(np.asarray(reference.conv1.kernel.get_value())).max()
    assert np.all(np.asarray(chosen.clip) <= top * 1.001)
    if by == "mse":
        clip = QuantSpec(bits=3, clip="mse", per_channel=per_channel)
        expected = clip.fit(reference.conv1.kernel.get_value()).clip
        np.testing.assert_allclose(chosen.clip, expected)
    if not per_channel:
        was, now = (
            distance(calibrate.reestimate_batchnorm(m, images), reference, images)
            for m in (model, found)
        )
        # With a bound of 10 all weights are 0.
        assert now["sn1"] < 0.5 * was["sn1"]


def test_errors_name_the_argument():
    reference, images = Net(), batches()
    model = calibrate.quantize(reference, {"conv.": QuantSpec(bits=2)})
    other, narrow = Net(norm=False), Net()
    narrow.conv2 = layers.QuantConv(6, 4, kernel_size=1, rngs=nnx.Rngs(0))
    for function in (calibrate.correct_bias, calibrate.fire_match):
        with pytest.raises(ValueError, match="reference"):
            function(model, other, images)
        with pytest.raises(ValueError, match="dataset"):
            function(model, reference, [])
        with pytest.raises(ValueError, match=r"full precision.*quantizer \(conv1\)"):
            function(reference, model, images)
        with pytest.raises(ValueError, match=r"got a conv2 of shape"):
            function(model, narrow, images)
    with pytest.raises(ValueError, match="by must be"):
        calibrate.choose_clip(model, reference, images, by="error")
    bare = Net(norm=False)
    bare.conv2.bias = None
    with pytest.raises(ValueError, match="conv2 has no bias"):
        calibrate.correct_bias(bare, bare, images)


@pytest.mark.parametrize("timesteps", [1, 4, pytest.param(37, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "neuron",
    [
        neurons.LIF(),
        pytest.param(neurons.CubaLIF(tau_syn=1.5), marks=pytest.mark.slow),
        pytest.param(neurons.LIF(v_reset=None, v_min=-0.5), marks=pytest.mark.slow),
    ],
)
def test_spikes_are_counted_as_the_layer_fires(neuron, timesteps):
    quantizer = QuantSpec(bits=4, clip=2.0, grid="mid_tread")
    layer = layers.Spiking(neuron, quant=quantizer)
    x = np.random.default_rng(0).normal(0.5, 1.5, (timesteps, 8, 3, 2))
    x = jnp.asarray(x, jnp.float32)
    found = fire._count(*nnx.split(layer), x)
    np.testing.assert_array_equal(found, np.asarray(layer(x)).sum((0, 1)))
    assert found.any()
