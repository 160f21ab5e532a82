"""The run folder: killed at any moment, it can be taken up again."""

import contextlib
import errno
import json
import multiprocessing
import os

import numpy as np
import pytest

from experiments.provenance import data_sum
from experiments.run_folder import Fired, RunFolder
from experiments.study.config import StudyConfig
from experiments.study.grid import grid, references, row_name
from snnjax import data
from snnjax.firing import FiringCounts
from snnjax.runs import jsonl

COUNTS = {"sn1": np.arange(12, dtype=np.int32).reshape(2, 2, 3)}
FIRED = Fired(FiringCounts(COUNTS, 400), {"sn1": COUNTS["sn1"] + 7})


def config_of(path, **more):
    return StudyConfig(out=path, **more)


def add(run, row):
    run.append(row, FIRED)


def files_of(path):
    return {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.fixture
def rows():
    config = StudyConfig()
    return [
        row | {"accuracy": 0.5, "emd_mean": 0.0}
        for row in references(config) + grid(config)
    ]


def test_rows_and_counts_round_trip(tmp_path, rows):
    path = tmp_path / "a" / "run"
    with RunFolder.open(config_of(path)) as run:
        assert run.rows() == []
        for row in rows:
            add(run, row)
    again = RunFolder(path)
    assert again.rows() == rows
    for row in rows[::20]:
        counts, latencies = again.fired(row)
        assert counts.observations == 400
        assert list(counts.spikes) == list(latencies) == ["sn1"]
        np.testing.assert_array_equal(counts.spikes["sn1"], COUNTS["sn1"])
        np.testing.assert_array_equal(latencies["sn1"], COUNTS["sn1"] + 7)
        assert counts.spikes["sn1"].dtype == latencies["sn1"].dtype == np.int32
    assert len(list((path / "firing").iterdir())) == len(rows)
    info = again.info()
    assert info["config_hash"] == config_of(path).hash()
    assert info["config"] == config_of(path).numbers()
    assert {"python", "jax", "snnjax"} <= set(info["versions"])


@pytest.mark.parametrize("left", [b"{", b'{"target": "none", "mode": "f', b"\xc3"])
def test_half_a_row_is_cut_and_written_again_once(tmp_path, rows, left):
    config = config_of(tmp_path / "run")
    with RunFolder.open(config) as run:
        add(run, rows[0])
        add(run, rows[1])
    whole = run.results.read_bytes()
    # Killed in the middle of the third row's line.
    run.results.write_bytes(whole + left)
    assert RunFolder(config.out).rows() == rows[:2]
    assert run.results.read_bytes() == whole + left
    with RunFolder.open(config) as again:
        assert again.results.read_bytes() == whole
        add(again, rows[2])
        assert again.rows() == rows[:3]


def test_a_row_without_its_newline_is_not_doubled(tmp_path, rows):
    config = config_of(tmp_path / "run")
    with RunFolder.open(config) as run:
        add(run, rows[0])
    os.truncate(run.results, run.results.stat().st_size - 1)
    assert run.rows() == []
    with RunFolder.open(config) as again:
        add(again, rows[0])
    assert again.rows() == rows[:1]


def test_a_damaged_line_is_named(tmp_path, rows):
    with RunFolder.open(config_of(tmp_path)) as run:
        add(run, rows[0])
        with open(run.results, "ab") as file:
            file.write(b'{"half": \n')
        add(run, rows[1])
    with pytest.raises(ValueError, match=r"results.jsonl line 2 is not JSON"):
        run.rows()


def test_a_run_is_taken_up_with_its_information(tmp_path):
    config = config_of(tmp_path)
    with RunFolder.open(config) as run:
        run.write_info(config, seconds=3.5)
    with RunFolder.open(config_of(tmp_path, dry_run=True)) as run:
        assert run.info()["seconds"] == 3.5


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(ValueError, match=r"not empty and not a run folder.*--out"):
        RunFolder.open(config_of(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ValueError, match="is a file"):
        RunFolder.open(config_of(tmp_path / "thesis.tex"))
    with pytest.raises(ValueError, match="resolve"):
        RunFolder.open(StudyConfig())


FOREIGN = (
    *('{"hidden_size": 768}', "[1]", "{", "\xe9"),
    '{"config": [], "config_hash": "a"}',
)


@pytest.mark.parametrize("text", FOREIGN)
def test_a_foreign_config_is_left_alone(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=r"config.json is not"):
        RunFolder.open(config_of(tmp_path))
    assert files_of(tmp_path) == before


def test_another_config_is_refused_with_both_values(tmp_path, rows):
    with RunFolder.open(config_of(tmp_path, timesteps=4)) as run:
        add(run, rows[0])
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match="another config") as caught:
        RunFolder.open(config_of(tmp_path, timesteps=6, bits=(2, 4)))
    said = str(caught.value)
    assert "timesteps: 4 there, 6 now" in said
    assert "bits: [2, 4, 6, 8] there, [2, 4] now" in said
    assert "width" not in said
    assert "--out" in said
    assert files_of(tmp_path) == before


def test_other_data_are_refused_and_nothing_changes(tmp_path, rows):
    """Of one config: a run must not be half of one data set and half of another."""

    def sum_of(images, labels):
        arrays = np.asarray(images, np.uint8).reshape(2, 1, 1, 1), np.int32(labels)
        return data_sum(data.from_arrays(*arrays, num_classes=9))

    ours, config = sum_of([1, 2], [3, 4]), config_of(tmp_path / "run")
    others = sum_of([1, 7], [3, 4]), sum_of([1, 2], [3, 8]), sum_of([2, 1], [3, 4])
    assert len({ours, *others}) == 4
    with RunFolder.open(config, ours) as run:
        add(run, rows[0])
    before = files_of(config.out)
    for other in others:
        with pytest.raises(ValueError, match="a run on other images or labels of digi"):
            RunFolder.open(config, other)
        assert files_of(config.out) == before
    with RunFolder.open(config, sum_of([1, 2], [3, 4])) as again:
        assert again.rows() == rows[:1]


def test_a_run_that_did_not_note_its_data_goes_on(tmp_path, rows):
    with RunFolder.open(config_of(tmp_path / "run")) as run:
        add(run, rows[0])
    with RunFolder.open(config_of(tmp_path / "run"), "abc") as run:
        assert run.rows() == rows[:1]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({}, "fp32-s0 is there already"),
        ({"seed": 7, "config_hash": "of another"}, "it is of config of another"),
        ({"seed": 7, "accuracy": None}, r"KeyError\('accuracy'\)"),
    ],
)
def test_rows_that_are_none_of_this_run_are_not_counted(tmp_path, rows, change, what):
    with RunFolder.open(config_of(tmp_path / "run")) as run:
        add(run, rows[0])
        wrong = {k: v for k, v in (rows[0] | change).items() if v is not None}
        jsonl.append(run.results, wrong)
        with pytest.raises(ValueError, match=rf"line 2 is not .*{what}.*remove that"):
            run.rows()


