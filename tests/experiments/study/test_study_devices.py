"""The study on several devices and processes is the study on one."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cifar
import numpy as np
import pytest
from slow_disk import PROGRAM

from experiments.study.config import StudyConfig
from experiments.study.grid import name_row, planned
from experiments.study.store import StudyStore

ROOT = Path(__file__).parents[3]
CONFIG = StudyConfig(
    tiny=True,
    width=4,
    timesteps=2,
    qat_epochs=2,
    seeds=(0,),
    only="weights",
    modes=("ptq", "qat"),
    bits=(2,),
    grid=("mid_rise",),
).resolve()
WORDS = "--tiny --width 4 --timesteps 2 --seeds 0 --only weights --modes ptq qat"
WORDS += " --bits 2 --grid mid_rise --qat-epochs 2"
BESIDE = [  # the rows that are trained side by side first
    f"weights-uniform-mid_rise-signed-clip{clip}-b2-qat-s0" for clip in (1, 10)
]


def started(out: Path, *words: object) -> subprocess.Popen:
    """The study's command; what it compiles is compiled quickly."""
    environment = os.environ | {"SNNJAX_KEEP_MEMORY": "0"}
    environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    given = [*WORDS.split(), "--out", out, *words]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, given)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def started_as_two(out: Path, *words: object, each=((), ())) -> list[subprocess.Popen]:
    with socket.socket() as at:
        at.bind(("localhost", 0))
        port = at.getsockname()[1]
    cluster = ("--coordinator", f"localhost:{port}", "--num-processes", 2)
    return [
        started(out, *words, *cluster, "--process-id", me, *each[me]) for me in (0, 1)
    ]


