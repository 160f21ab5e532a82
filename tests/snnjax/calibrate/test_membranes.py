"""Bounds of membranes: the best of those tried, for a layer or each channel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calibrated import Net, batches, counts
from flax import nnx

from snnjax import calibrate, distill
from snnjax.quantize import QuantSpec


@pytest.mark.nightly
@pytest.mark.parametrize("sharing", ["layer", "channel"])
def test_no_tried_bound_of_the_first_layer_is_better(sharing):
    reference, images = Net(), batches(4)
    spec = QuantSpec(bits=2, clip=1.0, signed=True)
    model = calibrate.quantize(reference, {"sn1": spec})
    before = nnx.state(model)
    chosen = calibrate.choose_clip(model, reference, images, membranes=sharing)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), before)
    clip = np.asarray(chosen.sn1.quant.get_value().clip)
    assert clip.shape == ((6,) if sharing == "channel" else ())

    def first(model):  # the first layer alone: what is behind it is not matched yet
        ours, theirs = (counts(m, images)["sn1"] for m in (model, reference))
        a, b = (x.reshape(-1, 6).astype(int) for x in (ours, theirs))
        return np.abs(a - b).sum() + np.abs(np.sort(a, 0) - np.sort(b, 0)).sum()

    for other in (0.25, 0.5, 1.0, 2.0):
        rules = {"sn1": QuantSpec(bits=2, clip=other)}
        # Candidates are a fifth apart: nearly as good as any.
        assert first(chosen) <= 1.05 * first(calibrate.quantize(reference, rules))


@pytest.mark.nightly
def test_a_learned_step_starts_from_the_chosen_bound():
    reference, images = Net(), batches(2)
    spec = QuantSpec("lsq", bits=2, zero_point=True)
    model = calibrate.quantize(reference, {r"sn\d": spec})
    chosen = calibrate.choose_clip(
        model, reference, images, by="mse", membranes="channel"
    )
    for layer, channels in ((chosen.sn1, 6), (chosen.sn2, 4)):
        clip = jnp.asarray(layer.quant.get_value().clip)
        step, zero = layer.quant_scale.get_value()
        np.testing.assert_array_equal(step, clip)
        assert step.shape == (channels,)
        np.testing.assert_array_equal(zero, 2)
    wide = calibrate.quantize(reference, {r"sn\d": spec})
    error = lambda m: sum(  # noqa: E731
        float(jnp.sum(jnp.square(potentials(m, x) - potentials(reference, x))))
        for x in images
    )
    assert error(chosen) < error(wide)


def potentials(model, x):
    return distill.record(model, x, membranes=True).membranes["sn1"]


def test_bad_arguments():
    reference = Net()
    model = calibrate.quantize(reference, {"sn1": QuantSpec(bits=2, clip=1.0)})
    with pytest.raises(ValueError, match="membranes must be one of"):
        calibrate.choose_clip(model, reference, batches(1), membranes="neuron")
    with pytest.raises(ValueError, match='got "kl"'):
        calibrate.choose_clip(model, reference, batches(1), by="kl", membranes="layer")
    with pytest.raises(ValueError, match="no kernel with a quantizer"):
        calibrate.choose_clip(model, reference, batches(1))
