"""Graphs of NIR: run by NIR's equations they fire as the network does."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins
from flax import nnx

from snnjax import calibrate, integer, layers, models, neurons
from snnjax.interop import nir as interop
from snnjax.quantize import QuantSpec

nir = pytest.importorskip("nir")

SIZE, STEPS = (8, 6), 3
IMAGE = (2, *SIZE, 3)


def make(make_model=models.sew_resnet8, bound=(0.0, 3.0), **options):
    """A network whose BatchNorm has seen data and whose neurons all fire."""
    options = {"width": 4, "param_dtype": jnp.float64} | options
    model = make_model(5, **options, rngs=nnx.Rngs(0))
    generator = np.random.default_rng(0)
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.BatchStat)):
        low, high = (0.5, 1.5) if path[-1] == "var" else (-0.2, 0.2)
        old = variable.get_value()
        drawn = generator.uniform(low, high, old.shape)
        variable.set_value(jnp.asarray(drawn, old.dtype))
    for _, layer in nnx.iter_modules(model):
        if isinstance(layer, layers.BatchNorm):
            bias = layer.bias.get_value()
            drawn = generator.uniform(*bound, bias.shape)
            layer.bias.set_value(jnp.asarray(drawn, bias.dtype))
    return model


def run(graph, image, steps, dt):
    """The graph by NIR's equations, in Euler steps: spikes and outputs of each step."""
    before = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
    order, left = [], dict(before)
    while left:
        ready = [name for name, sources in left.items() if not set(sources) & set(left)]
        order += ready
        left = {name: sources for name, sources in left.items() if name not in ready}
    v, spikes, outputs = {}, {}, []
    for _ in range(steps):
        at = {}
        for name in order:
            node = graph.nodes[name]
            x = sum(at[source] for source in before[name])
            if isinstance(node, nir.Input):
                x = image
            elif isinstance(node, nir.Conv2d):
                pads = node.padding
                pads = pads.upper() if pads == "same" else [(p, p) for p in pads]
                x = jax.lax.conv_general_dilated(
                    x, node.weight, node.stride, pads, rhs_dilation=node.dilation
                )
                x = np.asarray(x) + node.bias[:, None, None]
            elif isinstance(node, (nir.LIF, nir.IF)):
                old = v.get(name, np.broadcast_to(node.v_reset, x.shape))
                if isinstance(node, nir.LIF):
                    h = old + dt / node.tau * (node.v_leak - old + node.r * x)
                else:
                    h = old + dt * node.r * x
                x = (h > node.v_threshold).astype(h.dtype)
                v[name] = np.where(x > 0, node.v_reset, h)
                spikes.setdefault(name, []).append(x)
            elif isinstance(node, (nir.AvgPool2d, nir.SumPool2d)):
                reduce = np.mean if isinstance(node, nir.AvgPool2d) else np.sum
                high, wide = node.kernel_size
                assert tuple(node.stride) == (high, wide)
                n, c, h, w = x.shape
                x = x[..., : h // high * high, : w // wide * wide]
                parts = n, c, h // high, high, w // wide, wide
                x = reduce(x.reshape(parts), (3, 5))
            elif isinstance(node, nir.Flatten):
                x = x.reshape(len(x), -1)
            elif isinstance(node, nir.Affine):
                x = x @ node.weight.T + node.bias
            else:
                assert isinstance(node, nir.Output)
                assert len(before[name]) == 1  # readers do not sum there
                outputs.append(x)
            at[name] = x
    return {k: np.stack(s) for k, s in spikes.items()}, np.stack(outputs)


NEURONS = {
    "lif": neurons.LIF(),
    "not decayed": neurons.LIF(tau=1.7, decay_input=False, v_threshold=1.8),
    "rest": neurons.LIF(v_reset=-0.1),
    "if": neurons.IF(),
    "plif": neurons.PLIF(tau=3.0),
}
# The others by night.
CASES = [
    pytest.param(
        n, marks=pytest.mark.slow if n in ("lif", "if") else pytest.mark.nightly
    )
    for n in NEURONS
]
QUANT = QuantSpec(method="uniform", bits=3, clip=0.5, grid="mid_rise")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "dt"),
    [
        *(pytest.param(*case.values, 1e-4, marks=case.marks) for case in CASES),
        pytest.param("if", 1.0, marks=pytest.mark.slow),
    ],
)
def test_it_fires_as_the_network_does(name, dt):
    model = make(neuron=NEURONS[name])
    image = np.random.default_rng(1).normal(size=IMAGE)
    logits, spikes = model(jnp.asarray(image), timesteps=STEPS)
    graph = interop.graph(model, image_size=SIZE, dt=dt)
    found, outputs = run(graph, image.transpose(0, 3, 1, 2), STEPS, dt)
    assert {k.replace(".", "_") for k in spikes} == set(found)
    for layer, train in spikes.items():
        own = np.asarray(train).transpose(0, 1, 4, 2, 3)
        np.testing.assert_array_equal(found[layer.replace(".", "_")], own)
        assert 0.02 < own.mean() < 0.98, layer
    np.testing.assert_allclose(outputs, logits, atol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_quantized_weights_are_written_as_they_act():
    plain = make(models.SEWResNet, blocks=(1, 2), width=2)
    model = calibrate.quantize(plain, {r"layer.*conv\d|fc": QUANT})
    image = np.random.default_rng(1).normal(size=IMAGE)
    logits, spikes = model(jnp.asarray(image), timesteps=STEPS)
    graph = interop.graph(model, image_size=SIZE, dt=1e-4)
    found, outputs = run(graph, image.transpose(0, 3, 1, 2), STEPS, 1e-4)
    last = np.asarray(spikes["layer2.1.sn2"]).transpose(0, 1, 4, 2, 3)
    np.testing.assert_array_equal(found["layer2_1_sn2"], last)
    np.testing.assert_allclose(outputs, logits, atol=1e-9)
    assert len(np.unique(graph.nodes["fc"].weight)) <= 2**3
    assert graph.nodes["layer1_0_conv1"].metadata["bits"] == 3
    assert graph.nodes["conv1"].metadata == {}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_parameters_are_written_as_float32(tmp_path, dtype):
    """Membranes are float32 whatever the parameters are: so is the threshold."""
    graph = interop.graph(make(param_dtype=dtype), image_size=SIZE)
    nir.write(tmp_path / "net.nir", graph)
    node = nir.read(tmp_path / "net.nir").nodes["sn1"]
    assert node.v_threshold.dtype == np.float32
    assert (np.nextafter(node.v_threshold, np.float32(2)) == 1).all()
    assert graph.nodes["fc"].weight.dtype == graph.nodes["conv1"].bias.dtype == "f4"


def test_numbers_of_each_channel_are_each_channels():
    thresholds = np.arange(1.0, 5.0, dtype=np.float32)
    neuron = neurons.LIF(v_threshold=thresholds)
    model = models.SEWResNet(5, blocks=(1,), width=4, neuron=neuron, rngs=nnx.Rngs(0))
    node = interop.graph(model, image_size=SIZE).nodes["layer1_0_sn2"]
    assert node.v_threshold.shape == (4, *SIZE)
    np.testing.assert_allclose(node.v_threshold[:, 2, 3], thresholds, rtol=1e-6)


def test_at_exactly_the_threshold_it_fires_too():
    graph = interop.graph(make(param_dtype=jnp.float32), image_size=SIZE)
    threshold = graph.nodes["sn1"].v_threshold
    assert threshold.dtype == np.float32
    assert (threshold < 1).all()
    assert (np.nextafter(threshold, np.float32(2)) == 1).all()


@pytest.mark.slow
def test_a_file_of_it_is_read_as_the_same_graph(tmp_path):
    model = calibrate.quantize(make(param_dtype=jnp.float32), {r"layer.*conv\d": QUANT})
    graph = interop.graph(model, image_size=SIZE)
    nir.write(tmp_path / "net.nir", graph)
    again = nir.read(tmp_path / "net.nir")
    assert sorted(again.edges) == sorted(graph.edges)
    assert set(again.nodes) == set(graph.nodes)
    for name, node in graph.nodes.items():
        other = again.nodes[name]
        assert type(other) is type(node)
        for field in ("weight", "bias", "tau", "r", "v_threshold", "v_reset", "v_leak"):
            if hasattr(node, field):
                np.testing.assert_array_equal(
                    getattr(other, field), getattr(node, field)
                )


@pytest.mark.parametrize(
    ("options", "more", "said"),
    [
        ({"stem": "imagenet"}, {}, "no max pooling: make the model with stem="),
        ({"connect": "iand"}, {}, r'connect="add", got \[\'iand\'\]'),
        ({"neuron": neurons.LIF(v_reset=None)}, {}, "no soft reset"),
        (
            {"membrane_quant": QuantSpec(bits=4, clip=1.0)},
            {},
            "layer1.0.sn1 has 4 bits",
        ),
        ({}, {"dt": 0.0}, "dt must be positive"),
        ({}, {"dt": np.ones(2)}, "dt must be a number"),
        ({}, {"dt": 1e-50}, "dt of 1e-50 makes tau 0 or infinite in float32"),
        ({}, {"image_size": (8, 0)}, r"image_size must be \(height, width\)"),
    ],
)
def test_what_nir_cannot_say_is_refused(options, more, said):
    model = make(param_dtype=jnp.float32, **options)
    with pytest.raises(ValueError, match=said):
        interop.graph(model, **more)


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match=r"a models\.SEWResNet or"):
        interop.graph(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))


