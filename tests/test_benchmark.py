"""The benchmark on layers of 2,000 neurons."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from experiments import benchmark
from experiments.benchmark import BenchmarkConfig

ROOT = Path(__file__).parents[1]


def test_every_comparison_is_printed_and_written(tmp_path):
    console = Console(file=io.StringIO(), width=100)
    config = BenchmarkConfig(
        neurons=2000, observations=400, runs=2, out=tmp_path, against=("scipy",)
    )
    folder = benchmark.run(config, console)
    found = json.loads((folder / "benchmark.json").read_text())
    assert found["versions"]["scipy"]
    assert found["cores"] >= 1
    text, printed = (folder / "benchmark.md").read_text(), console.file.getvalue()
    assert len(found["results"]) == 4
    for result in found["results"]:
        names = list(result["seconds"])
        assert all(len(result["seconds"][name]) == 2 for name in names)
        for name in names:
            low, high = sorted(result["seconds"][name])
            assert result["median"][name] == pytest.approx((low + high) / 2)
            line = next(li for li in text.splitlines() if li.startswith(f"| {name} |"))
            assert len(line.split("|")) == 5
            assert name in printed
        first = result["median"][names[0]]
        last = result["median"][names[-1]]
        assert f"| {names[-1]} | {1e3 * last:.1f} | {last / first:.2f} |" in text


def test_work_is_done_in_turn_and_the_first_turn_does_not_count():
    order = []
    work = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = benchmark.measure(work, runs=3)
    assert order == list("abababab")
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_peers_that_are_not_here_are_left_out_and_told(tmp_path, monkeypatch):
    monkeypatch.setitem(benchmark.PACKAGES, "pot", "no-such-package")
    console = Console(file=io.StringIO())
    config = BenchmarkConfig(
        neurons=50, observations=10, runs=1, out=tmp_path, against=("pot",)
    )
    benchmark.run(config, console)
    assert "not installed: pot" in console.file.getvalue()
    assert "POT" not in (tmp_path / "benchmark.md").read_text()


@pytest.mark.parametrize("name", ["runs", "neurons", "observations"])
def test_nonsense_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        BenchmarkConfig(**{name: 0})


def test_the_command_line_says_what_is_wrong(tmp_path):
    command = [sys.executable, "-m", "experiments.benchmark", "--runs", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "runs must be at least 1" in done.stderr + done.stdout
