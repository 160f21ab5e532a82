"""Files of integer networks: they come back to the bit, and others are refused."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import twins

from snnjax import integer, models, neurons
from snnjax.quantize import QuantSpec

ROOT = Path(__file__).parents[3]
NO_JAX = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jax", "jaxlib", "flax"):
            raise ImportError(name)

sys.meta_path.insert(0, Missing())
import numpy as np
from snnjax import integer

images = np.load(sys.argv[2])
found = integer.load(sys.argv[1]).run_numpy(images)
np.savez(sys.argv[3], logits=found.logits, **found.spikes)
"""


@pytest.fixture(scope="module")
def network():
    spec = QuantSpec("lq_net", bits=2)
    membrane = QuantSpec(bits=3, clip=1.0)
    model = twins.make(
        models.SEWResNet,
        blocks=(1,),
        weight_quant=spec,
        membrane_quant=membrane,
        quantize_all=True,
    )
    return integer.from_model(model, image_size=(8, 8), mean=0.3, std=0.4)


@pytest.fixture(scope="module")
def with_floats():
    vgg = dict(stages=((1, 1), (1, 2)), image_size=(8, 8))
    spec = QuantSpec(bits=4, clip="absmax")
    model = twins.make(models.SpikingVGG, weight_quant=spec, **vgg)
    return integer.from_model(model, image_size=(8, 8))


@pytest.fixture(scope="module")
def of_vectors():
    spec = QuantSpec(bits=4, clip="absmax")
    return integer.from_model(twins.make_sequential(neurons.IF(), spec, (16,)))


def assert_equal(found, expected):
    assert found.spikes.keys() == expected.spikes.keys()
    assert found.logit_scale == expected.logit_scale
    np.testing.assert_array_equal(found.logits, expected.logits)
    for name, spikes in expected.spikes.items():
        np.testing.assert_array_equal(found.spikes[name], spikes)


@pytest.mark.parametrize(
    "name",
    ["network", "with_floats", pytest.param("of_vectors", marks=pytest.mark.slow)],
)
def test_round_trip(name, request, tmp_path):
    network, path = request.getfixturevalue(name), tmp_path / "network.npz"
    network.save(path)
    again = integer.load(path)
    shape = (3, 16) if name == "of_vectors" else (3, 8, 8, 1)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert_equal(again.run_numpy(images), network.run_numpy(images))
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()
    assert os.listdir(tmp_path).sort() == ["again.npz", "network.npz"].sort()
    # The test vector is what the network does.
    example = again.example
    found = again.run_border_numpy(example["input"])
    for layer in again.layers():
        if f"spikes.{layer}" in example:
            train = example[f"spikes.{layer}"]
            np.testing.assert_array_equal(found.spikes[layer], train)
            assert 0 < train.mean() < 1
    # numpy reads it too, and all behind the border are whole numbers.
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            if key != "network.json" and key.split(".")[0] not in ("border", "readout"):
                assert arrays[key].dtype.kind in "iu", key


def test_it_runs_where_jax_cannot_be_imported(network, tmp_path):
    paths = [tmp_path / name for name in ("network.npz", "images.npy", "found.npz")]
    network.save(paths[0])
    images, _, _ = twins.digits(5)
    np.save(paths[1], images)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", NO_JAX, *map(str, paths)]
    subprocess.run(command, check=True, env=environment)
    expected = network.run_numpy(images)
    with np.load(paths[2]) as found:
        np.testing.assert_array_equal(found["logits"], expected.logits)
        for name, spikes in expected.spikes.items():
            np.testing.assert_array_equal(found[name], spikes)


