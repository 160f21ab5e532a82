"""The benchmark on layers of 2,000 neurons, and with contenders that only pretend."""

import ast
import io
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from experiments.benchmark import contender, kernels, networks, tables
from experiments.benchmark.__main__ import PARTS, _default_folder, run
from experiments.benchmark.config import BenchmarkConfig
from experiments.benchmark.contender import Worker

ROOT = Path(__file__).parents[3]

# Notes its name in a file, and takes some hundredths of a second.
PRETENDS = """
import time
from experiments.benchmark.workers.serve import serve

def make(spec):
    def step():
        if spec["name"] == "SpikingJelly, channels-last":
            raise RuntimeError("no such format")
        with open(spec["log"], "a") as log:
            log.write(spec["name"] + chr(10))
        time.sleep(0.05 if spec["name"] == "SpikingJelly" else 0.01)
    return {"step": step}

serve(make)
"""


def pretend(monkeypatch, log):
    def make_worker(config, one, spec):
        known = spec | {"name": one.name, "log": str(log)}
        return Worker(one.name, (sys.executable, "-c", PRETENDS), known)

    monkeypatch.setattr(networks, "_make_worker", make_worker)
    monkeypatch.setitem(contender.PACKAGES, "spikingjelly", ("numpy",))


def measured(config):
    """JSON, Markdown and what was printed."""
    console = Console(file=io.StringIO(), width=200)
    folder = run(config, console)
    found = json.loads((folder / "benchmark.json").read_text())
    return found, (folder / "benchmark.md").read_text(), console.file.getvalue()


def agree(result, text, printed):
    """The page and the screen have one table, of the JSON's medians and ratios."""
    table = tables.to_table(result["median"])
    assert table in text
    assert all(line in printed for line in table.splitlines())
    for line in table.splitlines()[2:]:
        row, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        expected = []
        for name, medians in result["median"].items():
            assert medians[row] == statistics.median(result["samples"][name][row])
            factor = 1e-6 if name.endswith("bytes") else 1e3
            first = next(iter(medians.values()))
            expected += [f"{factor * medians[row]:.1f}", f"{medians[row] / first:.2f}"]
        assert cells == expected


@pytest.mark.slow
def test_every_comparison_is_printed_and_written(tmp_path):
    config = BenchmarkConfig(
        only=("emd",),
        neurons=2000,
        observations=400,
        runs=2,
        out=tmp_path,
        against=("scipy",),
    )
    found, text, printed = measured(config)
    assert found["peers"]["scipy"]["scipy"]
    assert {"jax", "jaxlib", "snnjax"} <= set(found["versions"])
    assert found["cores"] >= 1
    assert found["options"]["timesteps"] == 4
    assert found["options"]["batch"] == 32
    assert len(found["results"]) == 4
    for result in found["results"]:
        for row, seconds in result["samples"]["seconds"].items():
            assert len(seconds) == 2
            middle = sum(seconds) / 2
            assert result["median"]["seconds"][row] == pytest.approx(middle)
        agree(result, text, printed)


def test_crashed_contender_is_reported(tmp_path, monkeypatch):
    log = tmp_path / "log"
    pretend(monkeypatch, log)
    config = BenchmarkConfig(
        only=("memory",),
        networks=("sew_resnet8-w4", "conv3"),
        memory_timesteps=(2,),
        runs=3,
        out=tmp_path,
        against=("spikingjelly", "pot"),
    )
    monkeypatch.setitem(contender.PACKAGES, "pot", ("no-such-package",))
    monkeypatch.setattr(networks, "REMAT", networks.SNNJAX)
    found, text, printed = measured(config)
    # One turn more than is counted, and each does its work twice: the first warms up.
    order = ["snnjax", "snnjax", "SpikingJelly", "SpikingJelly"]
    assert log.read_text().split() == order * 4
    (result,) = found["results"]
    assert result["title"].endswith("sew_resnet8-w4, T = 2, batch 32")
    seconds = result["samples"]["seconds"]
    assert {row: len(values) for row, values in seconds.items()} == {
        "snnjax": 3,
        "SpikingJelly": 3,
    }
    assert result["median"]["seconds"]["SpikingJelly"] > 0.05
    agree(result, text, printed)
    (died,) = result["died"]
    for words in ("SpikingJelly, channels-last", "exit code 1", "no such format"):
        assert words in died
    for written in (text, printed):
        assert died in written
        assert "not installed: pot" in written
        assert "T = 2, batch 32" in written


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_memory_is_measured_on_linux_only(tmp_path, monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    config = BenchmarkConfig(only=("memory",), against=(), out=tmp_path)
    found, text, printed = measured(config)
    assert not found["results"]
    assert "on Linux only" in text
    assert "on Linux only" in printed


def test_convolutions_are_compared_in_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "SHAPES", ((4, 3, 2, 3, 1), (4, 2, 2, 1, 2)))
    config = BenchmarkConfig(
        only=("conv",), runs=1, batch=1, timesteps=2, against=(), out=tmp_path
    )
    found, text, printed = measured(config)
    titles = [result["title"] for result in found["results"]]
    assert titles == ["1x4x4x3 to 2, 3x3, stride 1", "2x4x4x2 to 2, 1x1, stride 2"]
    for result in found["results"]:
        assert set(result["median"]) == {"forward seconds", "with gradients seconds"}
        agree(result, text, printed)