def _open_and_wait(path, opened, done):
    with RunFolder.open(config_of(path)):
        opened.set()
        done.wait(60)


@pytest.fixture
def spawned():
    return multiprocessing.get_context("spawn")


@pytest.mark.slow
def test_a_second_process_is_locked_out(tmp_path, spawned):
    pytest.importorskip("fcntl")
    opened, done = spawned.Event(), spawned.Event()
    other = spawned.Process(target=_open_and_wait, args=(tmp_path, opened, done))
    other.start()
    try:
        assert opened.wait(60)
        with pytest.raises(ValueError, match="another process is writing to"):
            RunFolder.open(config_of(tmp_path))
    finally:
        done.set()
        other.join(60)
    assert other.exitcode == 0
    RunFolder.open(config_of(tmp_path)).close()


def test_the_lock_goes_with_the_folder(tmp_path):
    pytest.importorskip("fcntl")
    run = RunFolder.open(config_of(tmp_path))
    with pytest.raises(ValueError, match="another process"):
        RunFolder.open(config_of(tmp_path))
    run.close()
    run.close()
    run = RunFolder.open(config_of(tmp_path))
    del run
    RunFolder.open(config_of(tmp_path)).close()


@pytest.mark.parametrize("left", [(), (".lock",), (".lock", "config.json.part")])
def test_killed_before_its_config_was_written(tmp_path, left):
    for name in left:
        (tmp_path / name).write_text("{")
    with RunFolder.open(config_of(tmp_path)) as run:
        assert run.info()["config_hash"] == config_of(tmp_path).hash()
    assert not (tmp_path / "config.json.part").exists()


@pytest.mark.parametrize("half", ["config.json.part", "firing/fp32-s0.npz.part"])
def test_what_a_kill_cut_short_goes_when_the_run_is_taken_up(tmp_path, half):
    """Also where nothing is left to do, and so nothing is written in its place."""
    RunFolder.open(config_of(tmp_path)).close()
    (tmp_path / half).parent.mkdir(exist_ok=True)
    (tmp_path / half).write_text("half a ")
    before = (tmp_path / "config.json").read_bytes()
    RunFolder.open(config_of(tmp_path)).close()
    assert not (tmp_path / half).exists()
    assert (tmp_path / "config.json").read_bytes() == before


