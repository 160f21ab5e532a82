import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from programs import equations

from snnjax import layers, models, neurons, quantize, surrogate
from snnjax.conv import neighbours
from snnjax.models.parts import norm_and_spike
from snnjax.models.sew_resnet import CONNECT, STEMS
from snnjax.quantize import QuantSpec

RESNET8 = [
    "sn1",
    *("layer1.0.sn1", "layer1.0.sn2"),
    *("layer2.0.sn1", "layer2.0.sn2", "layer2.0.downsample_sn"),
    *("layer3.0.sn1", "layer3.0.sn2", "layer3.0.downsample_sn"),
]


def resnet8(*sizes, seed=0, **options):
    defaults = {"width": 4, "in_channels": 5, "neuron": neurons.LIF(tau=1.5)}
    options = defaults | options
    model = models.sew_resnet8(*sizes, **options, rngs=nnx.Rngs(seed))
    return model if options.get("zero_init_residual") else as_trained(model, seed)


def as_trained(model, seed=0):
    """BatchNorm as training leaves it: the first values would hide its parts."""
    draw = np.random.default_rng(seed)
    for _, norm in nnx.iter_modules(model):
        if hasattr(norm, "scale"):
            shape = norm.scale.shape
            norm.scale.set_value(jnp.asarray(draw.uniform(2, 3, shape), jnp.float32))
            norm.bias.set_value(jnp.asarray(draw.normal(1, 1, shape), jnp.float32))
            norm.mean.set_value(jnp.asarray(draw.normal(size=shape) / 5, jnp.float32))
            norm.var.set_value(jnp.asarray(draw.uniform(1, 2, shape), jnp.float32))
    return model


@functools.cache
def program(graphdef, train, record):
    @jax.jit
    def run(state, x):
        model = nnx.merge(graphdef, state, copy=True)
        result = model(x, timesteps=3, train=train, record=record, outputs=True)
        return *result, nnx.state(model, nnx.BatchStat)

    return run


def run(model, x, train=False, record=None):
    """Logits, spikes and block outputs of 3 steps, and BatchNorm's statistics."""
    graphdef, state = nnx.split(model)
    return program(graphdef, train, record)(state, x)


def images(*lead):
    shape = (*lead, 2, 13, 10, 5)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def abstract(make, *sizes, **options):
    """Structure and state of a network too large to be made here."""
    make = functools.partial(make, *sizes, **options)
    return nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))


# Sizes, as in torch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "classes", "stem", "expected"),
    [
        (models.sew_resnet8, 10, "cifar", 1_227_594),
        (models.sew_resnet8, 100, "cifar", 1_250_724),
        (models.sew_resnet18, 10, "cifar", 11_173_962),
        (models.sew_resnet18, 100, "cifar", 11_220_132),
        (models.sew_resnet18, 10, "imagenet", 11_181_642),
        (models.sew_resnet18, 100, "imagenet", 11_227_812),
        (models.sew_resnet18, 1000, "imagenet", 11_689_512),
        (models.sew_resnet34, 1000, "imagenet", 21_797_672),
        (models.sew_resnet50, 1000, "imagenet", 25_557_032),
        (models.sew_resnet101, 1000, "imagenet", 44_549_160),
        (models.sew_resnet152, 1000, "imagenet", 60_192_808),
    ],
)
def test_parameters(make, classes, stem, expected):
    _, state = abstract(make, classes, stem=stem)
    sizes = [leaf.size for leaf in jax.tree.leaves(nnx.filter_state(state, nnx.Param))]
    assert sum(sizes) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "layers", "total"),
    [(models.sew_resnet8, 9, 344_064), (models.sew_resnet18, 20, 614_400)],
)
def test_neurons(make, layers, total):
    graphdef, state = abstract(make)
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    _, spikes = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, x)
    assert len(spikes) == layers
    assert {s.shape[:2] for s in spikes.values()} == {(4, 2)}
    assert sum(s.size for s in spikes.values()) == 4 * 2 * total


