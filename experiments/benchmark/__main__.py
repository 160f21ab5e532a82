"""Measure the parts, print tables, write benchmark.json and benchmark.md."""

import contextlib
import dataclasses
import json
import os
import platform
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from experiments.benchmark import kernels, networks, roofline, tables
from experiments.benchmark.config import BenchmarkConfig
from experiments.benchmark.contender import find_installed
from experiments.benchmark.timing import Comparisons, measure, take_medians
from experiments.command_line import run_as_command
from experiments.provenance import versions
from snnjax.runs import Store

# Environment variables that change speed; every contender sees them.
SETTINGS = (
    "GLIBC_TUNABLES",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "XLA_FLAGS",
)


# The comparisons of each part; ``about.toml`` explains them to readers.
PARTS: dict[str, Callable[[BenchmarkConfig, Any], Comparisons]] = {
    "step": networks.compare_steps,
    "eval": networks.compare_predictions,
    "memory": networks.compare_memory,
    "compile": networks.compare_compile_times,
    "lif": networks.compare_neurons,
    "conv": kernels.compare_convolutions,
    "roofline": roofline.compare_with_roofline,
    "emd": kernels.compare_distances,
}


def run(config: BenchmarkConfig, console: Console | None = None) -> Path:
    """Measure, print, and write after each table; returns the folder.

    Raises:
        ValueError: the folder has tables of other parts, which would be overwritten.
    """
    console = console or Console()
    parts = list(dict.fromkeys(config.only))
    out = config.out or _default_folder(parts)
    _require_no_other_parts(out, parts)
    peers = find_installed(config.against, config.pythons())
    machine: dict[str, Any] = {
        "cores": os.cpu_count(),
        "platform": jax.default_backend(),
        "processor": platform.machine(),
        "environment": {k: os.environ[k] for k in SETTINGS if k in os.environ},
        "versions": versions(),
        "peers": peers,
        "options": json.loads(json.dumps(dataclasses.asdict(config), default=str)),
        "notes": [],
    }
    # Paths of environments are private.
    del machine["options"]["python"], machine["options"]["out"]
    if "memory" in parts and sys.platform != "linux":
        parts.remove("memory")
        machine["notes"].append("memory: peaks are read from /proc, so on Linux only.")
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > 0.5:
        machine["notes"].append(
            f"The machine was busy before (load {load:.1f}), so times are unreliable, "
            "torch's above all, whose threads spin while they wait "
            "(OMP_WAIT_POLICY=passive helps)."
        )
    missing = [peer for peer in config.against if peer not in peers]
    if missing:
        machine["notes"].append(f"not installed: {', '.join(missing)}")
    results, folder = [], Store(out)
    _write(folder, machine, results)  # where that fails, before hours of measuring
    for part in parts:
        with contextlib.closing(PARTS[part](config, peers)) as comparisons:
            for comparison in comparisons:
                with console.status(f"{part}: {comparison.title}"):
                    samples, died = measure(comparison, config.runs)
                result = {"part": part, "title": comparison.title, "samples": samples}
                result |= {"median": take_medians(samples), "died": died}
                results.append(result)
                _show(console, result)
                _write(folder, machine, results)
    for sentence in machine["notes"]:
        console.print(sentence, highlight=False)
    console.print(f"written to {out}", highlight=False, soft_wrap=True)
    return out


def _default_folder(parts: Sequence[str]) -> Path:
    """Return the default folder of these parts."""
    some = set(parts) != set(PARTS)
    return Path("runs") / "-".join(["benchmark", *(parts if some else ())])


def _require_no_other_parts(out: Path, parts: Sequence[str]) -> None:
    """Raise ValueError if tables of other parts are there."""
    path = out / "benchmark.json"
    if not path.is_file():
        return
    try:
        there = {result["part"] for result in json.loads(path.read_text())["results"]}
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} was not written by the benchmark; give another folder with --out"
        ) from None
    if lost := sorted(there - set(parts)):
        raise ValueError(
            f"{out} has the tables of {', '.join(lost)}, which would be overwritten; "
            "give another folder with --out"
        )


def _show(console: Console, result: tables.Result) -> None:
    console.print(f"\n{result['title']}", highlight=False)
    console.print(tables.to_table(result["median"]), highlight=False, markup=False)
    for sentence in result["died"]:
        console.print(sentence, highlight=False, markup=False)


def _write(folder: Store, machine: dict[str, Any], results: list) -> None:
    about = tomllib.loads(Path(__file__).with_name("about.toml").read_text("utf-8"))
    text = json.dumps(machine | {"results": results}, indent=1) + "\n"
    folder.write_text("benchmark.json", text)
    folder.write_text("benchmark.md", tables.to_markdown(machine, results, about))


def main() -> None:
    run_as_command(
        run,
        BenchmarkConfig,
        program="python -m experiments.benchmark",
        stopped="the tables so far are written",
        resumes=False,
    )


if __name__ == "__main__":
    main()
