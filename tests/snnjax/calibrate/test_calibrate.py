import functools
import re

import calibrated
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import calibrate, cost, data, models, neurons, quantize
from snnjax.calibrate import describe, layer_bits
from snnjax.layers import BatchNorm, QuantConv, QuantLinear, Spiking
from snnjax.quantize import QuantSpec


class Block(nnx.Module):
    def __init__(self, rngs):
        self.conv = QuantConv(3, 3, kernel_size=1, rngs=rngs)
        self.norm = BatchNorm(3)
        self.spikes = Spiking(neurons.IF())

    def __call__(self, x, train):
        return self.spikes(self.norm(self.conv(x, train=train), train=train))


class Net(nnx.Module):
    """Not one of ours: any network of our layers."""

    def __init__(self, seed=0):
        rngs = nnx.Rngs(seed)
        self.stem = QuantConv(2, 3, kernel_size=3, padding=1, rngs=rngs)
        self.norm = BatchNorm(3)
        self.spikes = Spiking(neurons.LIF(tau=1.2))
        self.blocks = nnx.List([Block(rngs), Block(rngs)])
        self.head = QuantLinear(3, 5, rngs=rngs)

    def __call__(self, x, *, timesteps=4, train=False, record=None):
        h = self.norm(self.stem(x, train=train), train=train, repeats=timesteps)
        h = self.spikes(jnp.broadcast_to(h, (timesteps, *h.shape)))
        for block in self.blocks:
            h = h + block(h, train)
        return self.head(h.mean((2, 3)), train=train), {}


def leaves(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model))]


def same(a, b):
    pairs = zip(leaves(a), leaves(b), strict=True)
    return all((x == y).all() for x, y in pairs)


def images(n=4, seed=0):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, 6, 5, 2)).astype(np.float32) + seed


def quantized_names(model):
    return {layer.name for layer in layer_bits(model) if layer.spec is not None}


# Rules


@pytest.mark.slow
def test_quantize_returns_a_copy():
    model = Net()
    before, graphdef = leaves(model), nnx.graphdef(model)
    copy = calibrate.quantize(model, {".*conv": QuantSpec(bits=2)})
    x = images()
    assert (copy(x)[0] != model(x)[0]).any()
    calibrate.reestimate_batchnorm(copy, [x])
    copy.stem.kernel.set_value(copy.stem.kernel * 0)
    assert nnx.graphdef(model) == graphdef
    for old, new in zip(before, leaves(model), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["stem"], {"stem"}),
        ([r"blocks\.\d\.conv"], {"blocks.0.conv", "blocks.1.conv"}),
        (["blocks.1.*", "head"], {"blocks.1.conv", "blocks.1.spikes", "head"}),
        ([r"(.*\.)?spikes"], {"spikes", "blocks.0.spikes", "blocks.1.spikes"}),
    ],
)
def test_a_pattern_is_for_the_whole_name(patterns, names):
    model = calibrate.quantize(Net(), dict.fromkeys(patterns, QuantSpec(bits=2)))
    assert quantized_names(model) == names


@pytest.mark.parametrize(
    "pattern", ["conv", "blocks", "stem.kernel", "Stem", "norm", ""]
)
def test_a_rule_without_a_layer_is_an_error(pattern):
    with pytest.raises(ValueError, match="matches no layer") as caught:
        calibrate.quantize(
            Net(), {"stem": QuantSpec(bits=2), pattern: QuantSpec(bits=2)}
        )
    message = str(caught.value)
    assert repr(pattern) in message
    for name in ("stem", "spikes", "head", "blocks.0.conv", "blocks.1.spikes"):
        assert re.search(rf"\b{re.escape(name)}\b", message)


def test_the_last_rule_wins():
    rules = {
        ".*": QuantSpec(bits=8),
        ".*conv": QuantSpec(bits=3, clip=0.5),
        "blocks.0.conv": QuantSpec("none"),
    }
    bits = {
        layer.name: layer.bits for layer in layer_bits(calibrate.quantize(Net(), rules))
    }
    assert bits == {
        "stem": 8,
        "spikes": 8,
        "head": 8,
        "blocks.0.conv": 32,
        "blocks.0.spikes": 8,
        "blocks.1.conv": 3,
        "blocks.1.spikes": 8,
    }
    again = calibrate.quantize(
        calibrate.quantize(Net(), rules), {".*": QuantSpec("none")}
    )
    expected = Net()
    expected.eval()
    assert nnx.graphdef(again) == nnx.graphdef(expected)
    assert same(again, Net())