VGG = dict(stages=((1, 1), (2, 2)), image_size=(8, 6), width=3)


def assert_same(one, other):
    """Equal nodes, of the same edges."""
    assert sorted(one.edges) == sorted(other.edges)
    assert one.nodes.keys() == other.nodes.keys()
    for name, node in one.nodes.items():
        assert type(other.nodes[name]) is type(node)
        for field in ("weight", "bias", "tau", "r", "v_threshold", "v_reset", "v_leak"):
            if hasattr(node, field):
                there = getattr(other.nodes[name], field)
                np.testing.assert_array_equal(there, getattr(node, field))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("make_model", [models.sew_resnet8, models.SpikingVGG])
def test_out_and_in(name, make_model, tmp_path):
    options = VGG if make_model is models.SpikingVGG else {}
    model = make(make_model, neuron=NEURONS[name], **options)
    graph = interop.graph(model, image_size=SIZE)
    nir.write(tmp_path / "net.nir", graph)
    again = interop.load(tmp_path / "net.nir")
    image = np.random.default_rng(1).normal(size=IMAGE)
    (logits, spikes), (found, trains) = (
        jax.jit(lambda m, x: m(x, timesteps=STEPS))(m, image) for m in (model, again)
    )
    assert {name.replace(".", "_") for name in spikes} == trains.keys()
    for layer, train in spikes.items():
        np.testing.assert_array_equal(trains[layer.replace(".", "_")], train)
        assert 0.02 < train.mean() < 0.98, layer
    np.testing.assert_allclose(found, logits, atol=1e-9)
    third = interop.graph(again)
    assert_same(interop.graph(interop.load(third)), third)
    # NIR's own equations say the same of a network with pooling.
    if make_model is models.SpikingVGG:
        _, outputs = run(graph, image.transpose(0, 3, 1, 2), STEPS, 1e-4)
        np.testing.assert_allclose(outputs, logits, atol=1e-9)


