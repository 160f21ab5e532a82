import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import runs

ROOT = Path(__file__).parents[3]
CONFIG = {"seed": 0, "width": 4}


def tree(value=0):
    return {
        "a": jnp.arange(3000, dtype=jnp.float32) + value,
        "b": (np.int32(value), None, jnp.full((3, 3), value, jnp.bfloat16)),
    }


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        assert np.asarray(x).dtype == np.asarray(y).dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture
def run(tmp_path):
    """Three checkpoints, of which two are kept."""
    with runs.RunCheckpoints(tmp_path / "run", keep=2, config=CONFIG) as history:
        assert history.latest is None
        assert history.load(tree()) is None
        for step in (1, 5, 9):
            history.save(step, tree(step))
    return tmp_path / "run"


def test_the_last_ones_are_kept(run):
    with runs.RunCheckpoints(run, config=CONFIG) as history:
        assert history.latest == 9
        assert_same(history.load(tree()), tree(9))
    assert {p.name for p in run.iterdir() if p.name.isdigit()} == {"5", "9"}


def test_a_step_may_take_the_arrays_at_once(tmp_path):
    taken = jax.jit(lambda x: x * 0, donate_argnums=0)
    state = jnp.arange(4_000_000, dtype=jnp.float32)
    with runs.RunCheckpoints(tmp_path) as history:
        history.save(1, {"x": state})
        state = taken(state)  # in the place of what is being written
        jax.block_until_ready(state)
    with runs.RunCheckpoints(tmp_path) as history:
        found = history.load({"x": state})
    expected = np.arange(4_000_000, dtype=np.float32)
    np.testing.assert_array_equal(found["x"], expected)


def test_a_step_can_be_written_again(run):
    with runs.RunCheckpoints(run, config=CONFIG) as history:
        history.save(9, tree(10))
        assert_same(history.load(tree()), tree(10))


def damaged(run, path, how):
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 4
        path.write_bytes(content)


# Orbax's threads say in a traceback of their own that nobody waits for them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["truncated", "flipped", "gone"])
def test_damage_anywhere_is_found_or_harmless(run, tmp_path, how):
    files = [p for p in sorted((run / "9").rglob("*")) if p.is_file()]
    fallen_back = 0
    for i, file in enumerate(files):
        if how == "flipped" and not file.stat().st_size:
            continue
        copy = tmp_path / f"copy{i}"
        shutil.copytree(run, copy)
        damaged(copy, copy / file.relative_to(run), how)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with runs.RunCheckpoints(copy, config=CONFIG) as history:
                found = history.load(tree())
        told = [str(w.message) for w in told if "corrupt" in str(w.message)]
        assert_same(found, tree(5 if told else 9))
        if told:
            fallen_back += 1
            assert "of step 9" in told[0]
            assert "step 5 is loaded instead" in told[0]
            assert not (copy / "9").exists()
    assert fallen_back >= 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("without_checksum", [False, True])
def test_all_corrupt_raises(run, without_checksum):
    for step in ("5", "9"):
        file = run / step / "about" / "metadata"
        about = json.loads(file.read_text())
        del about["own_crc32"]
        file.write_text(json.dumps(about) if without_checksum else "{")
    with (
        runs.RunCheckpoints(run, config=CONFIG) as history,
        pytest.raises(
            runs.CorruptCheckpointError, match=r"every checkpoint in .* delete"
        ),
    ):
        history.load(tree())
    with runs.RunCheckpoints(run, config=CONFIG) as history:
        with pytest.raises(runs.CorruptCheckpointError):
            history.load(tree())
        history.save(1, tree(1))  # begun again all the same
        history.wait()
        assert history.latest == 1
        assert_same(history.load(tree()), tree(1))


def test_another_run_is_refused(run):
    config = {"seed": 1, "bits": 2, "width": 4}
    with pytest.raises(ValueError, match="seed is 0 there and 1 now; give another"):
        runs.RunCheckpoints(run, keep=1, config=config)
    with runs.RunCheckpoints(run, config=CONFIG) as history:
        assert history.load(tree()) is not None


