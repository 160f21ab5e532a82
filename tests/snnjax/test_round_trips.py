"""Files hold the choices of a network: it comes back the same, or is refused."""

import contextlib
import functools
import random

import jax
import numpy as np
import orbax.checkpoint
import pytest
from flax import nnx

from snnjax import calibrate, checkpoint, layers, models, neurons, surrogate
from snnjax.quantize import QuantSpec

X = 10 * jax.random.normal(jax.random.key(0), (2, 8, 8, 1))


def draw_weight_spec(draw):
    method = draw.choice(["uniform", "dorefa", "lsq", "lq_net", "mint", "none"])
    bits = draw.choice([2, 3, 4])
    if method in ("dorefa", "none"):
        return QuantSpec(method, bits=bits)
    if method in ("lq_net", "mint"):
        return QuantSpec(method, bits=bits, clip=draw.choice([1.0, 2.5]))
    grid = draw.choice(["mid_rise", "mid_tread"])
    per_channel = draw.random() < 0.3
    clip = None if per_channel else draw.choice([0.5, 1.0, 10.0])
    options = {"grid": grid} if method == "uniform" else {}
    return QuantSpec(method, bits=bits, clip=clip, per_channel=per_channel, **options)


def draw_membrane_spec(draw):
    method = draw.choice(["uniform", "lsq", "lq_net", "none"])
    signed = draw.random() < 0.5
    clip = draw.choice([1.0, 2.0])
    grid = {"grid": "mid_tread"} if method == "uniform" else {}
    return QuantSpec(method, bits=draw.choice([2, 4]), clip=clip, signed=signed, **grid)


def draw_neuron(draw):
    options = {
        "v_reset": draw.choice([0.0, None]),
        "v_threshold": draw.choice([0.3, 0.5]),
        "surrogate": draw.choice([surrogate.atan, surrogate.sigmoid]),
        "detach_reset": draw.random() < 0.5,
    }
    kind = draw.choice([neurons.LIF, neurons.IF, neurons.PLIF])
    if kind is not neurons.IF:
        options["decay_input"] = draw.random() < 0.5
        options["tau"] = draw.choice([1.5, 2.0])
    return kind(**options)


def draw_network(seed):
    """Draw a network of either family that fires, with every kind of choice."""
    draw = random.Random(seed)
    options = {"width": 2, "in_channels": 1, "neuron": draw_neuron(draw)}
    options["rngs"] = nnx.Rngs(seed)
    if draw.random() < 0.25:
        stages = ((1, 1), (1, 2))
        model = models.SpikingVGG(3, stages=stages, image_size=(8, 8), **options)
        weights, membranes = r"conv2|fc", r"sn\d"
    else:
        options["connect"] = draw.choice(["add", "and", "iand"])
        options["stem"] = draw.choice(["cifar", "imagenet"])
        model = models.SEWResNet(3, blocks=draw.choice([(1,), (1, 1)]), **options)
        weights, membranes = r"layer.*(conv\d|downsample\.0)|fc", r"layer.*sn\d"
    rules = {weights: draw_weight_spec(draw), membranes: draw_membrane_spec(draw)}
    site = draw.choice(["post_reset", "pre_fire"])
    rng = np.random.default_rng(seed)
    model = calibrate.quantize(model, rules, membrane_site=site)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, layers.BatchNorm):
            shape = module.bias.shape
            module.bias.set_value(jax.numpy.asarray(rng.uniform(0, 1, shape), "f4"))
    return model


@functools.partial(jax.jit, static_argnums=0)
def compute_logits(graph, state):
    return nnx.merge(graph, state)(X, timesteps=3)[0]


def logits(model):
    return np.asarray(compute_logits(*nnx.split(model)))


