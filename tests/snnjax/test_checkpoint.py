import json
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from snnjax import calibrate, checkpoint, layers, models
from snnjax.quantize import QuantSpec

RULES = {
    "layer1.0.conv1": QuantSpec("lq_net", bits=2),
    "layer1.0.conv2": QuantSpec("lsq", bits=3),
    r"layer1.0.sn\d": QuantSpec(bits=3),
}


def network(seed=0):
    sizes = dict(blocks=(1,), width=4, in_channels=1)
    model = models.SEWResNet(10, **sizes, rngs=nnx.Rngs(seed))
    return calibrate.quantize(model, RULES)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "deep" / "net.safetensors"
    config = {"width": 4, "bits": [2, 3]}
    return checkpoint.export(path, network(), config, packed=False)


def flat(model):
    """Arrays by their names in a file."""
    state = nnx.to_pure_dict(nnx.state(model))
    paths = jax.tree_util.tree_flatten_with_path(state)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(x)
        for path, x in paths
    }


def arrays_of(model):
    return jax.tree.leaves(nnx.split(model)[1])


@pytest.mark.slow
def test_a_quantized_network_comes_back_to_the_bit(file):
    other = network(seed=1)
    before = [np.array(x) for x in arrays_of(other)]
    loaded = checkpoint.load(file, other)
    for x, y in zip(arrays_of(loaded), arrays_of(network()), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
    for x, y in zip(arrays_of(other), before, strict=True):
        np.testing.assert_array_equal(x, y)  # the one that was given is as it was
    image = jnp.ones((1, 8, 8, 1))
    np.testing.assert_array_equal(loaded(image)[0], network()(image)[0])
    assert checkpoint.exists(file)
    assert [p.name for p in sorted(file.parent.iterdir())] == [
        "net.json",
        "net.safetensors",
    ]


def test_other_programs_read_it_and_the_names_are_the_layers(file):
    arrays = safetensors.numpy.load_file(file)
    assert arrays["layer1.0.conv1.kernel"].shape == (3, 3, 4, 4)
    assert {"conv1.kernel", "bn1.mean", "fc.bias"} <= set(arrays)


SPECS = [
    *(QuantSpec(bits=bits) for bits in (2, 4, 8, 16)),
    QuantSpec(bits=1, clip="mse", per_channel=True),
    QuantSpec(bits=3, clip=0.1, grid="mid_rise"),
    QuantSpec(bits=4, group_size=16),
    QuantSpec(bits=4, pow2=True),
    QuantSpec(bits=4, rounding="stochastic"),
    QuantSpec("lsq", bits=2, per_channel=True),
    QuantSpec("lq_net", bits=3, clip=1.0),
    QuantSpec("mint", bits=4),
    QuantSpec("dorefa", bits=2),
    QuantSpec("lq_net", bits=2, codes=(0, 1)),
    QuantSpec("binary", per_channel=True),
    QuantSpec("ternary", pow2=True),
    QuantSpec("power_of_two", bits=4, per_channel=True),
]


@pytest.mark.nightly
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_packed_kernels_take_their_bits_and_compute_the_same(spec, tmp_path):
    model = calibrate.quantize(network(), {r"layer.*(conv\d|downsample)": spec})
    path = tmp_path / "net.safetensors"
    whole = checkpoint.export(path, model, packed=False).stat().st_size
    packed = checkpoint.export(path, model).stat().st_size
    arrays = safetensors.numpy.load_file(path)
    names = [n for n in arrays if n.endswith(".codes")]
    layer1 = [n for n in names if n.startswith("layer1.0.conv")]
    weights = 2 * 3 * 3 * 4 * 4
    assert sum(arrays[n].nbytes for n in layer1) == weights * spec.bits / 8
    assert packed < whole
    loaded = checkpoint.load(path)
    image = 10 * jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    np.testing.assert_array_equal(loaded(image)[0], model(image)[0])
    conv = loaded.layer1[0].conv1
    assert type(conv.quant_scale) is type(model.layer1[0].conv1.quant_scale)
    # Exported again it is the same file: levels are levels of themselves.
    codes = arrays[names[0]]
    checkpoint.export(path, loaded)
    np.testing.assert_array_equal(safetensors.numpy.load_file(path)[names[0]], codes)


@pytest.mark.slow
def test_packed_files_of_a_large_kernel_are_their_bits(tmp_path):
    class Net(nnx.Module):
        def __init__(self):
            spec = QuantSpec(bits=1, clip=0.1)
            self.fc = layers.QuantLinear(1000, 1000, quant=spec, rngs=nnx.Rngs(0))

    for bits in (1, 2, 4, 8):
        spec = QuantSpec(bits=bits, clip=0.1)
        model = calibrate.quantize(Net(), {"fc": spec})
        size = checkpoint.export(tmp_path / "x.safetensors", model).stat().st_size
        assert 1 <= size / (bits * 1_000_000 / 8) < 1.05


def test_a_kernel_with_nan_is_not_packed(tmp_path):
    model = network()
    kernel = model.layer1[0].conv2.kernel
    kernel.set_value(kernel.get_value().at[0, 0, 0, 0].set(np.nan))
    path = checkpoint.export(tmp_path / "net.safetensors", model)
    with pytest.raises(ValueError, match=r"'layer1\.0\.conv2\.kernel' has NaN"):
        checkpoint.load(path, model)


def test_the_config_is_beside_it(file):
    assert checkpoint.config(file) == {"width": 4, "bits": [2, 3]}
    assert json.loads(file.with_suffix(".json").read_text())["width"] == 4
    file.with_suffix(".json").write_text("[")
    with pytest.raises(ValueError, match="is not JSON"):
        checkpoint.config(file)
    file.with_suffix(".json").write_text("[]")
    with pytest.raises(ValueError, match="must hold a JSON object"):
        checkpoint.config(file)
    file.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match="does not exist; export the weights with"):
        checkpoint.config(file)