def test_paths(network, tmp_path):
    with pytest.raises(ValueError, match=r"\.npz"):
        network.save(tmp_path / "network.bin")
    with pytest.raises(ValueError, match="no file"):
        integer.load(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("no zip")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name in ("text.npz", "other.npz"):
        with pytest.raises(ValueError, match="cannot be read"):
            integer.load(tmp_path / name)


def test_damaged_files_are_refused(network, tmp_path):
    path, damaged = tmp_path / "network.npz", tmp_path / "damaged.npz"
    network.save(path)
    content = path.read_bytes()
    expected = network.run_numpy(np.zeros((1, 8, 8, 1), np.uint8))
    drawn = np.random.default_rng(0)
    for _ in range(150):
        altered = bytearray(content)
        if drawn.random() < 0.5:
            altered = altered[: drawn.integers(len(altered))]
        else:
            for at in drawn.integers(0, len(altered), drawn.integers(1, 4)):
                altered[at] ^= 1 << drawn.integers(8)
        damaged.write_bytes(altered)
        with contextlib.suppress(ValueError):
            found = integer.load(damaged)
            # A flipped date changes nothing.
            assert_equal(found.run_numpy(np.zeros((1, 8, 8, 1), np.uint8)), expected)
            continue
        with pytest.raises(ValueError, match=r"^[^\n]*cannot be read[^\n]*$"):
            integer.load(damaged)


def rewrite(path, changes):
    """Replace members of a file by functions of their contents; None leaves one out."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            changed = changes.get(name, lambda x: x)(content)
            if changed is not None:
                file.writestr(name, changed)


def edit(function):
    """Change the JSON."""

    def change(content):
        described = json.loads(content)
        function(described)
        return json.dumps(described).encode()

    return change


def array(function):
    """Change an array."""

    def change(content):
        buffer = io.BytesIO()
        np.save(buffer, function(np.load(io.BytesIO(content))))
        return buffer.getvalue()

    return change


def pickled(_):
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], object), allow_pickle=True)
    return buffer.getvalue()


LAYER = "layer1.0.sn1"
WRONG = {
    "schema": {"network.json": edit(lambda d: d.update(schema="other"))},
    "version": {"network.json": edit(lambda d: d.update(version=2))},
    "no json": {"network.json": lambda _: None},
    "broken json": {"network.json": lambda content: content[:-9]},
    "kind": {"network.json": edit(lambda d: d["nodes"][3].update(kind="or"))},
    "source": {"network.json": edit(lambda d: d["nodes"][1].update(source="x"))},
    "widths": {"network.json": edit(lambda d: d.update(membrane_bits=99))},
    "steps": {"network.json": edit(lambda d: d.update(timesteps="4"))},
    "strides": {"network.json": edit(lambda d: d["nodes"][1].update(strides=[0, 0]))},
    "program": {"program.npy": array(lambda x: x + 1)},
    "missing": {f"{LAYER}.bias.npy": lambda _: None},
    "floats": {f"{LAYER}.bias.npy": array(lambda x: x.astype(np.float32))},
    "shape": {f"{LAYER}.bias.npy": array(lambda x: x[:-1])},
    "shift": {f"{LAYER}.shift.npy": array(lambda x: x + 40)},
    "leak": {f"{LAYER}.leak.npy": array(lambda x: x * 4)},
    "step": {f"{LAYER}.step.npy": array(lambda x: x + 1)},
    "indices": {f"{LAYER}.codes.npy": array(lambda x: x + 4)},
    "sums": {f"{LAYER}.table.npy": array(lambda x: x * 2**8)},
    "pickle": {f"{LAYER}.bias.npy": pickled},
}


@pytest.mark.parametrize("name", WRONG)
def test_altered_files_are_refused(name, network, tmp_path):
    path = tmp_path / "network.npz"
    network.save(path)
    rewrite(path, {})
    integer.load(path)
    rewrite(path, WRONG[name])
    with pytest.raises(ValueError, match="cannot be read") as refused:
        integer.load(path)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["network", "with_floats", "of_vectors"])
def test_a_reader_in_c_finds_the_same_spikes(name, request, tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler: none of cc, gcc, clang is there")
    program, path = tmp_path / "reader", tmp_path / "network.npz"
    source = ROOT / "docs/integer_reader.c"
    subprocess.run([compiler, "-O2", "-o", program, source], check=True)
    network = request.getfixturevalue(name)
    network.save(path)
    done = subprocess.run([program, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    for layer, numbers in network.layers().items():
        train = network.example.get(f"spikes.{layer}")
        fired = 0 if numbers.neurons is None else int(train.sum())
        assert lines[layer] == f"{fired} spikes, 0 differ"
    # It reports what differs.
    rewrite(path, {"example.input.npy": array(lambda x: np.zeros_like(x))})
    done = subprocess.run([program, path], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == ""
