"""A study killed at any moment and started again is the study that nobody killed."""

import collections
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from slow_disk import PROGRAM

from experiments.study.config import StudyConfig
from experiments.study.grid import name_row, planned
from experiments.study.store import StudyStore

ROOT = Path(__file__).parents[3]
# The short form draws no report, which takes seconds; the long one does.
UNDRAWN = (
    "from experiments import report\nreport.write = lambda path: path / 'report.html'\n"
)
SHORT = StudyConfig(
    tiny=True,
    width=4,
    timesteps=2,
    seeds=(0,),
    only="membrane",
    modes=("ptq",),
    bits=(2,),
)
LONG = StudyConfig(
    epochs=2, qat_epochs=1, only="membrane", modes=("ptq", "qat"), bits=(2,)
)


def start(config: StudyConfig, out: Path, quickly: bool) -> subprocess.Popen:
    """The study's command, as a process group of its own."""
    given = dict(width=config.width, timesteps=config.timesteps, epochs=config.epochs)
    given |= {"qat-epochs": config.qat_epochs, "only": config.only, "out": out}
    given |= {"save-seconds": 0.2}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    for name in ("seeds", "modes", "bits"):
        words += [f"--{name}", *getattr(config, name)]
    words += ["--tiny"] * config.tiny
    environment = os.environ | {"SNNJAX_KEEP_MEMORY": "0"}
    if quickly:
        environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    return subprocess.Popen(
        [sys.executable, "-c", UNDRAWN * quickly + PROGRAM, *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )


def names_of(config: StudyConfig) -> list[str]:
    config = config.resolve()
    return [spec.name for spec in planned(config)]


def has_begun(process: subprocess.Popen, out: Path) -> bool:
    """Whether the process has opened its run folder."""
    for file in Path(f"/proc/{process.pid}/fd").glob("*"):
        try:
            if os.readlink(file) == str(out / ".lock"):
                return True
        except OSError:  # closed meanwhile
            continue
    return False


def phase_of(config: StudyConfig, out: Path) -> tuple[str, str]:
    """What a run that has begun is doing, as far as its files tell, and which row."""
    done = {name_row(row) for row in StudyStore(out).rows()}
    missing = [name for name in names_of(config) if name not in done]
    if not missing:
        return "end", ""
    name = missing[0]
    written = out / "firing" / f"{name}.npz"
    if written.exists() or any(written.parent.glob(f"{name}.npz*.part")):
        return "writing", name
    if name.startswith("fp32"):
        trained = out / "checkpoints" / f"{name}.safetensors"
        return ("evaluation" if trained.exists() else "baseline"), name
    if "qat" in name or "control" in name:
        return "qat", name
    return "evaluation", name


def killed_until_it_ends(
    config: StudyConfig, out: Path, wanted: dict[str, int], seed: int, quickly: bool
) -> collections.Counter[str]:
    """Start the study again and again, and kill it so often in each phase.

    The run is killed a random while after it enters a phase that is still wanted; the
    last start is left alone. Returns how many kills fell into which phase, as the
    files tell that the kill left.
    """
    left, rng, hit = dict(wanted), random.Random(seed), collections.Counter()
    for _ in range(sum(wanted.values()) + 1):
        process = start(config, out, quickly)
        began, last, deadline = False, None, None
        if left.get("start") and rng.random() < 0.5:
            last, deadline = ("start", ""), time.monotonic() + rng.uniform(0, 4)
        while process.poll() is None:
            began = began or has_begun(process, out)
            now = phase_of(config, out) if began else ("start", "")
            if left.get(now[0]) and now[0] != "start" and now != last:
                if now[0] == "writing":
                    deadline = time.monotonic() + rng.uniform(0, 0.12)
                elif deadline is None or last == ("start", ""):
                    # It compiles first, and trains then; a short run has done both
                    # in less than a second.
                    mean = 0.05 if quickly else 2.0
                    deadline = time.monotonic() + rng.expovariate(1 / mean)
                last = now
            if deadline is not None and time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                break
            time.sleep(0.005)
        _, said = process.communicate()
        if process.returncode == 0:
            return hit
        assert process.returncode == -signal.SIGKILL, said.decode()
        phase = phase_of(config, out)[0] if began else "start"
        hit[phase] += 1
        if left.get(phase):
            left[phase] -= 1
    process = start(config, out, quickly)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said.decode()
    return hit


def assert_same_run(config: StudyConfig, out: Path, undisturbed: Path) -> None:
    """Every number of ``out`` is that of ``undisturbed``, and every file is whole."""
    rows, expected = StudyStore(out).rows(), StudyStore(undisturbed).rows()
    assert [name_row(row) for row in rows] == names_of(config)
    for row, other in zip(rows, expected, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}
    names = {path.relative_to(undisturbed) for path in undisturbed.rglob("*")}
    assert {path.relative_to(out) for path in out.rglob("*")} == names
    for path in (undisturbed / "firing").iterdir():
        with np.load(path) as a, np.load(out / "firing" / path.name) as b:
            assert a.files == b.files
            for name in a.files:
                np.testing.assert_array_equal(a[name], b[name])
    for path in (undisturbed / "checkpoints").glob("*.safetensors"):
        assert (out / "checkpoints" / path.name).read_bytes() == path.read_bytes()
    for path in out.rglob("*.json"):
        json.loads(path.read_text())
    for path in out.rglob("*.jsonl"):
        for line in path.read_text().splitlines():
            json.loads(line)


def undisturbed(config: StudyConfig, out: Path, quickly: bool) -> Path:
    process = start(config, out, quickly)
    _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said.decode()
    return out


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="sees a run by /proc")
@pytest.mark.parametrize(
    ("config", "wanted", "quickly"),
    [
        pytest.param(SHORT, {"qat": 1}, True, id="1 kill", marks=pytest.mark.nightly),
        pytest.param(
            LONG,
            {"start": 4, "baseline": 8, "qat": 8, "evaluation": 5, "writing": 5},
            False,
            id="30 kills",
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_killed_anywhere_it_goes_on_to_the_same_run(tmp_path, config, wanted, quickly):
    expected = undisturbed(config, tmp_path / "undisturbed", quickly)
    out = tmp_path / "run"
    hit = killed_until_it_ends(config, out, wanted, 0, quickly)
    assert_same_run(config, out, expected)
    if not quickly:
        assert all(hit[phase] for phase in wanted), hit
    assert sum(hit.values()) >= 1
