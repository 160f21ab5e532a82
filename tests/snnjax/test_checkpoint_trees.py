import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx

from snnjax import calibrate, checkpoint, models, runs, train
from snnjax.quantize import QuantSpec

ROOT = Path(__file__).parents[2]


def train_state(width=4, bits=2):
    model = models.SEWResNet(
        10, blocks=(1,), width=width, in_channels=1, rngs=nnx.Rngs(0)
    )
    rules = {
        "layer1.0.conv1": QuantSpec("lq_net", bits=bits),
        r"layer1.0.sn\d": QuantSpec(bits=3),
    }
    state = train.init(calibrate.quantize(model, rules), train.sgd(0.1))
    draw = np.random.default_rng(0)  # no array as it is at the start
    return jax.tree.map(lambda x: x + jnp.asarray(draw.integers(9), x.dtype), state)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def tree(value):
    return {"a": jnp.full((2, 3), float(value)), "b": (np.int32(value), None)}


def test_a_train_state_comes_back_to_the_bit(tmp_path):
    state = train_state()
    checkpoint.save(tmp_path / "one", state)
    like = jax.tree.map(jnp.zeros_like, state)
    loaded = checkpoint.load(tmp_path / "one", like)
    assert_same(loaded, state)
    assert isinstance(loaded, train.TrainState)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float64, np.uint8, bool])
def test_every_dtype_is_kept(tmp_path, dtype):
    array = np.array([0, 1, 2.75], np.float32).astype(dtype)
    checkpoint.save(tmp_path / "one", {"x": array})
    loaded = checkpoint.load(tmp_path / "one", {"x": array})
    assert loaded["x"].dtype == array.dtype
    np.testing.assert_array_equal(loaded["x"], array)


def test_a_string_is_a_path_and_folders_are_made(tmp_path):
    path = str(tmp_path / "new" / "one")
    assert not checkpoint.exists(path)
    checkpoint.save(path, tree(1))
    assert checkpoint.exists(path)
    assert_same(checkpoint.load(path, tree(0)), tree(1))
    checkpoint.remove(path)
    checkpoint.remove(path)
    assert not checkpoint.exists(path)
    assert list((tmp_path / "new").iterdir()) == []


def test_saving_again_replaces(tmp_path):
    for value in (1, 2, 3):
        checkpoint.save(tmp_path / "one", tree(value))
        assert_same(checkpoint.load(tmp_path / "one", tree(0)), tree(value))
    checkpoint.save(tmp_path / "one", {"another": np.zeros(4)})
    with pytest.raises(ValueError, match="another network"):
        checkpoint.load(tmp_path / "one", tree(0))
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_folders_of_others_are_neither_replaced_nor_removed(tmp_path):
    mine = tmp_path / "work"
    mine.mkdir()
    checkpoint.save(mine, tree(1))  # an empty folder is none of others
    checkpoint.remove(mine)
    (mine / "chapters").mkdir(parents=True)
    (mine / "chapters" / "1").write_text("")
    (tmp_path / "file").write_text("")
    for path in (mine, tmp_path / "file"):
        assert not checkpoint.exists(path)
        for change in (lambda p: checkpoint.save(p, tree(1)), checkpoint.remove):
            with pytest.raises(
                ValueError, match=f"{path.name} is no folder of a check"
            ):
                change(path)
    assert (mine / "chapters" / "1").exists()
    for name in ("x.safetensors", "x.snnjax-removed"):
        with pytest.raises(ValueError, match=f"must not end in .*{name}"):
            checkpoint.save(tmp_path / name, tree(1))


def test_names_that_differ_by_an_ending_are_two(tmp_path):
    for value, name in enumerate(("run", "run.new", "run.old")):
        checkpoint.save(tmp_path / name, tree(value))
    for value, name in enumerate(("run", "run.new", "run.old")):
        assert_same(checkpoint.load(tmp_path / name, tree(9)), tree(value))