@pytest.mark.slow
def test_membrane_site():
    rules, x = {"spikes": QuantSpec(bits=2, signed=False, grid="mid_tread")}, images(8)
    logits = []
    for site in ("post_reset", "pre_fire"):
        model = calibrate.quantize(Net(), rules, membrane_site=site)
        assert model.spikes.site == site
        logits.append(model(x)[0])
    assert (logits[0] != logits[1]).any()


@pytest.mark.parametrize("clip", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("bits", [2, 4])
def test_lq_net_is_fitted_to_the_clipped_weights(clip, bits):
    """A bound beyond the weights changes nothing, and all levels are used."""
    model = Net()
    spec = QuantSpec("lq_net", bits=bits, clip=clip)
    copy = calibrate.quantize(model, {"stem": spec})
    w = model.stem.kernel.get_value()
    state = quantize.lq_fit(jnp.clip(w, -clip, clip), bits=bits)
    found = copy.stem.quant_state.get_value()
    np.testing.assert_array_equal(found.basis, state.basis)
    assert found.count == 0
    np.testing.assert_array_equal(copy.stem.kernel.get_value(), w)
    rounded = np.asarray(copy.stem.quantized_kernel(train=False))
    grid = QuantSpec(bits=bits, clip="mse", per_channel=True)
    uniform = calibrate.quantize(model, {"stem": grid}).stem.quantized_kernel()
    if clip >= jnp.abs(w).max():
        assert jnp.sum((rounded - w) ** 2) < jnp.sum((uniform - w) ** 2)
        channels = rounded.reshape(-1, w.shape[-1]).T
        assert min(len(np.unique(x)) for x in channels) > 2 ** (bits - 1)


# What is swept does not recompile


@pytest.mark.nightly
def test_bits_and_clips_share_one_program():
    traces = []

    def forward(graphdef, state, x):
        traces.append(graphdef)
        return nnx.merge(graphdef, state)(x)[0]

    forward, x = jax.jit(forward, static_argnums=0), images()
    for grid, signed in (("mid_rise", True), ("mid_tread", True), ("mid_tread", False)):
        for target in (r".*conv|stem|head", r".*spikes"):
            results = []
            for bits, clip in ((2, 1.0), (8, 10.0), (np.int64(4), np.float32(0.5))):
                spec = QuantSpec(bits=bits, clip=clip, signed=signed, grid=grid)
                model = calibrate.quantize(Net(), {target: spec})
                results.append(np.asarray(forward(*nnx.split(model), x)))
                eager = model(x)[0]
                np.testing.assert_allclose(results[-1], eager, atol=1e-5)
            assert (results[0] != results[1]).any()
    assert len(traces) == 6


def test_each_number_of_basis_vectors_is_its_own_program():
    models = [
        calibrate.quantize(Net(), {"stem": QuantSpec("lq_net", bits=bits, clip=clip)})
        for bits, clip in ((2, 0.5), (2, 1.0), (3, 1.0))
    ]
    shapes = [[leaf.shape for leaf in leaves(model)] for model in models]
    assert nnx.graphdef(models[0]) == nnx.graphdef(models[1])
    assert shapes[0] == shapes[1] != shapes[2]


# What is where


def test_layer_bits_and_describe():
    rules = {
        "stem": QuantSpec(bits=4, clip=0.5, grid="mid_tread"),
        "spikes": QuantSpec(bits=2, signed=False, grid="mid_rise"),
        "head": QuantSpec("lq_net", bits=3),
    }
    model = calibrate.quantize(Net(), rules)
    table = {layer.name: layer for layer in layer_bits(model)}
    assert {n: (v.kind, v.size, v.bits) for n, v in table.items()} == {
        "stem": ("weights", 3 * 3 * 2 * 3, 4),
        "head": ("weights", 15, 3),
        "spikes": ("membrane", 0, 2),
        **{f"blocks.{i}.conv": ("weights", 9, 32) for i in (0, 1)},
        **{f"blocks.{i}.spikes": ("membrane", 0, 32) for i in (0, 1)},
    }
    assert table["stem"].spec.grid == "mid_tread"
    lines = dict(line.split(maxsplit=1) for line in describe(model).splitlines())
    assert set(lines) == set(table)
    assert lines["stem"].startswith("weights ")
    assert " 4 bit uniform mid_tread, signed, clip 0.5," in lines["stem"]
    assert lines["spikes"].endswith("2 bit uniform mid_rise, unsigned, clip 1")
    assert "3 bit lq_net, clip 1," in lines["head"]
    assert lines["blocks.0.conv"].split() == ["weights", "float"]


def test_memory_is_that_of_the_kernels_and_of_what_is_kept_beside_them():
    # The kernels of stem, two blocks and head; three norms; the head's bias.
    stem, block, head, others = 9 * 2 * 3, 3 * 3, 3 * 5, 3 * 2 * 3 + 5
    neurons_of = {"spikes": 30, "blocks.0.spikes": 7, "blocks.1.spikes": 7}
    full = 32 * (stem + 2 * block + head + others)
    assert calibrate.memory_bits(Net(), neurons_of) == (full, 32 * 44)
    beside = [  # numbers for each of three output channels, of two bases or one bound
        (QuantSpec("lq_net", bits=2), 2 * 3),
        (QuantSpec(bits=2, per_channel=True), 3),
        (QuantSpec("lsq", bits=2, per_channel=True), 3),
        (QuantSpec("lsq", bits=2), 1),
        (QuantSpec("lsq", bits=2, clip=np.ones(3)), 3),
        (QuantSpec("lq_net", bits=2, clip=np.ones(3)), 2 * 3),
        (QuantSpec(bits=2, clip=np.ones(3)), 3),
        (QuantSpec(bits=2), 0),
    ]
    for spec, numbers in beside:
        copy = calibrate.quantize(Net(), {"stem": spec})
        saved = 30 * stem - 32 * numbers
        assert calibrate.memory_bits(copy, neurons_of)[0] == full - saved
    copy = calibrate.quantize(Net(), {"spikes": QuantSpec(bits=4)})
    assert calibrate.memory_bits(copy, neurons_of) == (full, 4 * 30 + 32 * 14)


# BatchNorm


def reference_statistics(model, x, timesteps):
    """Mean and unbiased variance in front of every BatchNorm, in float64."""
    found = []

    def norm(x, layer):
        found.append((x.mean((0, 1, 2, 3)), x.reshape(-1, 3).var(0, ddof=1)))
        scale, bias = (
            np.asarray(v.get_value(), float) for v in (layer.scale, layer.bias)
        )
        return (x - x.mean((0, 1, 2, 3))) / np.sqrt(
            x.var((0, 1, 2, 3)) + 1e-5
        ) * scale + bias

    h = np.broadcast_to(np.asarray(model.stem(x), float), (timesteps, *x.shape[:3], 3))
    h = norm(h, model.norm)
    h = np.asarray(model.spikes(h.astype(np.float32)), float)
    for block in model.blocks:
        w = np.asarray(block.conv.quantized_kernel(), float)[0, 0]
        current = norm(h @ w, block.norm)
        h = h + np.asarray(block.spikes(current.astype(np.float32)), float)
    return found


@pytest.mark.slow
def test_reestimated_statistics_are_the_mean_over_batches():
    rules = {"blocks.0.conv": QuantSpec("lq_net", bits=2), ".*1.*": QuantSpec(bits=3)}
    model = calibrate.quantize(Net(), rules)
    batches = [images(4, seed) for seed in range(3)]
    # What was there before does not matter, not even if it is broken.
    model.norm.mean.set_value(jnp.full(3, jnp.nan))
    model.norm.var.set_value(jnp.full(3, 1e6))
    copy = calibrate.reestimate_batchnorm(model, iter(batches), timesteps=3)
    each = [reference_statistics(model, x, 3) for x in batches]
    norms = [copy.norm, *(block.norm for block in copy.blocks)]
    for i, norm in enumerate(norms):
        mean, var = (np.mean([batch[i][j] for batch in each], 0) for j in (0, 1))
        np.testing.assert_allclose(norm.mean.get_value(), mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(norm.var.get_value(), var, rtol=1e-4, atol=1e-6)
    assert np.isfinite(copy(batches[0])[0]).all()
    # Nothing else moves: weights, LQ-Net's bases and their counts, numbers.
    assert np.isnan(model.norm.mean.get_value()).all()
    others = [nnx.state(m, nnx.Not(nnx.BatchStat)) for m in (model, copy)]
    for a, b in zip(*map(jax.tree.leaves, others), strict=True):
        np.testing.assert_array_equal(a, b)
    assert nnx.graphdef(copy) == nnx.graphdef(model)


class Mixed(nnx.Module):
    """A BatchNorm of flax's beside one of ours: its statistics move otherwise."""

    def __init__(self):
        self.own, self.norm = BatchNorm(3), nnx.BatchNorm(3, rngs=nnx.Rngs(0))

    def __call__(self, x, *, timesteps, train):
        return self.norm(self.own(x, train=train), use_running_average=not train)


def test_statistics_of_other_layers_are_refused():
    with pytest.raises(ValueError, match=r"BatchNorm alone, got others: norm\.mean"):
        calibrate.reestimate_batchnorm(Mixed(), [images()])


def test_a_mean_of_bits_is_not_cut_off():
    """Of 2 to 8 bits a channel, half of the float32 means lost a bit of the sum."""
    draw = np.random.default_rng(0)
    for _ in range(30):
        bits = draw.integers(2, 9, 13)
        spec = QuantSpec(bits=bits, clip=1.0)
        layer = calibrate.LayerBits("conv", "weights", 13 * 27, spec)
        assert cost.memory_bits([(layer.size, layer.bits)]) == 27 * bits.sum()


@pytest.mark.slow
def test_describe_of_a_clip_for_each_channel():
    model = models.sew_resnet8(width=4, rngs=nnx.Rngs(0))
    quantized = calibrate.quantize(model, {"fc": QuantSpec(bits=4, clip=np.ones(10))})
    assert "a clip for each of several" in calibrate.describe(quantized)


@pytest.mark.parametrize("augment", [None, data.augment])
def test_batchnorm_of_a_dataset_equals_that_of_its_batches(augment):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (11, *images().shape[1:]), np.uint8)
    dataset = data.from_arrays(pixels, np.arange(11) % 3)
    batches, seen = [], []
    for first in (0, 4):
        batch = pixels[first : first + 4]
        if augment is not None:
            batch = augment(jax.random.fold_in(jax.random.key(5), first), batch)
        batches.append(data.normalize(batch, dataset.mean, dataset.std))
    found = calibrate.reestimate_batchnorm(
        *(Net(), dataset),
        images=10,
        batch_size=4,
        augment=augment,
        seed=5,
        on_step=lambda: seen.append(1),
    )
    expected = calibrate.reestimate_batchnorm(Net(), batches)
    assert seen == [1, 1]
    jax.tree.map(np.testing.assert_array_equal, nnx.state(found), nnx.state(expected))


@pytest.mark.parametrize("augment", [None, calibrated.darken])
@pytest.mark.parametrize("way", ["osbc", "fire_match"])
def test_batchnorm_alone_sees_augmented_images(way, augment):
    """As training did; spikes to be matched are those of images as they are."""
    model = calibrated.Net()
    reference = {"reference": model} if way == "fire_match" else {}
    step = functools.partial(getattr(calibrate, way), **reference)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, *images().shape[1:]), np.uint8)
    dataset = data.from_arrays(pixels, np.arange(8) % 3)
    options = dict(images=8, batch_size=4, augment=augment)
    quantized = calibrate.quantize(model, {"conv1": QuantSpec(bits=3, clip="mse")})
    found = step(quantized, dataset=dataset, **options)
    expected = calibrate.reestimate_batchnorm(found, dataset, **options)
    np.testing.assert_allclose(found.bn1.mean[...], expected.bn1.mean[...], 1e-5, 1e-6)
    np.testing.assert_allclose(found.bn1.var[...], expected.bn1.var[...], 1e-5)
    if augment is not None:
        used_up = iter([(pixels, np.arange(8) % 3)])
        with pytest.raises(ValueError, match="read twice with augment"):
            step(quantized, dataset=used_up, **options)


