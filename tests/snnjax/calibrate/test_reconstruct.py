"""Learned rounding: levels beside each weight, nearer to the reference, by the seed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calibrated import Net, batches, darken
from flax import nnx

from snnjax import calibrate, data, distill, layers, models
from snnjax.calibrate.layerwise import find_units
from snnjax.calibrate.levels import find_neighbours
from snnjax.calibrate.reconstruct import group_blocks
from snnjax.quantize import QuantSpec

SPECS = {
    "mid-rise": QuantSpec(bits=3, clip=0.6, grid="mid_rise"),
    "mid-tread": QuantSpec(bits=3, clip="mse", per_channel=True),
    "lsq": QuantSpec("lsq", bits=2),
    "lq_net": QuantSpec("lq_net", bits=2),
    "lq_net {0, 1}": QuantSpec("lq_net", bits=2, codes=(0, 1)),
}


def make_layer(spec, seed=0):
    layer = layers.QuantConv(3, 5, kernel_size=3, rngs=nnx.Rngs(seed))
    layer.quantize(spec)
    return layer


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_neighbours_are_the_levels_on_either_side(spec):
    layer = make_layer(spec)
    w = np.asarray(layer.kernel.get_value(), np.float64)
    below, above = find_neighbours(layer)
    assert (below < above).all()
    nearest = np.asarray(layer.quantized_kernel(train=False), np.float64)
    chosen = np.where(np.abs(above - w) < np.abs(w - below), above, below)
    np.testing.assert_allclose(chosen, nearest, rtol=1e-5, atol=1e-6)
    inside = (w >= below) & (w <= above)
    outermost = np.isclose(nearest, above) | np.isclose(nearest, below)
    beyond = (np.abs(w) > np.abs(nearest)) & outermost
    assert (inside | beyond).all()
    # Both are levels: the layer quantizes them to themselves.
    for levels in (below, above):
        layer.kernel.set_value(jnp.asarray(levels, jnp.float32))
        again = layer.quantized_kernel(train=False)
        np.testing.assert_allclose(again, levels, rtol=1e-5, atol=1e-6)


def distance(model, reference, images):
    """The default objective, summed over layers, as after re-estimation."""
    total = 0.0
    for x in images:
        ours, theirs = (
            distill.record(m, x, 4, train, True)
            for m, train in ((nnx.clone(model), True), (reference, None))
        )
        total += distill.membrane(ours, theirs) + distill.paired_rates(ours, theirs)
    return float(total)


@pytest.mark.nightly
def test_learned_rounding_comes_nearer_and_is_its_seeds():
    reference, images = Net(), batches(4)
    spec = QuantSpec(bits=3, clip=0.6, grid="mid_rise")
    model = calibrate.quantize(reference, {r"conv\d": spec})
    before = nnx.state(model)
    seen = []
    options = dict(steps=60, learning_rate=0.05)
    learned = calibrate.reconstruct(
        model, reference, images, **options, on_block=lambda *a: seen.append(a)
    )
    assert seen == [("conv1", 1, 2), ("conv2", 2, 2)]
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), before)
    nearest = calibrate.reestimate_batchnorm(model, images)
    far, near = (distance(m, reference, images) for m in (nearest, learned))
    assert near < 0.9 * far
    for name in ("conv1", "conv2"):
        below, above = find_neighbours(getattr(model, name))
        kernel = np.asarray(getattr(learned, name).kernel.get_value())
        either = np.minimum(np.abs(kernel - below), np.abs(kernel - above))
        assert either.max() < 1e-6
        levels = getattr(learned, name).quantized_kernel(train=False)
        np.testing.assert_array_equal(levels, kernel)
    again = calibrate.reconstruct(model, reference, images, **options)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(again), nnx.state(learned))


@pytest.mark.slow
def test_another_loss_and_a_kernel_that_ends_the_network():
    reference, images = Net(norm=False), batches(2)
    model = calibrate.quantize(reference, {"conv1|fc": QuantSpec(bits=2, clip="mse")})
    loss = distill.paired_rates(weight=2.0)
    learned = calibrate.reconstruct(model, reference, images, steps=20, loss=loss)
    plain = np.asarray(model.fc.quantized_kernel())
    kernel = np.asarray(learned.fc.kernel.get_value())
    assert set(np.unique(kernel)) <= set(np.unique(plain)) | {0.0}
    before = nnx.clone(learned)
    before.fc.kernel.set_value(jnp.asarray(plain))
    far, near = (
        sum(float(jnp.sum(jnp.square(m(x)[0] - reference(x)[0]))) for x in images)
        for m in (before, learned)
    )
    assert near <= far * (1 + 1e-5)


def test_blocks_are_modules_that_are_called():
    model = models.sew_resnet8(10, width=2, in_channels=1, rngs=nnx.Rngs(0))
    units = find_units(model, jnp.zeros((1, 8, 8, 1)), 2)
    blocks = group_blocks(model, units)
    assert list(blocks) == ["conv1", "layer1.0", "layer2.0", "layer3.0", "fc"]
    assert [u.weights for u in blocks["layer2.0"]] == [
        "layer2.0.conv1",
        "layer2.0.conv2",
        "layer2.0.downsample.0",
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(steps=0), "steps must be at least 1"),
        (dict(pull=0.0), "pull must be positive"),
    ],
)
def test_bad_arguments(options, says):
    reference = Net()
    model = calibrate.quantize(reference, {"conv1": QuantSpec(bits=3)})
    with pytest.raises(ValueError, match=says):
        calibrate.reconstruct(model, reference, batches(1), **options)


@pytest.mark.slow
def test_batchnorm_alone_sees_augmented_images():
    reference = Net()
    model = calibrate.quantize(reference, {"conv1": QuantSpec(bits=3, clip="mse")})
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 2), np.uint8)
    dataset = data.from_arrays(pixels, np.arange(8) % 3)
    options = dict(images=8, batch_size=4, augment=darken)
    learned = calibrate.reconstruct(model, reference, dataset, steps=1, **options)
    expected = calibrate.reestimate_batchnorm(learned, dataset, **options)
    found = jax.tree.leaves(nnx.state(learned, nnx.BatchStat))
    wanted = jax.tree.leaves(nnx.state(expected, nnx.BatchStat))
    assert found
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_allclose(x, y, 1e-5, 1e-6)
    with pytest.raises(ValueError, match="augment is for batchnorm=True"):
        calibrate.reconstruct(model, reference, dataset, batchnorm=False, **options)