def test_a_history_is_removed_as_well(tmp_path):
    with runs.RunCheckpoints(tmp_path / "run") as history:
        history.save(1, tree(1))
        history.save(2, tree(2))
    checkpoint.remove(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_random_keys_are_kept(tmp_path):
    def some(seed):
        legacy = jax.random.PRNGKey(seed)
        other = jax.random.key(seed, impl="rbg")
        keys = {"a": jax.random.split(jax.random.key(seed), 3), "b": other}
        return keys | {"legacy": legacy, "x": np.ones(2)}

    def assert_kept(loaded):
        assert jax.tree.structure(loaded) == jax.tree.structure(some(1))
        for name in ("a", "b"):
            assert loaded[name].dtype == some(1)[name].dtype
            assert (loaded[name] == some(1)[name]).all()
        np.testing.assert_array_equal(loaded["legacy"], some(1)["legacy"])

    checkpoint.save(tmp_path / "one", some(1))
    assert_kept(checkpoint.load(tmp_path / "one", some(0)))
    assert_kept(
        checkpoint.load(checkpoint.export(tmp_path / "x.safetensors", some(1)), some(0))
    )
    with runs.RunCheckpoints(tmp_path / "run") as history:
        history.save(1, some(1))
        assert_kept(history.load(some(0)))


@pytest.mark.slow
def test_other_networks_are_refused(tmp_path):
    checkpoint.save(tmp_path / "one", train_state())
    message = r"params\.bn1\.bias.* is float32 \(1, 4\), expected float32 \(1, 8\)"
    with pytest.raises(ValueError, match=message):
        checkpoint.load(tmp_path / "one", train_state(width=8))
    with pytest.raises(
        ValueError, match=r"quant_state.* \(1, 2, 4\), expected .*\(1, 3, 4\)"
    ):
        checkpoint.load(tmp_path / "one", train_state(bits=3))
    checkpoint.save(tmp_path / "one", tree(1))
    for other, message in (
        (tree(1) | {"c": np.zeros(1)}, r"c' is missing, expected float64 \(1,\)"),
        ({"a": tree(1)["a"]}, r"b\.0' is int32 \(\), expected missing"),
        (tree(1) | {"a": np.ones((2, 3))}, "a' is float32.*, expected float64"),
        ({"z": tree(1)["a"], "b": tree(1)["b"]}, "another network"),
    ):
        with pytest.raises(ValueError, match=message):
            checkpoint.load(tmp_path / "one", other)


@pytest.mark.parametrize("kind", ["nothing", "file", "empty", "foreign"])
def test_where_there_is_no_checkpoint(tmp_path, kind):
    path = tmp_path / "one"
    if kind == "file":
        path.write_text("not a checkpoint")
    elif kind != "nothing":
        path.mkdir()
    if kind == "foreign":
        (path / "weights.bin").write_bytes(b"123")
    with pytest.raises(ValueError, match=f"checkpoint.*{path}"):
        checkpoint.load(path, tree(0))


# A kill at any moment leaves the old one or the new


class Killed(BaseException):
    pass


def die(*_, **__):
    raise Killed


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("moment", ["write", "committed", "half_removed"])
def test_a_kill_leaves_the_old_or_the_new(tmp_path, old, moment):
    path = tmp_path / "one"
    with runs.RunCheckpoints(path, keep=2) as both:
        if old:
            both.save(1, tree(1))
        both.save(2, tree(2))
    if moment == "write":
        (path / "2").rename(path / "2.orbax-checkpoint-tmp-1")
    if moment == "half_removed" and old:
        next(file for file in (path / "1").rglob("*") if file.is_file()).unlink()
    found = checkpoint.exists(path)
    assert found == (old or moment != "write")
    if found:
        value = 1 if moment == "write" else 2
        assert_same(checkpoint.load(path, tree(0)), tree(value))
    checkpoint.save(path, tree(3))
    assert_same(checkpoint.load(path, tree(0)), tree(3))
    assert [found.name for found in tmp_path.iterdir()] == ["one"]
    assert len(list(path.iterdir())) == 1


@pytest.mark.parametrize("moment", ["rename", "rmtree", "half_removed"])
def test_what_was_being_removed_is_no_obstacle(tmp_path, monkeypatch, moment):
    path = tmp_path / "one"
    checkpoint.save(path, tree(1))

    def remove_half(folder, *_, **__):
        os.unlink(next(file for file in Path(folder).rglob("*") if file.is_file()))
        raise Killed

    hook = remove_half if moment == "half_removed" else die
    owner, name = type(epath.Path(path)), "rename" if moment == "rename" else "rmtree"
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, hook)
        with pytest.raises(Killed):
            checkpoint.remove(path)
    assert checkpoint.exists(path) == (moment == "rename")
    checkpoint.save(path, tree(2))
    assert_same(checkpoint.load(path, tree(0)), tree(2))
    checkpoint.remove(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_kill_9_while_saving(tmp_path):
    program = """
import itertools, sys
import numpy as np
from snnjax import checkpoint
for i in itertools.count(1):
    checkpoint.save(sys.argv[1], {"x": np.full(100_000, i)})
    sys.stdout.write(f"{i}\\n")
    sys.stdout.flush()
"""
    path, like = tmp_path / "one", {"x": np.zeros(100_000, int)}
    for wait in (1, 2, 4):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as process:
            saved = [int(process.stdout.readline()) for _ in range(wait)]
            process.kill()
        loaded = checkpoint.load(path, like)["x"]
        assert loaded[0] >= saved[-1]
        assert (loaded == loaded[0]).all()
    checkpoint.save(path, like)
    # What the kills left half-written is gone.
    assert [found.name for found in tmp_path.iterdir()] == ["one"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_flipped_bit_comes_back_as_a_number(tmp_path):
    value = {"x": np.random.default_rng(0).random((40, 20)), "y": np.int32(3)}
    checkpoint.save(tmp_path / "one", value)
    found = 0
    for file in sorted(p for p in (tmp_path / "one").rglob("*") if p.is_file()):
        whole = file.read_bytes()
        for place in np.linspace(0, len(whole) - 1, 7).astype(int):
            content = bytearray(whole)
            content[place] ^= 4
            file.write_bytes(content)
            try:
                assert_same(checkpoint.load(tmp_path / "one", value), value)
            except ValueError as error:
                found += str(tmp_path / "one") in str(error)
        file.write_bytes(whole)
    assert found >= 7
    assert_same(checkpoint.load(tmp_path / "one", value), value)


def test_arrays_without_elements_are_kept(tmp_path):
    value = {"none": np.zeros((0, 3), np.float32), "x": np.ones(2)}
    checkpoint.save(tmp_path / "one", value)
    assert_same(checkpoint.load(tmp_path / "one", value), value)
    with pytest.raises(ValueError, match="another network"):
        checkpoint.load(tmp_path / "one", value | {"x": np.ones(3)})


def test_numbers_of_python_and_numpy_keep_their_digits(tmp_path):
    tree = {"step": 2**40, "time": 1700000000.123, "n": np.int64(2**41), "on": True}
    checkpoint.save(tmp_path / "a", tree)
    found = checkpoint.load(tmp_path / "a", tree)
    assert found == tree