def test_another_network_is_refused(run):
    other = tree() | {"a": jnp.zeros(7)}
    with runs.RunCheckpoints(run, config=CONFIG) as history:
        with pytest.raises(ValueError, match=r"a' is float32 \(3000,\), expected"):
            history.load(other)
        with pytest.raises(ValueError, match=r"c' is missing, expected float32 \(2,\)"):
            history.load(tree() | {"c": jnp.zeros(2)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, "keep must be at least 1, got 0"),
        ({"config": {"x": object()}}, "config must hold JSON values"),
        ({"config": {"x": float}}, "config must hold JSON values"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        runs.RunCheckpoints(tmp_path, **options)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; give a folder"):
        runs.RunCheckpoints(tmp_path / "file")


@pytest.mark.slow
def test_no_room_is_an_oserror_that_says_where_it_is(tmp_path):
    code = """
import resource, signal, sys, numpy as np
from snnjax import runs
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
history = runs.RunCheckpoints(sys.argv[1], keep=1)
history.save(3, {"x": np.zeros(10)})
history.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    history.save(5, {"x": np.random.default_rng(0).random(1_000_000)})
    history.wait()
except OSError as error:
    print(error)
print(history.latest, history.load({"x": np.ones(10)})["x"].sum())
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
again = runs.RunCheckpoints(sys.argv[1])
print(again.latest, again.load({"x": np.zeros(10)})["x"].sum())
"""
    code = code.replace("(20000, 20000)", "(20000, resource.RLIM_INFINITY)")
    code = code.replace("(-1, -1)", "(resource.RLIM_INFINITY,) * 2")
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert "could not be written" in out[0]
    assert "resume from step 3" in out[0]
    assert out[1:] == ["3 0.0"] * 2


@pytest.mark.nightly
def test_devices_come_and_go(tmp_path):
    code = """
import sys, jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from snnjax import runs
mesh = jax.make_mesh((jax.device_count(),), ("data",))
x = jnp.arange(64, dtype=jnp.float32) * int(sys.argv[2])
state = {
    "all": jax.device_put(x, NamedSharding(mesh, P())),
    "split": jax.device_put(x + 1, NamedSharding(mesh, P("data"))),
}
with runs.RunCheckpoints(sys.argv[1]) as history:
    found = history.load(state)
    if found is not None:
        before = np.arange(64, dtype=np.float32) * (int(sys.argv[2]) - 1)
        np.testing.assert_array_equal(found["all"], before)
        np.testing.assert_array_equal(found["split"], before + 1)
    history.save(int(sys.argv[2]), state)
"""
    for step, devices in ((1, 8), (2, 1), (3, 8)):
        flag = f"--xla_force_host_platform_device_count={devices}"
        env = os.environ | {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
        arguments = [sys.executable, "-c", code, str(tmp_path), str(step)]
        subprocess.run(arguments, check=True, env=env)


@pytest.mark.slow
def test_killed_while_writing_the_one_before_is_there(tmp_path):
    code = """
import sys, numpy as np
from snnjax import runs
history = runs.RunCheckpoints(sys.argv[1])
history.save(1, {"x": np.ones(1)})
history.wait()
print("ready", flush=True)
for step in range(2, 10_000):
    history.save(step, {"x": np.full(300_000, step, np.float32)})
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert child.stdout.readline()
    time.sleep(0.3)
    child.kill()
    child.wait()
    child.stdout.close()
    with runs.RunCheckpoints(tmp_path) as history:
        step = history.latest
        size = 1 if step == 1 else 300_000
        found = history.load({"x": np.zeros(size, np.float32 if step > 1 else None)})
        np.testing.assert_array_equal(found["x"], np.full(size, step))
        history.save(step + 1, found)
    assert not [p for p in tmp_path.iterdir() if "tmp" in p.name]


def test_folders_of_others_are_never_deleted(tmp_path):
    (tmp_path / "2024").mkdir()
    (tmp_path / "2024" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="2024 is no checkpoint; give a folder"):
        runs.RunCheckpoints(tmp_path, keep=1)
    assert (tmp_path / "2024" / "thesis.txt").exists()


def test_no_step_before_the_last(run):
    with runs.RunCheckpoints(run, config=CONFIG) as history:
        with pytest.raises(ValueError, match="step 3 is before step 9"):
            history.save(3, tree(3))
        with pytest.raises(ValueError, match="at least 0, got -1"):
            history.save(-1, tree(3))
        history.save(jnp.int32(9), tree(9))  # such is a state's step
        assert_same(history.load(tree()), tree(9))


def test_arrays_without_elements_are_kept(tmp_path):
    value = {"none": np.zeros((0, 3), np.float32), "x": np.ones(2)}
    with runs.RunCheckpoints(tmp_path) as history:
        history.save(1, value)
        assert_same(history.load(value), value)


def test_configs_are_compared_as_json(tmp_path):
    value = {"x": np.ones(2)}
    with runs.RunCheckpoints(tmp_path, config={"clip": float("nan")}) as history:
        history.save(1, value)
        assert_same(history.load(value), value)
    config = {"clip": float("nan"), "seed": None}
    with pytest.raises(ValueError, match="seed is 'not given' there and None now;"):
        runs.RunCheckpoints(tmp_path, config=config)


@pytest.mark.slow
def test_no_room_leaves_nothing_half_written_and_says_one_sentence(tmp_path):
    code = """
import resource, signal, sys, numpy as np
from snnjax import runs
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
history = runs.RunCheckpoints(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
try:
    history.save(5, {"x": np.random.default_rng(0).random(100_000)})
    history.wait()
except OSError as error:
    print(error)
"""
    run = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "(File too large)" in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
