"""The run folder: killed at any moment, it can be taken up again."""

import contextlib
import errno
import json
import multiprocessing
import os

import numpy as np
import pytest

from snnjax import runs
from snnjax.runs import jsonl

COUNTS = {"sn1": np.arange(12, dtype=np.int32).reshape(2, 2, 3)}
CONFIG = {"timesteps": 4, "width": 16, "bits": [2, 4, 6, 8]}


def open_store(path, data=None, **options):
    info = {} if data is None else {"data": data}
    return runs.Store.open(path, CONFIG | options, **info)


def add(run, row):
    run.append(row, COUNTS)


def files_of(path):
    return {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.fixture
def rows():
    return [{"name": f"row-{i}", "accuracy": 0.5, "seed": i} for i in range(40)]


def test_rows_and_counts_round_trip(tmp_path, rows):
    path = tmp_path / "a" / "run"
    with open_store(path) as run:
        assert run.rows() == []
        for row in rows:
            add(run, row)
    again = runs.Store(path)
    assert again.rows() == rows
    for row in rows[::20]:
        arrays = again.arrays(row["name"])
        assert list(arrays) == ["sn1"]
        np.testing.assert_array_equal(arrays["sn1"], COUNTS["sn1"])
        assert arrays["sn1"].dtype == np.int32
    assert len(list((path / "arrays").iterdir())) == len(rows)
    info = again.info()
    assert info["config_hash"] == runs.config_hash(CONFIG)
    assert info["config"] == CONFIG


@pytest.mark.parametrize("left", [b"{", b'{"target": "none", "mode": "f', b"\xc3"])
def test_half_a_row_is_cut_and_written_again_once(tmp_path, rows, left):
    path = tmp_path / "run"
    with open_store(path) as run:
        add(run, rows[0])
        add(run, rows[1])
    whole = run.results.read_bytes()
    # Killed in the middle of the third row's line.
    run.results.write_bytes(whole + left)
    assert runs.Store(path).rows() == rows[:2]
    assert run.results.read_bytes() == whole + left
    with open_store(path) as again:
        assert again.results.read_bytes() == whole
        add(again, rows[2])
        assert again.rows() == rows[:3]


def test_a_row_without_its_newline_is_not_doubled(tmp_path, rows):
    path = tmp_path / "run"
    with open_store(path) as run:
        add(run, rows[0])
    os.truncate(run.results, run.results.stat().st_size - 1)
    assert run.rows() == []
    with open_store(path) as again:
        add(again, rows[0])
    assert again.rows() == rows[:1]


def test_a_damaged_line_is_named(tmp_path, rows):
    with open_store(tmp_path) as run:
        add(run, rows[0])
        with open(run.results, "ab") as file:
            file.write(b'{"half": \n')
        add(run, rows[1])
    with pytest.raises(ValueError, match=r"results.jsonl line 2 is not JSON"):
        run.rows()


def test_a_run_is_taken_up_with_its_information(tmp_path):
    path = tmp_path
    with open_store(path) as run:
        run.write_info(CONFIG, seconds=3.5)
    with open_store(tmp_path) as run:
        assert run.info()["seconds"] == 3.5


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(ValueError, match=r"not empty and not a run folder"):
        open_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ValueError, match="is a file"):
        open_store(tmp_path / "thesis.tex")


FOREIGN = (
    *('{"hidden_size": 768}', "[1]", "{", "\xe9"),
    '{"config": [], "config_hash": "a"}',
)


@pytest.mark.parametrize("text", FOREIGN)
def test_a_foreign_config_is_left_alone(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=r"config.json is not"):
        open_store(tmp_path)
    assert files_of(tmp_path) == before


def test_another_config_is_refused_with_both_values(tmp_path, rows):
    with open_store(tmp_path, timesteps=4) as run:
        add(run, rows[0])
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match="another config") as caught:
        open_store(tmp_path, timesteps=6, bits=[2, 4])
    said = str(caught.value)
    assert "timesteps is 4 there and 6 now" in said
    assert "bits is [2, 4, 6, 8] there and [2, 4] now" in said
    assert "width" not in said
    assert "another folder" in said
    assert files_of(tmp_path) == before


def test_other_data_are_refused_and_nothing_changes(tmp_path, rows):
    """Of one config: a run must not be half of one data set and half of another."""
    run = open_store(tmp_path / "run", data="abc")
    add(run, rows[0])
    run.close()
    before = files_of(run.path)
    for other in ("def", None):
        there = rf"a run on other data .*abc there, {other} now"
        with pytest.raises(ValueError, match=there):
            open_store(run.path, data=other)
    assert files_of(run.path) == before
    with open_store(run.path, data="abc") as again:
        assert again.rows() == rows[:1]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({}, "row-0 is there already"),
        ({"name": "row-7", "config_hash": "of another"}, "it is of config of another"),
        ({"name": None}, r"KeyError\('name'\)"),
    ],
)
def test_rows_that_are_none_of_this_run_are_not_counted(tmp_path, rows, change, what):
    with open_store(tmp_path / "run") as run:
        add(run, rows[0])
        wrong = {k: v for k, v in (rows[0] | change).items() if v is not None}
        jsonl.append(run.results, wrong)
        with pytest.raises(ValueError, match=rf"line 2 is not .*{what}.*remove that"):
            run.rows()