def ended(*processes: subprocess.Popen) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of each."""
    try:
        said = [process.communicate(timeout=900) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *s) for p, s in zip(processes, said, strict=True)]


def finished(*processes: subprocess.Popen) -> list[str]:
    """What each printed; all have ended well."""
    found = ended(*processes)
    assert [code for code, _, _ in found] == [0] * len(found), found
    return [out for _, out, _ in found]


def steps_of(out: Path, name: str) -> list[int]:
    """Steps after which a row in training was saved."""
    folder = out / "checkpoints" / f"{name}-partial"
    names = (p.name for p in folder.iterdir()) if folder.is_dir() else ()
    return sorted(int(name) for name in names if name.isdecimal())


def when_saved(processes: list[subprocess.Popen], out: Path, names) -> None:
    """Wait until all of the rows are saved in the middle of their training."""
    until = time.monotonic() + 900
    while not all(max(steps_of(out, name), default=0) >= 2 for name in names):
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < until
        time.sleep(0.01)


def assert_same_study(out: Path, expected: Path) -> None:
    """Every row once, and its numbers those of the other study within float32.

    Sums over several devices are taken in another order, and a spike whose membrane is
    within that of the threshold is another one: of the images one may be classified
    otherwise, and of 10,000 spikes ten be others. So far none was.
    """
    rows = {name_row(row): row for row in StudyStore(out).rows()}
    assert len(StudyStore(out).rows()) == len(rows)
    assert set(rows) == {spec.name for spec in planned(CONFIG)}
    for other in StudyStore(expected).rows():
        row = rows[name_row(other)]
        assert set(row) == set(other)
        assert abs(row["accuracy"] - other["accuracy"]) <= 1 / 128
        for name in ("emd_mean", "mean_rate", "dead_fraction", "floor_sampling"):
            assert row[name] == pytest.approx(other[name], rel=2e-3, abs=1e-5), name
        fired, wanted = (StudyStore(x).firing(row) for x in (out, expected))
        assert fired.counts.observations == wanted.counts.observations
        assert set(fired.counts.spikes) == set(wanted.counts.spikes)
        moved = total = 0
        for name, spikes in wanted.counts.spikes.items():
            there = np.asarray(fired.counts.spikes[name], np.int64)
            moved += np.abs(there - spikes).sum()
            total += np.sum(spikes, dtype=np.int64)
        assert moved <= 1e-3 * total
    assert not list(out.glob("checkpoints/*-partial"))
    assert (out / "report.html").stat().st_size > 10_000


def devices_in(out: Path) -> dict[str, int]:
    return {name_row(row): row["devices"] for row in StudyStore(out).rows()}


@pytest.fixture(scope="module")
def on_one(tmp_path_factory):
    """The study of one device."""
    out = tmp_path_factory.mktemp("one") / "run"
    finished(started(out, "--devices", 1))
    assert set(devices_in(out).values()) == {1}
    return out


@pytest.mark.nightly
def test_on_eight_devices(tmp_path, on_one):
    out = tmp_path / "run"
    finished(started(out, "--devices", 8))
    assert_same_study(out, on_one)
    assert set(devices_in(out).values()) == {8}


@pytest.mark.nightly
def test_a_dry_run_on_eight_devices(tmp_path):
    [said] = finished(started(tmp_path / "run", "--devices", 8, "--dry-run"))
    assert "10 rows; a training step of 32 images on 8 devices" in " ".join(
        said.split()
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.nightly
def test_on_two_processes(tmp_path, on_one):
    out = tmp_path / "run"
    first, second = finished(*started_as_two(out, "--devices", 8))
    assert_same_study(out, on_one)
    assert set(devices_in(out).values()) == {8}
    assert "10 rows in" in first
    # Gloo's word on its connections cannot be kept from it; ours there is none.
    ours = [line for line in second.splitlines() if not line.startswith("[Gloo]")]
    assert ours == []


@pytest.mark.nightly
@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8)])
def test_killed_and_taken_up_on_other_devices(tmp_path, on_one, before, after):
    out = tmp_path / "run"
    process = started(out, "--devices", before, "--save-seconds", 0)
    when_saved([process], out, BESIDE if before == 8 else BESIDE[:1])
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if before == 8:
        # As a kill leaves it that comes after the first row was saved and before the
        # second: they go on from different steps.
        last = max(steps_of(out, BESIDE[1]))
        shutil.rmtree(out / "checkpoints" / f"{BESIDE[1]}-partial" / str(last))
        assert steps_of(out, BESIDE[0])[-1] != steps_of(out, BESIDE[1])[-1]
    done = set(devices_in(out))
    assert done.isdisjoint(BESIDE)
    finished(started(out, "--devices", after, "--save-seconds", 0))
    assert_same_study(out, on_one)
    for name, devices in devices_in(out).items():
        assert devices == (before if name in done else after), name
    # Nothing was trained twice: each row's log goes on where it was saved.
    for name in BESIDE:
        steps = [line["step"] for line in log_of(out) if line["row"] == name]
        assert steps == sorted(set(steps))
        assert steps[-1] == 8 * CONFIG.qat_epochs


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.nightly
def test_a_signal_to_one_of_two_processes_stops_both(tmp_path, on_one):
    out = tmp_path / "run"
    processes = started_as_two(out, "--devices", 2, "--save-seconds", 0)
    when_saved(processes, out, BESIDE)
    os.kill(processes[1].pid, signal.SIGTERM)
    for code, _, errors in ended(*processes):
        assert code == 143
        assert "resume with: python -m experiments.study" in errors
    steps = [steps_of(out, name)[-1] for name in BESIDE]
    assert steps[0] == steps[1] >= 2
    finished(*started_as_two(out, "--devices", 2, "--save-seconds", 0))
    assert_same_study(out, on_one)


def assert_both_say(processes, first: str, second: str) -> None:
    """Both end with one sentence; one that waited for the other would be aborted."""
    for (code, _, errors), sentence in zip(
        ended(*processes), (first, second), strict=True
    ):
        assert code == 1, errors
        said = errors[errors.index("error: ") :]
        assert sentence in said
        assert "Traceback" not in errors


@pytest.mark.nightly
def test_the_first_process_cannot_write(tmp_path):
    out = tmp_path / "file"
    out.touch()
    sentence = f"{out} is a file; give a folder"
    processes = started_as_two(out, "--devices", 2)
    assert_both_say(
        processes, sentence, f"error: the primary process failed: {sentence}"
    )


@pytest.mark.nightly
def test_processes_of_other_options(tmp_path):
    processes = started_as_two(
        tmp_path / "run", "--devices", 2, each=((), ("--epochs", 2))
    )
    assert_both_say(
        processes,
        "process 1 failed; its own output has the reason",
        "the same options, and epochs of this one differ from the primary's",
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.nightly
def test_data_that_one_process_does_not_have(tmp_path):
    each = (("--data-dir", cifar.data_dir("cifar10")), ("--data-dir", tmp_path))
    words = ("--dataset", "cifar10", "--devices", 2)
    processes = started_as_two(tmp_path / "run", *words, each=each)
    assert_both_say(
        processes,
        "process 1 failed; its own output has the reason",
        f"{tmp_path}/cifar10, got no such",
    )
    assert not (tmp_path / "run").exists()