@pytest.mark.nightly
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("in_shape", [(8, 8, 1), (16,)])
def test_layers_of_ones_own(in_shape):
    with_scale = QuantSpec(bits=4, clip="absmax")
    model = twins.make_sequential(neurons.LIF(tau=3.0), with_scale, in_shape, (3, 3))
    x = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (5, *in_shape)))
    again = interop.load(interop.graph(model))
    (logits, spikes), (found, trains) = model(x), again(x)
    assert spikes.keys() == trains.keys()
    for layer, train in spikes.items():
        np.testing.assert_array_equal(np.asarray(trains[layer]), np.asarray(train))
        assert 0.02 < train.mean() < 0.98, layer
    np.testing.assert_allclose(found, logits, atol=1e-6)


def test_kernels_that_the_package_mistakes_are_refused():
    with pytest.raises(ValueError, match="square"):
        interop.graph(twins.make_sequential(neurons.LIF(), None))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_what_is_loaded_is_quantized_counted_and_made_whole():
    plain = interop.load(interop.graph(make(models.SpikingVGG, **VGG)))
    assert plain.nodes[0].name == "sn1"
    spec = QuantSpec(bits=4, clip="absmax")
    model = calibrate.quantize(plain, {"conv[23]": spec})
    image = np.random.default_rng(1).normal(size=IMAGE)
    twin = integer.from_model(model)
    found = integer.count_differences(twin, model, image)
    assert not any(layer.differing for layer in found.values())
    assert all(layer.fired > 0.02 * layer.size for layer in found.values())
    fed = {row.name: row.sources for row in model.synapses()}
    fed_in_the_original = make(models.SpikingVGG, **VGG).synapses()
    assert fed == {row.name: row.sources for row in fed_in_the_original}


