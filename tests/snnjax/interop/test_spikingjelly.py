"""Names, layouts and files; that the numbers mean the same, tests/golden shows."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins
from flax import nnx
from safetensors.numpy import save_file

from snnjax import calibrate, layers, models, neurons
from snnjax.interop import spikingjelly
from snnjax.quantize import QuantSpec


def make(seed=0, **options):
    options = dict(width=4, rngs=nnx.Rngs(seed)) | options
    return models.sew_resnet8(10, **options)


@pytest.fixture
def state():
    """Random numbers under SpikingJelly's names."""
    rng = np.random.default_rng(0)
    return {
        key: rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
        for key, x in spikingjelly.save(make()).items()
    }


def in_containers(state, module):
    """The paper's layout: convolution and BatchNorm in one container."""
    renamed = {}
    for key, value in state.items():
        container = r"\1conv\2." + module
        key = re.sub(r"(layer.*\.)conv(\d)\.", container + "0.", key)
        key = re.sub(r"(layer.*\.)bn(\d)\.", container + "1.", key)
        key = re.sub(r"downsample\.(\d)\.", rf"downsample.0.{module}\1.", key)
        renamed[key] = value
    return renamed


LAYOUTS = {
    "spikingjelly": lambda state: state,
    "paper": lambda state: in_containers(state, "module."),
    "container": lambda state: in_containers(state, ""),
    "data parallel": lambda state: {f"module.{k}": v for k, v in state.items()},
    "paper, data parallel": lambda state: {
        f"module.{k}": v for k, v in in_containers(state, "module.").items()
    },
    "with counters": lambda state: state | {"bn1.num_batches_tracked": np.int64(7)},
}


def test_the_names_are_torchvisions(state):
    shapes = {key: x.shape for key, x in state.items()}
    assert shapes["conv1.weight"] == (4, 3, 3, 3)
    assert shapes["layer2.0.conv1.weight"] == (8, 4, 3, 3)
    assert shapes["layer2.0.downsample.0.weight"] == (8, 4, 1, 1)
    assert shapes["layer2.0.downsample.1.running_var"] == (8,)
    assert shapes["layer3.0.bn2.weight"] == (16,)
    assert shapes["fc.weight"] == (10, 16)
    for x in spikingjelly.save(make(neuron=neurons.PLIF())).values():
        assert x.flags.writeable, "torch trains in place"
        assert x.flags.c_contiguous
    # Of resnet18's 122 tensors 20 count batches: one for each of its BatchNorms.
    full = spikingjelly.save(
        nnx.eval_shape(lambda: models.sew_resnet18(rngs=nnx.Rngs(0)))
    )
    assert len(full) == 102


def aligned(x):
    """A copy where torch would lay it, which JAX takes without copying on a CPU."""
    room = np.empty(x.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def test_the_network_stays_as_it_was_loaded_while_the_source_trains_on(state):
    source = {name: aligned(np.asarray(x)) for name, x in state.items()}
    loaded = spikingjelly.load(make(), source)
    before = jax.tree.map(np.array, nnx.state(loaded))
    for x in source.values():
        x += 1
    jax.tree.map(np.testing.assert_array_equal, nnx.state(loaded), before)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_is_read_into_its_places(state, layout):
    renamed = layout(dict(state))
    model = make()
    before = spikingjelly.save(model)
    loaded = spikingjelly.load(model, renamed)
    np.testing.assert_array_equal(
        loaded.layer2[0].conv1.kernel[2, 1, 3, 5],
        state["layer2.0.conv1.weight"][5, 3, 2, 1],
    )
    np.testing.assert_array_equal(loaded.fc.kernel[7, 2], state["fc.weight"][2, 7])
    np.testing.assert_array_equal(
        loaded.layer3[0].downsample[1].mean, state["layer3.0.downsample.1.running_mean"]
    )
    saved = spikingjelly.save(loaded)
    assert list(saved) == list(before)
    for key, x in saved.items():
        np.testing.assert_array_equal(x, state[key], key)
    for key, x in spikingjelly.save(model).items():  # the model given is untouched
        np.testing.assert_array_equal(x, before[key], key)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "options"),
    [
        ("sew_resnet50", dict(stem="imagenet")),
        ("sew_resnet8", dict(in_channels=2, param_dtype=jnp.bfloat16)),
        ("sew_resnet8", dict(neuron=neurons.PLIF(tau=3.0))),
    ],
)
def test_saved_and_loaded_is_the_same_model(net, options):
    first, second = (
        getattr(models, net)(10, width=2, rngs=nnx.Rngs(seed), **options)
        for seed in (0, 1)
    )
    second = spikingjelly.load(second, spikingjelly.save(first))
    assert nnx.graphdef(first) == nnx.graphdef(second)
    paths = nnx.to_flat_state(nnx.state(first)), nnx.to_flat_state(nnx.state(second))
    for (path, a), (_, b) in zip(*paths, strict=True):
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y, str(path))


