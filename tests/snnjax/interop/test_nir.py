"""Graphs of NIR: run by NIR's equations they fire as the network does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import calibrate, layers, models, neurons
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
                pads = [(p, p) for p in node.padding]
                x = jax.lax.conv_general_dilated(x, node.weight, node.stride, pads)
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
            elif isinstance(node, nir.AvgPool2d):
                assert x.shape[2:] == tuple(node.kernel_size)
                x = x.mean((2, 3), keepdims=True)
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
QUANT = QuantSpec(method="uniform", bits=3, clip=0.5, grid="mid_rise")


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "dt"), [*((n, 1e-4) for n in NEURONS), ("if", 1.0)])
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
    vgg = models.spiking_vgg_small(5, width=2, image_size=(16, 16), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"a models\.SEWResNet, got SpikingVGG"):
        interop.graph(vgg)