def chain(order="", **changes):
    """A graph of one convolution, neurons and a linear layer, as others write it."""
    full = np.ones((2, 4, 4), np.float32)
    neuron = dict(tau=2e-4 * full, r=full, v_leak=0 * full, v_threshold=full)
    nodes = {
        "in": nir.Input({"input": np.array([1, 4, 4])}),
        "a": nir.Conv2d(
            (4, 4), np.ones((2, 1, 3, 3), np.float32), 1, 1, 1, 1, np.zeros(2)
        ),
        "b": nir.LIF(**neuron, v_reset=0 * full),
        "c": nir.Flatten({"input": np.array([2, 4, 4])}, 0, -1),
        "d": nir.Linear(np.ones((3, 32), np.float32)),
        "out": nir.Output({"output": np.array([3])}),
    } | changes
    names = order.split() or list(nodes)
    return nir.NIRGraph(nodes, list(itertools.pairwise(names)))


def test_both_forms_of_a_neuron_are_read():
    full = np.ones((2, 4, 4), np.float32)
    one = interop.load(chain())
    tau = 2e-4 * full
    other = nir.LIF(tau, 2 * full, 0 * full, full, 0 * full)
    two = interop.load(chain(b=other))
    # R = 1 scales the input by 1 / tau, R = tau / dt leaves it.
    np.testing.assert_array_equal(
        2 * one.a.kernel.get_value(), two.a.kernel.get_value()
    )
    x = jnp.ones((1, 4, 4, 1))
    logits, spikes = one(x, timesteps=2)
    assert logits.shape == (2, 1, 3)
    # The sums are 4, 6, 9 over tau: 2 and more, above 1 at once.
    assert spikes["b"].mean() == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b": nir.Threshold(np.ones((2, 4, 4)))}, "b is a Threshold"),
        (
            {
                "b": nir.LIF(
                    *(np.full((2, 4, 4), x, np.float32) for x in (1e-5, 1, 0, 1, 0))
                )
            },
            "tau of b must be above dt",
        ),
        (
            {
                "b": nir.LIF(
                    *(np.full((2, 4, 4), x, np.float32) for x in (2e-4, 1, 0.5, 1, 0))
                )
            },
            "v_leak of b",
        ),
    ],
)
def test_what_is_not_read_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        interop.load(chain(**changes))