def test_files(state, tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(state, path)
    for source in (path, str(path)):
        for key, x in spikingjelly.save(spikingjelly.load(make(), source)).items():
            np.testing.assert_array_equal(x, state[key], key)
    with pytest.raises(ValueError, match=r"\.safetensors, \.pth or \.pt.*net\.npz"):
        spikingjelly.load(make(), tmp_path / "net.npz")
    with pytest.raises(ValueError, match=r"no file .*absent"):
        spikingjelly.load(make(), tmp_path / "absent.safetensors")
    (tmp_path / "other.safetensors").write_text("hello")
    with pytest.raises(ValueError, match=r"other\.safetensors is no safetensors file"):
        spikingjelly.load(make(), tmp_path / "other.safetensors")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="needs torch"):
        spikingjelly.load(make(), tmp_path / "net.pth")


@pytest.mark.slow
def test_dtypes_stay_the_models(state):
    doubled = {key: x.astype(np.float64) for key, x in state.items()}
    loaded = spikingjelly.load(make(param_dtype=jnp.bfloat16), doubled)
    assert loaded.conv1.kernel.dtype == jnp.bfloat16
    assert loaded.bn1.mean.dtype == jnp.float32


def test_plif_of_shape_one_is_read(state):
    """The old compiled node kept its w as [1]."""
    model = make(neuron=neurons.PLIF())
    names = set(spikingjelly.save(model)) - set(state)
    assert "layer2.0.downsample_sn.w" in names
    assert len(names) == 9  # one a layer of neurons
    given = state | {name: np.array([0.5], np.float32) for name in names}
    loaded = spikingjelly.load(model, given)
    assert loaded.sn1.w.shape == ()
    assert float(loaded.layer1[0].sn2.w[...]) == 0.5


@pytest.mark.slow
def test_a_quantized_model_saves_the_weights_before(state):
    lsq = QuantSpec(bits=4, clip=None, method="lsq")
    quantized = calibrate.quantize(spikingjelly.load(make(), state), {r".*conv\d": lsq})
    saved = spikingjelly.save(quantized)
    assert list(saved) == list(state)
    for key, x in saved.items():
        np.testing.assert_array_equal(x, state[key], key)
    with pytest.raises(ValueError, match=r"learned quantizers.*load into the full"):
        spikingjelly.load(quantized, state)
    fitted = QuantSpec(bits=4, clip=None, per_channel=True)
    with pytest.raises(ValueError, match="fitted to its weights"):
        spikingjelly.load(calibrate.quantize(make(), {".*conv1": fitted}), state)
    uniform = QuantSpec(bits=4, clip=1.0)
    spikingjelly.load(calibrate.quantize(make(), {r".*conv\d": uniform}), state)


def without(state, *names):
    return {key: x for key, x in state.items() if key not in names}


def with_value(state, key, value):
    return state | {key: np.full_like(state[key], value)}


BAD = {
    "missing": (
        lambda s: without(s, "fc.bias", "bn1.running_var"),
        r"missing \['bn1.running_var', 'fc.bias'\]$",
    ),
    "unused": (
        lambda s: s | {"fc2.weight": s["fc.weight"]},
        r"unused \['fc2.weight'\]",
    ),
    "both": (
        lambda s: without(s, "fc.bias") | {"head.bias": s["fc.bias"]},
        r"missing \['fc.bias'\]; unused \['head.bias'\]",
    ),
    "nothing": (lambda s: {}, "missing"),
    "shape": (
        lambda s: s | {"fc.weight": s["fc.weight"].T, "bn1.bias": s["fc.bias"]},
        r"bn1.bias is \(10,\), expected \(4,\); fc.weight is \(16, 10\), expected \(10",
    ),
    "kernel of another rank": (
        lambda s: s | {"conv1.weight": s["conv1.weight"][0]},
        r"conv1.weight is \(3, 3, 3\), expected \(4, 3, 3, 3\)",
    ),
    "stem": (
        lambda s: s | {"conv1.weight": np.ones((4, 3, 7, 7), np.float32)},
        r"conv1.weight is \(4, 3, 7, 7\).*stem='imagenet'",
    ),
    "NaN": (
        lambda s: with_value(s, "bn1.bias", np.nan),
        "bn1.bias has NaN or infinite",
    ),
    "infinity": (lambda s: with_value(s, "fc.bias", np.inf), "fc.bias has NaN or inf"),
    "variance": (
        lambda s: with_value(s, "bn1.running_var", -1),
        "bn1.running_var has negative values",
    ),
    "beyond the dtype": (
        lambda s: s | {"fc.bias": np.full(10, 1e39)},
        "fc.bias has values beyond the model's float32",
    ),
    "PLIF": (
        lambda s: s | {"sn1.w": np.float32(0)},
        "ParametricLIFNode: give the model neurons.PLIF",
    ),
    "twice": (
        lambda s: s | {"module.fc.bias": s["fc.bias"]},
        "has fc.bias twice, the second as module.fc.bias",
    ),
}