def test_augmentation_of_prepared_batches_is_refused():
    with pytest.raises(ValueError, match="augment"):
        calibrate.reestimate_batchnorm(Net(), [images()], augment=data.augment)


# What quantizing does to a kernel


def lines_of(model):
    return {line.split()[0]: line for line in calibrate.describe(model).splitlines()}


def test_describe_says_what_a_bound_cuts():
    model = Net()
    w = np.array(model.stem.kernel.get_value())
    w *= 0.3 / np.abs(w).max()
    w.ravel()[:5] = [3, -3, 3, 3, -3]
    model.stem.kernel.set_value(jnp.asarray(w))
    for bits in (4, 16):
        line = lines_of(calibrate.quantize(model, {"stem": QuantSpec(bits=bits)}))
        share = 5 / w.size
        error = np.sqrt(5 * 2**2 / (w**2).sum())
        assert f"{share:.1%} beyond the bound" in line["stem"]
        if bits == 16:
            assert f"rms error {error:.1%}" in line["stem"]
            assert "WARNING: the bound leaves more error" in line["stem"]
    line = lines_of(calibrate.quantize(model, {"stem": QuantSpec(bits=16, clip="mse")}))
    assert "0.0% beyond the bound" in line["stem"]
    assert "WARNING" not in line["stem"]