def test_trees_and_half_precision(tmp_path):
    tree = {"a": jnp.arange(5, dtype=jnp.bfloat16), "b": [jnp.ones((), jnp.int32)]}
    path = checkpoint.export(tmp_path / "x.safetensors", tree)
    loaded = checkpoint.load(path, jax.tree.map(jnp.zeros_like, tree))
    assert loaded["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(loaded["a"], tree["a"])
    np.testing.assert_array_equal(loaded["b"][0], 1)


def test_a_file_of_others_is_read_if_its_names_fit(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"w": np.ones(3, np.float32)}, path)
    loaded = checkpoint.load(path, {"w": jnp.zeros(3)})
    np.testing.assert_array_equal(loaded["w"], 1)


def test_every_flipped_or_missing_byte_is_found(tmp_path):
    tree = {"w": jnp.arange(4, dtype=jnp.float32)}
    path = checkpoint.export(tmp_path / "x.safetensors", tree)
    whole = path.read_bytes()
    for i in range(len(whole)):
        flipped = bytearray(whole)
        flipped[i] ^= 1
        for content in (bytes(flipped), whole[:i]):
            path.write_bytes(content)
            try:
                loaded = checkpoint.load(path, tree)
            except ValueError as error:
                said = str(error)
            else:  # a letter of what the file says about itself
                np.testing.assert_array_equal(loaded["w"], tree["w"])
                continue
            assert str(path) in said


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"w": np.ones(2, np.float32)}, r"'w' is float32 \(2,\), expected float32"),
        ({"w": np.ones(3)}, r"'w' is float64 \(3,\), expected float32"),
        ({"v": np.ones(3, np.float32)}, "'v' is .* expected missing"),
        ({"w": np.array([1, np.nan, 1], np.float32)}, "'w' has NaN or infinity"),
        ({"w": np.array([1, np.inf, 1], np.float32)}, "'w' has NaN or infinity"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, arrays, message):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(arrays, path)
    with pytest.raises(ValueError, match=message):
        checkpoint.load(path, {"w": jnp.zeros(3)})