def test_layer_names_are_spikingjellys():
    graphdef, state = abstract(models.sew_resnet8)
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    _, spikes = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, x)
    assert set(spikes) == set(RESNET8)
    parameters = nnx.to_flat_state(nnx.filter_state(state, nnx.Param))
    names = {".".join(map(str, path)) for path, _ in parameters}
    assert names == {
        *(f"{n}.kernel" for n in ("conv1", "fc")),
        *(f"{n}.{p}" for n in ("bn1",) for p in ("scale", "bias")),
        "fc.bias",
        *(
            f"layer{i}.0.{part}"
            for i in (1, 2, 3)
            for n in (1, 2)
            for part in (f"conv{n}.kernel", f"bn{n}.scale", f"bn{n}.bias")
        ),
        *(
            f"layer{i}.0.downsample.{part}"
            for i in (2, 3)
            for part in ("0.kernel", "1.scale", "1.bias")
        ),
    }


# What it computes


def reference(model, x, timesteps, train=False, tau=1.5):
    """SEW-ResNet8 in numpy and float64, the image convolved at every time step."""

    def conv(x, layer):
        w, (pad, _) = np.asarray(layer.kernel.get_value(), float), layer.padding[0]
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[:2], (2, 3))
        step = layer.strides[0]
        return np.einsum("tbhwcij,ijck->tbhwk", windows[:, :, ::step, ::step], w)

    def spikes(x, norm):
        scale, bias, mean, var = (
            np.asarray(v.get_value(), float)
            for v in (norm.scale, norm.bias, norm.mean, norm.var)
        )
        if train:
            mean, var = x.mean((0, 1, 2, 3)), x.var((0, 1, 2, 3))
        x = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
        v, out = np.zeros(x.shape[1:]), []
        for current in x:
            v = v + (current - v) / tau
            out.append((v >= 1).astype(float))
            v = v * (v < 1)
        return np.array(out)

    x = np.broadcast_to(x.astype(float), (timesteps, *x.shape))
    found = {}
    h = found["sn1"] = spikes(conv(x, model.conv1), model.bn1)
    if model.stem == "imagenet":
        h = np.pad(h, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
        h = np.lib.stride_tricks.sliding_window_view(h, (3, 3), (2, 3))
        h = found["maxpool"] = h[:, :, ::2, ::2].max((-1, -2))
    for name, (block,) in (
        (f"layer{i}.0", getattr(model, f"layer{i}")) for i in (1, 2, 3)
    ):
        s1 = spikes(conv(h, block.conv1), block.bn1)
        branch = spikes(conv(s1, block.conv2), block.bn2)
        found |= {f"{name}.sn1": s1, f"{name}.sn2": branch}
        if block.downsample is not None:
            h = spikes(conv(h, block.downsample[0]), block.downsample[1])
            found[f"{name}.downsample_sn"] = h
        joined = {"add": h + branch, "and": h * branch, "iand": h * (1 - branch)}
        h = found[f"{name}.out"] = joined[block.connect]
    w, b = (np.asarray(v.get_value(), float) for v in (model.fc.kernel, model.fc.bias))
    return h.mean((2, 3)) @ w + b, found


@pytest.mark.parametrize("connect", ["add", "and", "iand"])
@pytest.mark.parametrize(
    ("stem", "train"),
    [
        ("cifar", False),
        pytest.param("cifar", True, marks=pytest.mark.slow),
        pytest.param("imagenet", False, marks=pytest.mark.slow),
    ],
)
def test_forward_is_numpys(connect, stem, train):
    # T, B, H, W, C, classes and width all differ.
    model, x = resnet8(6, connect=connect, stem=stem), images()
    logits, spikes, _ = run(model, x, train)
    expected, found = reference(model, x, 3, train)
    assert set(spikes) == set(found)
    for name, train in spikes.items():
        np.testing.assert_array_equal(train, found[name], err_msg=name)
        assert train.shape[:2] == (3, 2)
        assert set(np.unique(train)) <= ({0, 1, 2} if name.endswith("out") else {0, 1})
    assert logits.shape == (3, 2, 6)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    # Every layer fires at some places and not at others: else this shows nothing.
    assert all(0 < found[name].mean() < 1 for name in RESNET8)
    if connect == "add":
        assert max(train.max() for train in spikes.values()) == 2


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_pass_the_imagenet_stem(dtype):
    # Of one block: what is beyond it is no other than with the other stem.
    options = dict(width=4, in_channels=5, stem="imagenet", dtype=dtype)
    model = models.SEWResNet(6, blocks=(1,), **options, rngs=nnx.Rngs(0))
    graphdef, params, rest = nnx.split(as_trained(model), nnx.Param, ...)

    @jax.jit
    @jax.grad
    def gradient(params):
        model = nnx.merge(graphdef, params, rest, copy=True)
        return jnp.square(model(images(), timesteps=3)[0]).sum()

    for path, value in nnx.to_flat_state(gradient(params)):
        assert jnp.any(value.get_value() != 0), path


def test_connections():
    shortcut, branch = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    for name, expected in dict(
        add=[0, 1, 1, 2], **{"and": [0, 0, 0, 1]}, iand=[0, 0, 1, 0]
    ).items():
        assert CONNECT[name](shortcut, branch).tolist() == expected


@pytest.mark.parametrize(
    ("stem", "train"),
    [
        ("cifar", True),
        pytest.param("cifar", False, marks=pytest.mark.slow),
        pytest.param("imagenet", False, marks=pytest.mark.slow),
    ],
)
def test_a_still_image_is_its_own_sequence(stem, train):
    model, x = resnet8(6, stem=stem), images()
    sequence = np.broadcast_to(x, (3, *x.shape))
    results = (run(model, x, train) for x in (x, sequence))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        if not train:
            np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_sequence_is_read_in_order():
    model, x = resnet8(6), images(3)
    logits, *_ = run(model, x)
    changed = x.copy()
    changed[1] += 1
    again, *_ = run(model, changed)
    np.testing.assert_array_equal(again[:1], logits[:1])
    assert (again[1] != logits[1]).any()


def test_record_takes_the_spikes_place():
    model, x = resnet8(6), images()
    _, spikes, _ = run(model, x)
    _, sums, _ = run(model, x, record=lambda s: (s.sum(), jnp.array(s.shape)))
    assert set(sums) == set(spikes)
    for name, (total, shape) in sums.items():
        assert total == spikes[name].sum()
        assert tuple(shape) == spikes[name].shape
    plain = jax.eval_shape(lambda x: model(x)[1], x)
    assert set(plain) == set(RESNET8)
    assert set(spikes) - set(plain) == {f"layer{i}.0.out" for i in (1, 2, 3)}


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
def test_training_reaches_every_quantizer(train, monkeypatch):
    def fit(w, *, bits, **_):
        return quantize.LqState(jnp.ones((bits, w.shape[-1])), jnp.int32(0))

    def update(w, state, **_):
        shapes.append(w.shape)
        return state

    shapes = []
    monkeypatch.setattr(quantize, "lq_fit", fit)
    monkeypatch.setattr(quantize, "lq_update", update)
    spec = QuantSpec("lq_net", bits=2)
    graphdef, state = nnx.split(resnet8(weight_quant=spec, quantize_all=True))
    jax.eval_shape(
        lambda x: nnx.merge(graphdef, state, copy=True)(x, train=train)[0], images()
    )
    assert len(shapes) == (10 if train else 0)


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
def test_zero_init_silences_the_branches_at_first(train):
    for zero in (True, False):
        model = resnet8(6, zero_init_residual=zero)
        _, spikes, _ = run(model, images(), train)
        branches = [spikes[f"layer{i}.0.sn2"].sum() for i in (1, 2, 3)]
        assert not any(branches) if zero else all(branches)
        assert spikes["sn1"].any()
        if zero:
            np.testing.assert_array_equal(spikes["layer1.0.out"], spikes["sn1"])


def test_quantizers_go_where_asked():
    weight, membrane = QuantSpec(bits=2), QuantSpec(bits=4, signed=False)
    for everywhere in (False, True):
        model = resnet8(
            weight_quant=weight,
            membrane_quant=membrane,
            membrane_site="pre_fire",
            quantize_all=everywhere,
        )
        has = {
            ".".join(map(str, path)): layer.quant is not None
            for path, layer in nnx.iter_modules(model)
            if hasattr(layer, "quant")
        }
        assert {n for n in has if not has[n]} == (
            set() if everywhere else {"conv1", "sn1", "fc"}
        )
        assert len(has) == 19
        assert model.layer2[0].downsample_sn.site == "pre_fire"


def test_the_default_neuron():
    neuron = models.sew_resnet8(rngs=nnx.Rngs(0), width=4).sn1.neuron.get_value()
    numbers = (neuron.tau, neuron.v_threshold, neuron.v_reset)
    assert [float(x) for x in numbers] == [2, 1, 0]
    assert neuron.decay_input
    assert neuron.detach_reset
    assert neuron.surrogate is surrogate.atan


@pytest.mark.slow
def test_bfloat16_keeps_spikes_and_statistics():
    model = resnet8(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    logits, spikes, statistics = run(model, images(), train=True)
    assert logits.dtype == jnp.bfloat16
    for name in RESNET8:
        assert set(np.unique(spikes[name].astype(float))) <= {0, 1}
    # A parameter's dtype is not what its statistics need.
    assert {s.dtype for s in jax.tree.leaves(statistics)} == {np.dtype("float32")}


# The connection table


@pytest.mark.parametrize(
    ("make", "size", "stem"),
    [
        *itertools.product([models.sew_resnet8], [(32, 32), (21, 14)], STEMS),
        (models.sew_resnet18, (32, 32), "cifar"),
        pytest.param(models.sew_resnet18, (32, 32), "imagenet", marks=pytest.mark.slow),
        pytest.param(models.sew_resnet50, (21, 14), "imagenet", marks=pytest.mark.slow),
        pytest.param(models.sew_resnet50, (21, 14), "cifar", marks=pytest.mark.nightly),
        # Stem and blocks are theirs, and the deepest take seconds to trace.
        pytest.param(models.sew_resnet34, (21, 14), "imagenet", marks=pytest.mark.slow),
        pytest.param(
            models.sew_resnet101, (32, 32), "cifar", marks=pytest.mark.nightly
        ),
        pytest.param(
            models.sew_resnet152, (32, 32), "imagenet", marks=pytest.mark.nightly
        ),
    ],
)
def test_synapses_are_the_convolutions_of_the_program(make, size, stem, monkeypatch):
    # XLA's own algorithm, whose program has the layer's numbers.
    monkeypatch.setattr(neighbours, "count_neighbours", lambda *channels: 1)
    graphdef, state = abstract(make, 7, stem=stem, width=4, in_channels=2)
    x = jax.ShapeDtypeStruct((3, *size, 2), jnp.float32)
    program = jax.make_jaxpr(lambda s, x: nnx.merge(graphdef, s)(x))(state, x)
    found = []
    for equation in equations(program.jaxpr):
        shapes = [v.aval.shape for v in (*equation.invars, *equation.outvars)]
        if equation.primitive.name == "conv_general_dilated":
            params = equation.params
            assert params["lhs_dilation"] == params["rhs_dilation"] == (1, 1)
            assert params["feature_group_count"] == params["batch_group_count"] == 1
            image, kernel, out = shapes
            window = (kernel[:2], params["window_strides"], params["padding"])
            assert (kernel[2], kernel[3]) == (image[3], out[3])
            found.append((*window, image[1:], out[1:]))
        elif equation.primitive.name == "dot_general":
            found.append(((), (), (), shapes[0][-1:], shapes[-1][-1:]))
    table = nnx.merge(graphdef, state).synapses(size)
    assert [s[3:8] for s in table] == found
    assert all(s.groups == 1 and set(s.dilation) <= {1} for s in table)
    stem_conv, block_conv = nnx.merge(graphdef, state).synapses()[:2]
    if stem == "cifar":
        assert stem_conv[3:8] == (
            (3, 3),
            (1, 1),
            ((1, 1),) * 2,
            (32, 32, 2),
            (32, 32, 4),
        )
        assert block_conv.in_shape == (32, 32, 4)
    else:
        assert stem_conv[3:5] == ((7, 7), (2, 2))
        assert stem_conv[5:8] == (((3, 3),) * 2, (224, 224, 2), (112, 112, 4))
        assert block_conv.in_shape == (56, 56, 4)


@pytest.mark.parametrize("connect", ["add", "iand"])
def test_synapses_name_their_sources(connect):
    table = {s.name: s for s in resnet8(connect=connect).synapses()}
    first = ("sn1", "layer1.0.sn2")
    second = ("layer2.0.downsample_sn", "layer2.0.sn2")
    expected = {
        "conv1": ("input",),
        "layer1.0.conv1": ("sn1",),
        "layer1.0.conv2": ("layer1.0.sn1",),
        "layer2.0.conv1": first,
        "layer2.0.conv2": ("layer2.0.sn1",),
        "layer2.0.downsample.0": first,
        "layer3.0.conv1": second,
        "layer3.0.conv2": ("layer3.0.sn1",),
        "layer3.0.downsample.0": second,
        "fc": ("layer3.0.downsample_sn", "layer3.0.sn2"),
    }
    assert {name: s.sources for name, s in table.items()} == expected
    for s in table.values():
        assert len(s.sources) == 1 or s.connect == connect


def test_synapses_without_downsampling_have_all_the_shortcuts_sources():
    graphdef, state = abstract(models.sew_resnet18, width=4)
    table = {s.name: s for s in nnx.merge(graphdef, state).synapses()}
    assert table["layer1.1.conv1"].sources == ("sn1", "layer1.0.sn2")
    assert table["layer2.0.downsample.0"].sources == (
        "sn1",
        "layer1.0.sn2",
        "layer1.1.sn2",
    )
    assert table["layer3.0.conv1"].sources[0] == "layer2.0.downsample_sn"


# Errors


PRESETS = [n for n in dir(models) if n.startswith(("sew_resnet", "spiking_vgg"))]
PRESETS = [n for n in PRESETS if inspect.isfunction(getattr(models, n))]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_signature_of_their_network(name):
    preset = getattr(models, name)
    network = models.SEWResNet if name.startswith("sew") else models.SpikingVGG
    options = inspect.signature(network.__init__).parameters
    expected = [n for n in options if n not in ("self", "block", "blocks", "stages")]
    assert list(inspect.signature(preset).parameters) == expected
    assert inspect.signature(preset).parameters["num_classes"].default == 10


def test_learned_levels_of_membranes_under_jit():
    quant = QuantSpec("lq_net", bits=2, clip=1.0, signed=False)
    options = dict(membrane_quant=quant, rngs=nnx.Rngs(0))
    model = models.SEWResNet(3, blocks=(1,), width=2, in_channels=1, **options)
    x = 5 * jnp.ones((2, 6, 6, 1))
    logits, _ = nnx.jit(lambda model, x: model(x, timesteps=2))(model, x)
    assert np.isfinite(logits).all()


@pytest.mark.slow
@pytest.mark.parametrize("steps", [8, 12, 16])
@pytest.mark.parametrize("method", ["lsq", "lq_net"])
def test_a_learned_membrane_has_its_layers_gradient_for_any_t(steps, method):
    """1 / sqrt(N) counts all steps, also where a network takes them in chunks."""
    spec = QuantSpec(method, bits=3, clip=1.0)
    norm, spiking = layers.BatchNorm(3), layers.Spiking(neurons.LIF(), quant=spec)
    h = jax.random.normal(jax.random.key(0), (steps, 2, 3)) + 0.5
    weights = jax.random.normal(jax.random.key(1), h.shape)

    @nnx.jit(static_argnums=1)
    def gradient(spiking, whole):
        def loss(spiking):
            if whole:
                spikes = norm_and_spike(norm, spiking, h, train=False)
            else:
                spikes = spiking(norm(h, train=False))
            return jnp.sum(spikes * weights)

        return nnx.grad(loss)(spiking)

    found, expected = (gradient(spiking, x).quant_scale[...] for x in (True, False))
    assert jnp.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["block", "full"])
def test_blocks_that_see_no_whole_numbers_have_no_gradient(remat):
    """They are kept as int8, so that NaN says what a wrong number would hide."""

    def graded(v, x, *, share):
        v = v * jnp.asarray(0.5, v.dtype) + x
        spikes = surrogate.atan(v - 1)
        return v * (1 - spikes), share * spikes

    model = models.sew_resnet8(
        3,
        width=2,
        neuron=lambda c: (
            neurons.from_step(graded, share=0.25) if c == 2 else neurons.LIF()
        ),
        remat=remat,
        rngs=nnx.Rngs(0),
    )
    model.train()
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    gradient = nnx.jit(nnx.grad(lambda m: jnp.sum(jnp.square(m(x)[0]))))(model)
    assert jnp.isnan(gradient.conv1.kernel[...]).all()
