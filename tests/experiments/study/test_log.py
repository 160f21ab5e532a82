import importlib.util
import json

import pytest

from experiments.study import log as logs
from experiments.study.log import Log
from snnjax.runs import Store


def lines(log):
    return [json.loads(line) for line in log.path.read_text().splitlines()]


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    log = Log(Store(tmp_path))
    for row in ("fp32-s0", "control-s0"):
        for step in (50, 100, 150):
            log.write(row, step, loss=1.0 / step, silent=[])
    return log


def test_a_line_says_what_and_when(log):
    first = lines(log)[0]
    assert (first["row"], first["step"], first["loss"]) == ("fp32-s0", 50, 0.02)
    assert first["time"].endswith("+00:00")


def test_a_resumed_row_says_nothing_twice(log):
    with open(log.path, "a") as file:
        file.write('{"row": "control-s0", "st')  # a kill in the middle of a line
    log.resume("control-s0", 100)
    steps = [(line["row"], line["step"]) for line in lines(log)]
    assert steps == [
        *(("fp32-s0", s) for s in (50, 100, 150)),
        *(("control-s0", s) for s in (50, 100)),
    ]
    log.write("control-s0", 150, loss=0.1)
    assert len(lines(log)) == 6
    assert [p.name for p in log.store.path.iterdir()] == ["log.jsonl"]


def test_there_may_be_no_log_yet(tmp_path):
    Log(Store(tmp_path)).resume("fp32-s0", 0)
    assert not list(tmp_path.iterdir())


def test_tensorboard_gets_the_numbers(log, monkeypatch):
    said = []

    class Writer:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, name, value, step):
            said.append((self.folder, name, value, step))

        def close(self):
            said.append("closed")

    class summary:
        pass

    summary.Writer = Writer
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(logs.importlib, "import_module", lambda name: summary)
    log.write("fp32-s1", 7, loss=0.5, silent=["sn1"])
    log.close("fp32-s1")
    folder = str(log.store.path / "tensorboard" / "fp32-s1")
    assert said == [(folder, "loss", 0.5, 7), "closed"]


def test_tensorboard_for_real(tmp_path):
    pytest.importorskip("tensorboard", reason="the package tensorboard is not there")
    log = Log(Store(tmp_path))
    log.write("fp32-s0", 1, loss=0.5)
    log.close("fp32-s0")
    assert list((tmp_path / "tensorboard" / "fp32-s0").glob("events.out.tfevents.*"))