def test_files_are_whole_or_not_there(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    assert run.write_bytes("figures/a.png", b"\x00\xff") == tmp_path / "figures/a.png"
    run.write_text("a.txt", "ünë\n")
    assert (tmp_path / "a.txt").read_bytes() == "ünë\n".encode()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run.write_text("a.txt", "new")
    monkeypatch.undo()
    assert (tmp_path / "a.txt").read_bytes() == "ünë\n".encode()
    run.write_text("a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert not list(tmp_path.rglob("*.part"))


def test_killed_between_counts_and_line_leaves_no_row(tmp_path, rows, monkeypatch):
    run = RunFolder(tmp_path)
    add(run, rows[0])
    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            add(run, rows[1])
    assert run.rows() == rows[:1]
    add(run, rows[1])
    assert run.rows() == rows[:2]


@pytest.mark.parametrize(("name", "said"), [("", "no config"), ("no", "not exist")])
def test_no_run_is_told(tmp_path, name, said):
    with pytest.raises(ValueError, match=said):
        RunFolder(tmp_path / name).info()


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"target": "none", "mode": "control", "seed": 3}, "control-s3"),
        (
            {"target": "weights", "method": "lq_net", "grid": None, "clip": 10.0}
            | {"signed": True, "bits": 2, "mode": "ptq_bn", "seed": 0},
            "weights-lq_net-signed-clip10-b2-ptq_bn-s0",
        ),
        (
            {"target": "membrane", "method": "uniform", "grid": "mid_tread"}
            | {"clip": 1.0, "signed": False, "bits": 8, "mode": "qat", "seed": 0},
            "membrane-uniform-mid_tread-unsigned-clip1-b8-qat-s0",
        ),
    ],
)
def test_row_names(row, name):
    assert row_name(row) == name


@pytest.mark.parametrize(
    ("times", "file"), [(1, "firing/fp32-s1.npz"), (2, "results.jsonl")]
)
@pytest.mark.parametrize("place", ["os.fsync", "snnjax.runs.jsonl.write_synced"])
def test_a_full_disk_is_named_and_leaves_nothing_half_written(
    tmp_path, rows, monkeypatch, times, file, place
):
    run = RunFolder(tmp_path)
    add(run, rows[0])
    before = run.results.read_bytes()
    real = os.fsync if place == "os.fsync" else jsonl.write
    calls = []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) != times:
            return real(*arguments)
        if place != "os.fsync":  # half of it had room
            file, data = arguments
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(place, failing)
        with pytest.raises(OSError, match="No space") as refused:
            add(run, rows[1])
    assert refused.value.filename == str(tmp_path / file)
    assert run.results.read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))
    add(run, rows[1])
    assert run.rows() == rows[:2]


@pytest.mark.parametrize(
    "row", [{"target": "none", "mode": "../../x", "seed": 0}, {"target": "none"}]
)
def test_a_row_that_leads_elsewhere_or_lacks_its_name_is_refused(tmp_path, row):
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    if "mode" not in row:
        run.results.write_text(json.dumps(row) + "\n")
        with pytest.raises(ValueError, match=r"line 1 is not a study's row.*'mode'"):
            run.rows()
        return
    for refused in (lambda: run.fired(row), lambda: add(run, row)):
        with pytest.raises(ValueError, match="leads out of"):
            refused()
    assert list(tmp_path.rglob("*")) == [run.path]


def test_a_line_that_is_no_object_is_named(tmp_path):
    run = RunFolder(tmp_path)
    run.results.write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1 is not a JSON object"):
        run.rows()


def test_damaged_counts_are_refused_with_the_way_out(tmp_path, rows):
    run = RunFolder(tmp_path)
    add(run, rows[0])
    path = tmp_path / "firing" / "fp32-s0.npz"
    whole = path.read_bytes()
    said = r"fp32-s0.npz cannot be read .*; delete it, and the line of fp32-s0"
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=said):
            run.fired(rows[0])
    np.savez(path, sn1=np.array([{}], dtype=object), observations=1)
    with pytest.raises(ValueError, match=said):
        run.fired(rows[0])
    for place in range(0, len(whole), 3):
        altered = bytearray(whole)
        altered[place] ^= 16
        path.write_bytes(altered)
        # What is read is right: some bits of a zip file mean nothing (its dates).
        with contextlib.suppress(ValueError):
            counts = run.fired(rows[0]).counts
            np.testing.assert_array_equal(counts.spikes["sn1"], COUNTS["sn1"])
            assert counts.observations == 400
    path.unlink()
    with pytest.raises(ValueError, match=said):
        run.fired(rows[0])