@pytest.mark.parametrize(("spoil", "says"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused(state, spoil, says):
    with pytest.raises(ValueError, match=says):
        spikingjelly.load(make(), spoil(dict(state)))


def test_a_model_that_does_not_fit_is_refused(state):
    with pytest.raises(ValueError, match=r"learn no tau.*neurons\.LIF"):
        spikingjelly.load(make(neuron=neurons.PLIF()), state)
    with pytest.raises(ValueError, match=r"stem='cifar'"):
        spikingjelly.load(make(stem="imagenet"), state)
    vgg = models.spiking_vgg_small(width=2, rngs=nnx.Rngs(0))
    for call in (spikingjelly.save, lambda model: spikingjelly.load(model, state)):
        with pytest.raises(ValueError, match=r"models\.SEWResNet.*SpikingVGG"):
            call(vgg)


NAMES = {"conv1": "layer.0", "norm1": "layer.1", "conv2": "layer.4"} | {
    "fc1": "head.1",
    "fc": "head.3",
}


def test_a_network_of_ones_own_by_its_names():
    model = twins.make_sequential(neurons.LIF(), None)
    state = spikingjelly.save(model, NAMES)
    assert state["layer.4.weight"].shape == (6, 2, 3, 2)
    assert state["layer.1.running_var"].shape == (4,)
    # Torch's rows of the flattened 1 x 2 maps of 6 channels: channels first.
    kernel = np.asarray(model.fc1.kernel.get_value())
    expected = kernel.reshape(1, 2, 6, 12).transpose(3, 2, 0, 1).reshape(12, 12)
    np.testing.assert_array_equal(state["head.1.weight"], expected)
    other = twins.make_sequential(neurons.LIF(v_threshold=2.0), None)
    for key in state:
        state[key] = state[key] + 1
    again = spikingjelly.load(other, state, NAMES)
    np.testing.assert_array_equal(np.asarray(again.fc1.kernel.get_value()), kernel + 1)
    for key, array in spikingjelly.save(again, NAMES).items():
        np.testing.assert_array_equal(array, state[key])
    assert float(again.sn1.neuron.get_value().v_threshold) == 2.0


@pytest.mark.parametrize("size", [(8,), (3, 4)])
def test_rows_behind_flatten_are_in_torchs_order(size):
    """Whatever the number of axes, and behind a linear layer at each position."""
    rngs, draw = nnx.Rngs(0), np.random.default_rng(0)
    axes, cells = len(size), int(np.prod(size))
    model = models.Sequential(
        {
            "conv": layers.QuantConv(2, 3, kernel_size=(1,) * axes, rngs=rngs),
            "each": layers.QuantLinear(3, 5, rngs=rngs),
            "sn": layers.Spiking(neurons.LIF(v_threshold=0.3)),
            "flatten": layers.Flatten(),
            "fc": layers.QuantLinear(cells * 5, 4, rngs=rngs),
        },
        in_shape=(*size, 2),
    )
    names = {"conv": "0", "each": "1", "fc": "4"}
    state = spikingjelly.save(model, names)
    state["4.weight"] = draw.normal(size=(4, cells * 5)).astype(np.float32)
    model = spikingjelly.load(model, state, names)
    x = jnp.asarray(draw.normal(size=(5, *size, 2)), jnp.float32)
    logits, recorded = model(x)
    spikes = np.moveaxis(np.asarray(recorded["sn"]), -1, 2).reshape(4, 5, -1)
    assert 0.05 < spikes.mean() < 0.95
    expected = spikes @ state["4.weight"].T + state["4.bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(
        spikingjelly.save(model, names)["4.weight"], state["4.weight"]
    )


class Own(nnx.Module):
    """A network of one's own; its maps are known when it runs."""

    def __init__(self):
        self.conv = layers.QuantConv(1, 2, kernel_size=1, rngs=nnx.Rngs(0))
        self.norm = layers.BatchNorm(12)
        self.fc = layers.QuantLinear(12, 3, rngs=nnx.Rngs(1))
        self.eval()

    def __call__(self, x):
        maps = self.conv(x)
        return self.fc(self.norm(maps.reshape(*maps.shape[:2], -1)))


OWN = {"conv": "0", "norm": "1", "fc": "2"}


def test_maps_that_a_network_of_ones_own_flattens_are_given():
    with pytest.raises(ValueError, match=r"channels first.*give flattened="):
        spikingjelly.save(Own(), OWN)
    for flattened in ({"fc": (2, 3, 3)}, {"conv": (2, 3, 2)}):
        with pytest.raises(ValueError, match="flattened"):
            spikingjelly.load(Own(), {}, OWN, flattened)
    maps = {"norm": (2, 3, 2), "fc": (2, 3, 2)}
    draw = np.random.default_rng(0)
    state = {
        key: draw.uniform(0.5, 1.5, x.shape).astype(np.float32)
        for key, x in spikingjelly.save(Own(), OWN, maps).items()
    }
    model = spikingjelly.load(Own(), {"epoch": 3, "state_dict": state}, OWN, maps)
    for key, x in spikingjelly.save(model, OWN, maps).items():
        np.testing.assert_array_equal(x, state[key])
    x = jnp.asarray(draw.normal(size=(1, 5, 2, 3, 1)), jnp.float32)
    flat = np.moveaxis(np.asarray(model.conv(x))[0], -1, 1).reshape(5, 12)
    normed = (flat - state["1.running_mean"]) / np.sqrt(state["1.running_var"] + 1e-5)
    normed = normed * state["1.weight"] + state["1.bias"]
    expected = normed @ state["2.weight"].T + state["2.bias"]
    np.testing.assert_allclose(model(x)[0], expected, rtol=1e-4, atol=1e-4)
    as_they_are = spikingjelly.save(model, OWN, {})
    np.testing.assert_array_equal(as_they_are["2.weight"].T, model.fc.kernel[...])


def test_a_batchnorm_and_a_readout_behind_flatten():
    """Of a `models.Sequential`, whose shapes are known."""
    rngs, draw = nnx.Rngs(0), np.random.default_rng(0)
    parts = {
        "conv": layers.QuantConv(1, 2, kernel_size=1, rngs=rngs),
        "sn": layers.Spiking(neurons.LIF(v_threshold=0.3)),
        "flatten": layers.Flatten(),
        "norm": layers.BatchNorm(12),
        "fc": layers.QuantLinear(12, 3, rngs=rngs),
        "out": layers.Readout(),
    }
    model = models.Sequential(parts, in_shape=(2, 3, 1))
    own = Own()
    names = {"conv": "0", "norm": "1", "fc": "2"}
    state = {
        key: draw.uniform(0.5, 1.5, x.shape).astype(np.float32)
        for key, x in spikingjelly.save(model, names).items()
    }
    maps = {"norm": (2, 3, 2), "fc": (2, 3, 2)}
    ours = spikingjelly.load(model, state, names)
    theirs = spikingjelly.load(own, state, names, maps)
    np.testing.assert_array_equal(ours.norm.mean[...], theirs.norm.mean[...])
    np.testing.assert_array_equal(ours.fc.kernel[...], theirs.fc.kernel[...])


def test_names_that_do_not_fit_are_refused():
    model = twins.make_sequential(neurons.LIF(), None)
    with pytest.raises(ValueError, match="give names"):
        spikingjelly.save(model)
    with pytest.raises(ValueError, match=r"names lacks the layers \['fc'\]"):
        spikingjelly.save(model, {k: v for k, v in NAMES.items() if k != "fc"})
    with pytest.raises(ValueError, match=r"names has \['conv9'\], which are no layers"):
        spikingjelly.save(model, NAMES | {"conv9": "9"})
    with pytest.raises(ValueError, match="two layers one module"):
        spikingjelly.save(model, NAMES | {"fc": "head.1"})