def test_what_is_no_graph_is_refused(tmp_path):
    (tmp_path / "net.nir").write_text("no file of NIR")
    for graph in (tmp_path / "net.nir", tmp_path / "absent.nir", {}):
        with pytest.raises(ValueError, match="graph must be"):
            interop.load(graph)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_scales_for_a_file_beside_the_graph():
    spec = QuantSpec("lq_net", bits=2)
    rules = {r"conv2": QUANT, r"conv3": spec, "sn3": QuantSpec(bits=4, clip=2.0)}
    model = calibrate.quantize(make(models.SpikingVGG, **VGG), rules)
    described = json.loads(json.dumps(interop.describe_quantizers(model)))["nodes"]
    assert described["sn3"]["bits"] == 4
    assert described.keys() == {"conv2", "conv3", "sn3"}
    plain = calibrate.quantize(model, {"sn3": QuantSpec("none")})
    nodes = interop.graph(plain).nodes
    scale = np.array(described["conv2"]["scale"])[:, None, None, None]
    codes = nodes["conv2"].weight / scale
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-4)
    assert np.abs(codes).max() <= 2**3 - 1 + 1e-4
    levels = np.array(described["conv3"]["levels"])
    for c, kernel in enumerate(nodes["conv3"].weight):
        away = np.abs(kernel.ravel()[:, None] - levels[:, c]).min(1)
        assert away.max() < 1e-6


def sequential(*middle, linear=True):
    """A network of these layers, with a linear layer behind them or none."""
    names = dict(zip("abcdef", middle, strict=False))
    flat = models.Sequential(names | {"flatten": layers.Flatten()}, in_shape=(8, 9, 1))
    if not linear:
        return flat
    size = flat.shapes()["flatten"][-1]
    fc = layers.QuantLinear(size, 3, rngs=nnx.Rngs(9))
    return models.Sequential(flat.layers() | {"fc": fc}, in_shape=(8, 9, 1))