@pytest.mark.parametrize(("cores", "more"), [(1, 0), (2, 1), (6, 1)])
def test_every_contender_has_a_worker(monkeypatch, cores, more):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    every = (*networks.REMAT, *networks.SPIKINGJELLY, *networks.OTHERS)
    for worker in {one.worker for one in every}:
        assert (Path(networks.__file__).parent / f"workers/{worker}.py").exists()
    config = BenchmarkConfig(networks=("conv3",))
    peers = dict.fromkeys(contender.IN_OWN_PROCESS)
    (comparison,) = networks.compare_steps(config, peers)
    names = [one.name for one in (*networks.SPIKINGJELLY, *networks.OTHERS)]
    names += ["snnjax, a device a core"] * more
    assert list(comparison.work) == ["snnjax", *names]
    (alone,) = networks.compare_steps(config, {})
    assert list(alone.work) == ["snnjax", *names[len(names) - more :]]
    (predicted,) = networks.compare_predictions(config, {})
    assert list(predicted.work) == ["snnjax"]


def test_workers_import_one_library():
    """A worker imports its own library, `serve`, and what is built on that."""
    for path in (Path(networks.__file__).parent / "workers").glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
        names |= {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        tops = {name.split(".")[0] for name in names}
        assert not ({"torch"} <= tops and tops & {"jax", "flax", "snnjax"}), path
        assert "snnjax" not in tops or path.stem == "on_snnjax"
        inside = {name for name in names if name.startswith("experiments")}
        workers = "experiments.benchmark.workers."
        assert all(name.startswith(workers) for name in inside), path


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *((name, 0) for name in ("runs", "neurons", "observations")),
        *((name, 0) for name in ("timesteps", "batch")),
        ("memory_timesteps", (0,)),
        *(("networks", (name,)) for name in ("sew_resnet8", "sew_resnet18-w0")),
        *(("python", (pair,)) for pair in ("spyx", "scipy=python3", "spyx=")),
        ("only", ()),
    ],
)
def test_bad_options_are_refused(option, value):
    with pytest.raises(ValueError, match=f"^{option} must "):
        BenchmarkConfig(**{option: value})


@pytest.mark.slow
def test_command_line_reports_bad_options():
    command = [sys.executable, "-m", "experiments.benchmark", "--runs", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "runs must be at least 1" in done.stderr + done.stdout


@pytest.mark.slow
def test_step_and_eval_run(tmp_path):
    some = {"only": ("step", "eval"), "networks": ("conv3",), "batch": 2, "runs": 1}
    found, *_ = measured(BenchmarkConfig(**some, against=(), out=tmp_path))
    assert [result["part"] for result in found["results"]] == ["step", "eval"]
    assert [result["died"] for result in found["results"]] == [[], []]


@pytest.mark.nightly
def test_all_network_parts_run(tmp_path):
    config = BenchmarkConfig(
        only=("step", "eval", "memory", "compile", "lif"),
        against=(),
        networks=("sew_resnet8-w8", "conv3"),
        memory_timesteps=(2,),
        batch=2,
        runs=1,
        out=tmp_path,
    )
    found, text, printed = measured(config)
    assert [result["part"] for result in found["results"]] == (
        ["step"] * 2 + ["eval"] * 2 + ["memory"] + ["compile"] * 2 + ["lif"] * 2
    )
    for result in found["results"]:
        assert result["died"] == []
        agree(result, text, printed)
        assert f"\n## {result['part']}\n" in text
        if result["part"] == "compile":
            seconds = result["median"]["seconds"]
            assert seconds["warm"] < seconds["cold"] / 2
        if result["part"] == "memory":
            assert min(result["median"]["bytes"].values()) > 0


def test_other_parts_are_not_overwritten(tmp_path):
    there = tmp_path / "benchmark.json"
    config = BenchmarkConfig(only=("emd",), out=tmp_path)
    for text, named in (
        ('{"results": [{"part": "emd"}, {"part": "lif"}]}', " lif,"),
        ("[]", "benchmark.json"),
    ):
        there.write_text(text)
        with pytest.raises(ValueError, match=f"{named}.* --out"):
            run(config, Console(file=io.StringIO()))
        assert there.read_text() == text


def test_default_folder():
    assert _default_folder(tuple(PARTS)) == Path("runs/benchmark")
    assert _default_folder(("emd", "conv")) == Path("runs/benchmark-emd-conv")


@pytest.mark.nightly
def test_each_part_of_a_step_has_a_floor(tmp_path):
    config = BenchmarkConfig(
        only=("roofline",),
        networks=("sew_resnet8-w4", "conv3"),  # the latter has no table of synapses
        batch=2,
        runs=1,
        against=(),
        out=tmp_path,
    )
    found, _, _ = measured(config)
    (result,) = found["results"]
    times, floors = (result["median"][k] for k in ("seconds", "floor seconds"))
    assert len(times) == 4
    assert times.keys() == floors.keys()
    assert all(floor > 0 for floor in floors.values())
    whole = next(row for row in floors if row.startswith("the step"))
    parts = sum(floor for row, floor in floors.items() if row != whole)
    assert 0 < floors[whole] <= parts  # the larger of two sums, and not a sum of larger