def test_rows_of_the_configs_that_were_extended_stay(tmp_path, rows):
    row = rows[0] | {"config_hash": runs.config_hash(CONFIG)}
    with open_store(tmp_path / "run", data="abc") as run:
        add(run, row)
        for bits in ([2, 4, 6, 8], [2, 4, 6, 8, 9], [9]):
            run.extend(CONFIG | {"bits": bits})
            assert run.rows() == [row]
        assert len(run.info()["earlier_hashes"]) == 2
        assert run.info()["config"] == CONFIG | {"bits": [9]}
        assert run.info()["data"] == "abc"
        jsonl.append(run.results, rows[1] | {"config_hash": "of another"})
        with pytest.raises(ValueError, match=r"line 2 is not .* of config of another"):
            run.rows()


def _open_and_wait(path, opened, done):
    with open_store(path):
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
            open_store(tmp_path)
    finally:
        done.set()
        other.join(60)
    assert other.exitcode == 0
    open_store(tmp_path).close()


def test_the_lock_goes_with_the_folder(tmp_path):
    pytest.importorskip("fcntl")
    run = open_store(tmp_path)
    with pytest.raises(ValueError, match="another process"):
        open_store(tmp_path)
    run.close()
    run.close()
    run = open_store(tmp_path)
    del run
    open_store(tmp_path).close()


@pytest.mark.parametrize("left", [(), (".lock",), (".lock", "config.json.part")])
def test_killed_before_its_config_was_written(tmp_path, left):
    for name in left:
        (tmp_path / name).write_text("{")
    with open_store(tmp_path) as run:
        assert run.info()["config_hash"] == runs.config_hash(CONFIG)
    assert not (tmp_path / "config.json.part").exists()


@pytest.mark.parametrize("half", ["config.json.part", "arrays/row-0.npz.part"])
def test_what_a_kill_cut_short_goes_when_the_run_is_taken_up(tmp_path, half):
    """Also where nothing is left to do, and so nothing is written in its place."""
    open_store(tmp_path).close()
    (tmp_path / half).parent.mkdir(exist_ok=True)
    (tmp_path / half).write_text("half a ")
    before = (tmp_path / "config.json").read_bytes()
    open_store(tmp_path).close()
    assert not (tmp_path / half).exists()
    assert (tmp_path / "config.json").read_bytes() == before


def test_files_are_whole_or_not_there(tmp_path, monkeypatch):
    run = runs.Store(tmp_path)
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
    run = runs.Store(tmp_path)
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
        runs.Store(tmp_path / name).info()


@pytest.mark.parametrize(
    ("times", "file"), [(1, "arrays/row-1.npz"), (2, "results.jsonl")]
)
@pytest.mark.parametrize("place", ["os.fsync", "snnjax.runs.jsonl.write_synced"])
def test_a_full_disk_is_named_and_leaves_nothing_half_written(
    tmp_path, rows, monkeypatch, times, file, place
):
    run = runs.Store(tmp_path)
    add(run, rows[0])
    before = run.results.read_bytes()
    real = os.fsync if place == "os.fsync" else jsonl.write_synced
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


@pytest.mark.parametrize("row", [{"name": "../../x"}, {"target": "none"}])
def test_a_row_that_leads_elsewhere_or_lacks_its_name_is_refused(tmp_path, row):
    run = runs.Store(tmp_path / "run")
    run.path.mkdir()
    if "name" not in row:
        run.results.write_text(json.dumps(row) + "\n")
        with pytest.raises(ValueError, match=r"line 1 is not a row.*'name'"):
            run.rows()
        return
    for refused in (lambda: run.arrays(row["name"]), lambda: add(run, row)):
        with pytest.raises(ValueError, match="leads out of"):
            refused()
    assert list(tmp_path.rglob("*")) == [run.path]


def test_a_line_that_is_no_object_is_named(tmp_path):
    run = runs.Store(tmp_path)
    run.results.write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1 is not a JSON object"):
        run.rows()


def test_damaged_counts_are_refused_with_the_way_out(tmp_path, rows):
    run = runs.Store(tmp_path)
    add(run, rows[0])
    path = tmp_path / "arrays" / "row-0.npz"
    whole = path.read_bytes()
    said = r"row-0.npz cannot be read .*; delete it, and the line of row-0"
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=said):
            run.arrays("row-0")
    np.savez(path, sn1=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=said):
        run.arrays("row-0")
    for place in range(0, len(whole), 3):
        altered = bytearray(whole)
        altered[place] ^= 16
        path.write_bytes(altered)
        # What is read is right: some bits of a zip file mean nothing (its dates).
        with contextlib.suppress(ValueError):
            arrays = run.arrays("row-0")
            np.testing.assert_array_equal(arrays["sn1"], COUNTS["sn1"])
    path.unlink()
    with pytest.raises(ValueError, match=said):
        run.arrays("row-0")


def test_a_row_that_is_there_is_not_written_over(tmp_path, rows):
    with open_store(tmp_path) as run:
        add(run, rows[0])
        with pytest.raises(ValueError, match="already"):
            run.append(rows[0], {"x": np.zeros(7)})
        assert run.rows() == rows[:1]
        assert list(run.arrays(rows[0]["name"])) == list(COUNTS)