def conv(inputs, outputs, kernel=3, **options):
    options = dict(kernel_size=kernel, padding=kernel // 2) | options
    return layers.QuantConv(inputs, outputs, **options, rngs=nnx.Rngs(outputs))


def fire(threshold=0.2):
    return layers.Spiking(neurons.LIF(v_threshold=threshold))


@pytest.mark.parametrize(
    "middle",
    [
        (conv(1, 3), fire(), layers.MaxPool((2, 3), strides=2), conv(3, 4), fire(0.1)),
        (conv(1, 3), fire(), layers.MaxPool((2, 1)), conv(3, 4), fire(0.1)),
        (layers.AvgPool(2, strides=1), conv(1, 3), fire()),
        (conv(1, 3), fire(), layers.SumPool(2), conv(3, 4), fire(0.1)),
        (conv(1, 3, dilation=2), fire()),
        (layers.Flatten(), layers.QuantLinear(72, 6, rngs=nnx.Rngs(0)), fire()),
        (conv(1, 3), fire(), layers.QuantLinear(3, 5, rngs=nnx.Rngs(0)), fire(0.1)),
    ],
    ids=["window", "one axis", "pool first", "sum", "dilated", "flat", "each position"],
)
@pytest.mark.usefixtures("x64")
def test_networks_of_other_layers_out_and_in(middle):
    """A still image, and the same at every step."""
    model = sequential(*middle)
    again = interop.load(interop.graph(model))
    x = jnp.asarray(np.random.default_rng(1).uniform(0, 2, (5, 8, 9, 1)))
    (logits, spikes), (found, trains) = model(x, timesteps=4), again(x, timesteps=4)
    assert found.shape == logits.shape == (4, 5, 3)
    assert spikes.keys() == trains.keys()
    for name, train in spikes.items():
        np.testing.assert_array_equal(trains[name], train)
        assert 0.02 < train.mean() < 0.98, name
    np.testing.assert_allclose(found, logits, atol=1e-6)
    every, _ = again(jnp.stack([x] * 4))
    np.testing.assert_array_equal(every, found)


def test_a_network_that_ends_in_pooling_out_and_in():
    middle = (conv(1, 3), fire(), conv(3, 5, 1), fire(0.1), layers.AvgPool(None))
    model = sequential(*middle, linear=False)
    again = interop.load(interop.graph(model))
    x = jnp.asarray(np.random.default_rng(1).uniform(0, 2, (5, 8, 9, 1)), jnp.float32)
    np.testing.assert_allclose(again(x)[0], model(x)[0], atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_spikes_are_the_logits_of_a_graph_that_ends_in_neurons():
    """As snnTorch and SpikingJelly write them; by NIR's own equations."""
    rng = np.random.default_rng(0)
    full, last = np.ones((2, 4, 4)), np.ones(3)
    graph = chain(
        a=nir.Conv2d(
            (4, 4), rng.normal(size=(2, 1, 3, 3)), 1, "same", 1, 1, np.zeros(2)
        ),
        b=nir.LIF(2e-4 * full, 2 * full, 0 * full, 0.5 * full, 0 * full),
        p=nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        c=nir.Flatten({"input": np.array([2, 2, 2])}, 0, -1),
        d=nir.Affine(rng.normal(size=(3, 8)), np.zeros(3)),
        e=nir.LIF(3e-4 * last, 3 * last, 0 * last, last, 0 * last),
        order="in a b p c d e out",
    )
    image = rng.uniform(0, 2, (16, 1, 4, 4))
    model = interop.load(graph)
    logits, spikes = model(jnp.asarray(image.transpose(0, 2, 3, 1)), timesteps=5)
    trains, outputs = run(graph, image, 5, 1e-4)
    assert logits.shape == (5, 16, 3)
    assert 0.1 < outputs.mean() < 0.9
    np.testing.assert_array_equal(logits, outputs)
    np.testing.assert_array_equal(spikes["e"], outputs)
    np.testing.assert_array_equal(spikes["b"], np.moveaxis(trains["b"], 2, -1))
    assert_same(interop.graph(interop.load(interop.graph(model))), interop.graph(model))


@pytest.mark.parametrize(
    ("stride", "kernel"), [(2, (3, 3)), (1, (2, 2))], ids=["strides", "even"]
)
def test_padding_of_one_side_is_refused(stride, kernel):
    weight = np.ones((2, 1, *kernel), np.float32)
    uneven = nir.Conv2d((4, 4), weight, stride, "same", 1, 1, np.zeros(2))
    with pytest.raises(ValueError, match="a must have padding in numbers"):
        interop.load(chain(a=uneven))


def test_time_constants_of_each_channel_come_back():
    taus = neurons.LIF(np.linspace(1.2, 6, 3).astype(np.float32), v_threshold=0.3)
    model = sequential(conv(1, 3), layers.Spiking(taus))
    again = interop.load(interop.graph(model))
    x = jnp.asarray(np.random.default_rng(1).uniform(0, 2, (5, 8, 9, 1)), jnp.float32)
    found, expected = again(x)[1]["b"], model(x)[1]["b"]
    assert 0.02 < expected.mean() < 0.98
    assert np.mean(np.asarray(found) != np.asarray(expected)) < 1e-3
    rows = neurons.LIF(np.linspace(1.2, 6, 8).astype(np.float32).reshape(8, 1, 1))
    with pytest.raises(ValueError, match="tau of b must be one number"):
        interop.graph(sequential(conv(1, 8), layers.Spiking(rows)))


def test_another_step_than_the_graph_was_written_with_is_refused(tmp_path):
    model = sequential(conv(1, 3), fire())
    nir.write(tmp_path / "net.nir", interop.graph(model, dt=1e-3))
    with pytest.raises(ValueError, match=r"dt must be 0\.001, with which b was"):
        interop.load(tmp_path / "net.nir")
    assert interop.load(tmp_path / "net.nir", dt=1e-3).nodes


def test_maxima_of_numbers_are_refused():
    model = sequential(conv(1, 3), layers.MaxPool(2), conv(3, 4), fire())
    with pytest.raises(ValueError, match="b sees none"):
        interop.graph(model)