@pytest.mark.parametrize("method", ["uniform", "lsq", "mint", "dorefa", "lq_net"])
def test_describe_of_every_method(method):
    model = calibrate.quantize(Net(), {"stem": QuantSpec(method, bits=4)})
    assert "rms error" in lines_of(model)["stem"]
    assert ("scale" in lines_of(model)["stem"]) == (method in ("lsq", "mint"))


def test_a_model_without_such_layers():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"snnjax\.layers: QuantConv, QuantLinear"):
        calibrate.quantize(model, {".*": QuantSpec(bits=4)})


# Shared layers and kernels


class Shared(nnx.Module):
    """A layer under three names, and two convolutions with one kernel."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.first = QuantLinear(4, 4, rngs=rngs)
        self.more = nnx.List([self.first, QuantLinear(4, 2, rngs=rngs)])
        self.last = self.first
        self.up = QuantConv(3, 5, kernel_size=1, rngs=rngs)
        self.down = QuantConv(3, 5, kernel_size=1, rngs=rngs)
        self.down.kernel = self.up.kernel


@pytest.mark.parametrize("name", ["first", "last", r"more\.0", "first|last"])
def test_a_layer_is_reached_by_any_of_its_names(name):
    model = calibrate.quantize(Shared(), {name: QuantSpec(bits=3)})
    assert model.first is model.last is model.more[0]
    assert model.first.quant is not None
    assert model.more[1].quant is None
    assert len(layer_bits(model)) == 4
    assert calibrate.memory_bits(model, {})[0] == 16 * 3 + (4 + 8 + 2 + 15) * 32


@pytest.mark.parametrize("method", ["uniform", "lsq", "lq_net"])
@pytest.mark.parametrize("name", ["up", "down", "up|down"])
def test_a_rule_for_a_shared_kernel_is_for_all_that_share_it(method, name):
    spec = QuantSpec(method, bits=2)
    model = calibrate.quantize(Shared(), {name: spec})
    np.testing.assert_array_equal(
        model.up.quantized_kernel(), model.down.quantized_kernel()
    )
    assert model.up.quant_scale is model.down.quant_scale
    assert model.up.quant.get_value() == model.down.quant.get_value()
    off = calibrate.quantize(model, {name: QuantSpec("none")})
    assert off.up.quant is None
    assert off.down.quant is None


def test_different_rules_for_a_shared_kernel_are_refused():
    rules = {"up": QuantSpec(bits=2), "down": QuantSpec(bits=3)}
    with pytest.raises(ValueError, match="share one kernel, and their rules differ"):
        calibrate.quantize(Shared(), rules)