@pytest.mark.parametrize(
    "about",
    [
        {"crc32": [1]},
        {"float16": ["v"]},
        {"float16": [["w"]]},
        {"float16": ["w"]},
        {"float16": 1},
    ],
)
def test_a_description_that_does_not_fit_is_damage(tmp_path, about):
    path, metadata = tmp_path / "x.safetensors", {"snnjax": json.dumps(about)}
    safetensors.numpy.save_file({"w": np.ones(3, np.float32)}, path, metadata)
    with pytest.raises(ValueError, match="a corrupt one"):
        checkpoint.load(path, {"w": jnp.zeros(3)})


def test_kernels_in_half_come_back_rounded(tmp_path):
    model, path = network(), tmp_path / "net.safetensors"
    for packed in (True, False):
        whole = checkpoint.export(path, model, packed=packed).stat().st_size
        checkpoint.export(path, model, packed=packed, half=r"fc|layer1\..*")
        assert path.stat().st_size < whole
        before = [*flat(checkpoint.load(path, model)).items()]
        for name, x in before:
            y = flat(model)[name]
            rounded = re.fullmatch(r"fc\.kernel|layer1\..*kernel", name)
            codes = packed and name in {
                f"layer1.0.{c}.kernel" for c in ("conv1", "conv2")
            }
            if rounded and not codes:
                y = y.astype(np.float16).astype(np.float32)
            if not codes:  # which are levels, where it has what is behind them
                np.testing.assert_array_equal(x, y, name)
            assert x.dtype == y.dtype
    large = {"fc": {"kernel": jnp.full((1, 1), 1e5)}}
    for tree, named in ((large, "fc"), (large, "conv"), ({"w": jnp.ones(1)}, "w")):
        with pytest.raises(ValueError, match=f"half='{named}'"):
            checkpoint.export(path, tree, half=named)
    assert checkpoint.load(path, model)  # the file before is still there


def test_bad_calls(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        checkpoint.export(tmp_path / "x.npz", {"w": jnp.zeros(3)})
    for bad in ({"x": {1}}, {"x": float("nan")}):
        with pytest.raises(ValueError, match="config must hold JSON values"):
            checkpoint.export(tmp_path / "x.safetensors", {"w": jnp.zeros(3)}, bad)
    with pytest.raises(ValueError, match="there is no file"):
        checkpoint.load(tmp_path / "x.safetensors", {"w": jnp.zeros(3)})
    assert not list(tmp_path.iterdir())


def test_no_room_leaves_the_old_file(tmp_path, monkeypatch):
    path = checkpoint.export(tmp_path / "x.safetensors", {"w": jnp.zeros(3)})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.export(path, {"w": jnp.ones(3)})
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    loaded = checkpoint.load(path, {"w": jnp.ones(3)})
    np.testing.assert_array_equal(loaded["w"], 0)


def test_numpy_arrays_keep_dtype_and_order(tmp_path):
    value = {
        "double": np.full(2, 1 / 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }
    path = checkpoint.export(tmp_path / "x.safetensors", value)
    loaded = checkpoint.load(path, value)
    for name, array in value.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(OSError, match=r"x\.safetensors could not be written \(Is a"):
        checkpoint.export(tmp_path / "x.safetensors", {"w": jnp.zeros(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


class Tied(nnx.Module):
    """Two layers with one kernel."""

    def __init__(self, seed):
        rngs = nnx.Rngs(seed)
        self.first, self.second = (
            layers.QuantLinear(6, 6, quant=QuantSpec(bits=3, clip=1.0), rngs=rngs)
            for _ in range(2)
        )
        self.second.kernel = self.first.kernel


def test_a_quantized_kernel_of_two_layers_is_written_once(tmp_path):
    net, path = Tied(0), tmp_path / "tied.safetensors"
    checkpoint.export(path, net)
    loaded = checkpoint.load(path, Tied(1))
    assert loaded.first.kernel is loaded.second.kernel
    expected = net.first.quantized_kernel(train=False)
    found = loaded.second.quantized_kernel(train=False)
    np.testing.assert_array_equal(found, expected)
