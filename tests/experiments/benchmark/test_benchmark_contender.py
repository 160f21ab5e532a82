"""Measuring in turn, and programs that run commands."""

import os
import signal
import sys

import pytest

from experiments.benchmark import contender
from experiments.benchmark.contender import Worker, close_at_end, find_installed
from experiments.benchmark.timing import (
    Comparison,
    WorkerCrashedError,
    make_timer,
    measure,
    take_medians,
)

HEAD = "from experiments.benchmark.workers.serve import serve\n"


def run_code(code, *commands, spec=()):
    """Run commands in a program of this code."""
    command = (sys.executable, "-c", HEAD + code)
    with close_at_end([Worker("it", command, dict(spec))]) as (it,):
        return [it.run(command) for command in commands]


def test_worker_times_each_command():
    code = (
        "import time\n"
        "print('a library says hello')\n"
        "serve(lambda spec: {'step': lambda: time.sleep(spec['for']),"
        " 'eval': lambda: print('and is not understood')})"
    )
    step, other = run_code(code, "step", "eval", spec={"for": 0.1})
    assert 0.1 <= step["seconds"] < 5
    assert 0 <= other["seconds"] < 0.1


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_worker_reports_peak_memory():
    code = (
        "def make(spec):\n"
        "    kept = bytearray(20_000_000)\n"
        "    def step():\n"
        "        bytearray(60_000_000)\n"
        "    return {'step': step, 'eval': lambda: kept[0]}\n"
        "serve(make)"
    )
    answers = run_code(code, "step", "eval", "step")
    # Other things of the process move by some MB.
    for answer, expected in zip(answers, (80e6, 20e6, 80e6), strict=True):
        assert expected - 2e6 < answer["bytes"] < expected + 10e6


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1 / 0", ("exit code 1", "ZeroDivisionError: division by zero")),
        ("serve(dict)", ("exit code 1", "KeyError: 'step'")),
        ("import os; os._exit(3)", ("exit code 3",)),
        (f"import os; os.kill(os.getpid(), {signal.SIGTERM:d})", ("SIGTERM",)),
    ],
)
def test_crash_reports_its_reason(code, words):
    with pytest.raises(WorkerCrashedError, match=r"^it stopped \(") as caught:
        run_code(code, "step")
    assert all(word in str(caught.value) for word in words)


def test_worker_ends_with_the_block():
    code = HEAD + "import time\nserve(lambda spec: {'step': lambda: None})"
    with close_at_end([Worker("it", (sys.executable, "-c", code), {})]) as (it,):
        it.run("step")
        process = it._process
    assert process.returncode is not None


def test_rows_run_in_turn():
    order = []
    work = {
        name: lambda name=name: order.append(name) or {"seconds": float(len(order))}
        for name in "ab"
    }
    samples, died = measure(Comparison("", work), runs=3)
    assert order == list("abababab")
    assert samples == {"seconds": {"a": [3, 5, 7], "b": [4, 6, 8]}}
    assert take_medians(samples) == {"seconds": {"a": 5, "b": 6}}
    assert not died
    order.clear()
    samples, _ = measure(Comparison("", work, most=1), runs=3)
    assert order == list("abab")
    assert samples == {"seconds": {"a": [3], "b": [4]}}


def test_crashed_row_is_dropped():
    def dies():
        dies.left -= 1
        if not dies.left:
            raise WorkerCrashedError("b stopped")
        return {"seconds": 1.0}

    dies.left = 3
    work = {
        "a": make_timer(seconds=lambda: None),
        "b": dies,
        "c": make_timer(seconds=list),
    }
    samples, died = measure(Comparison("", work), runs=4)
    assert died == ["b stopped"]
    assert {row: len(of) for row, of in samples["seconds"].items()} == {"a": 4, "c": 4}


def test_versions_come_from_the_peers_environment(tmp_path, monkeypatch):
    elsewhere = tmp_path / "python"
    elsewhere.write_text(
        '#!/bin/sh\necho \'{"python": "9", "spyx": "1", "jax": "2", "jaxlib": "3", '
        '"flax": "4"}\'\n'
    )
    os.chmod(elsewhere, 0o755)
    monkeypatch.setitem(contender.PACKAGES, "pot", ("no-such-package",))
    found = find_installed(("spyx", "scipy", "pot"), {"spyx": str(elsewhere)})
    assert list(found) == ["spyx", "scipy"]
    assert found["spyx"]["jaxlib"] == "3"
    assert set(found["scipy"]) == {"python", "scipy"}


def test_missing_interpreter_is_refused():
    with pytest.raises(ValueError, match="--python spyx=/no/python"):
        find_installed(("spyx",), {"spyx": "/no/python"})