def assert_round_trip(seed, folder):
    """Assert bit-equal logits through every form of a file, or a refusal."""
    model = draw_network(seed)
    expected = logits(model)
    like = nnx.eval_shape(lambda: draw_network(seed))
    other = draw_network(seed + 1000)
    for packed in (True, False):
        file = folder / f"{seed}-{packed}.safetensors"
        checkpoint.export(file, model, packed=packed)
        np.testing.assert_array_equal(logits(checkpoint.load(file)), expected)
        np.testing.assert_array_equal(logits(checkpoint.load(file, like)), expected)
        with contextlib.suppress(ValueError):
            np.testing.assert_array_equal(
                logits(checkpoint.load(file, other)), expected
            )

    graph, state = nnx.split(model)
    checkpoint.save(folder / f"{seed}", state)
    loaded = checkpoint.load(folder / f"{seed}", nnx.split(like)[1])
    np.testing.assert_array_equal(logits(nnx.merge(graph, loaded)), expected)
    with contextlib.suppress(ValueError):
        graph, theirs = nnx.split(other)
        loaded = checkpoint.load(folder / f"{seed}", theirs)
        np.testing.assert_array_equal(logits(nnx.merge(graph, loaded)), expected)

    graph, abstract = nnx.split(like)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / f"{seed}-orbax", state)
        checkpointer.wait_until_finished()
        loaded = checkpointer.restore(folder / f"{seed}-orbax", abstract)
    np.testing.assert_array_equal(logits(nnx.merge(graph, loaded)), expected)

    nnx.replace_by_pure_dict(abstract, nnx.to_pure_dict(state))
    np.testing.assert_array_equal(logits(nnx.merge(graph, abstract)), expected)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1))
def test_drawn_networks_come_back(seed, tmp_path):
    assert_round_trip(seed, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(1, 200))
def test_many_drawn_networks_come_back(seed, tmp_path):
    assert_round_trip(seed, tmp_path)


def network(**options):
    rngs = nnx.Rngs(0)
    return models.SEWResNet(
        3, blocks=(1,), width=2, in_channels=1, rngs=rngs, **options
    )


def test_a_difference_is_named(tmp_path):
    file = checkpoint.export(tmp_path / "net.safetensors", network(connect="iand"))
    with pytest.raises(ValueError, match=r"connect of .*'iand' there and 'add' here"):
        checkpoint.load(file, network())
    rule = r"layer.*conv\d"
    tread, rise = (
        calibrate.quantize(network(), {rule: QuantSpec(bits=4, clip=1.0, grid=grid)})
        for grid in ("mid_tread", "mid_rise")
    )
    file = checkpoint.export(tmp_path / "net.safetensors", tread)
    with pytest.raises(ValueError, match=r"grid of layer1.0.conv1.quant is 'mid_tr"):
        checkpoint.load(file, rise)


def test_a_surrogate_of_ones_own_needs_the_network(tmp_path):
    own = surrogate.custom(lambda x, alpha: jax.nn.sigmoid(alpha * x))
    model = network(neuron=neurons.LIF(surrogate=own))
    file = checkpoint.export(tmp_path / "net.safetensors", model)
    with pytest.raises(ValueError, match="surrogate of its own"):
        checkpoint.load(file)
    np.testing.assert_array_equal(logits(checkpoint.load(file, model)), logits(model))


class Own(nnx.Module):
    def __init__(self, rngs, bits=4):
        spec = QuantSpec(bits=bits, clip=1.0, grid="mid_tread")
        self.fc = layers.QuantLinear(4, 2, quant=spec, rngs=rngs)


def test_a_network_of_ones_own_needs_the_network(tmp_path):
    model = Own(nnx.Rngs(0))
    file = checkpoint.export(tmp_path / "net.safetensors", model)
    with pytest.raises(ValueError, match=r"is a .*Own, which snnjax cannot build"):
        checkpoint.load(file)
    again = checkpoint.load(file, Own(nnx.Rngs(1), bits=2))
    # Bits are numbers of the file, as weights are.
    np.testing.assert_array_equal(
        again.fc.quantized_kernel(), model.fc.quantized_kernel()
    )
