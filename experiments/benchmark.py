"""How fast the parts are, beside what people use today.

    python -m experiments.benchmark --only emd

Everything in a table does the same work in the same process with the same threads, in
turn (A B C A B C ...); the median counts, and what it is divided by stands beside it.
Losses are printed as well as wins. Peers that are not installed are left out:
``pip install -e '.[bench]'`` brings them.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.common import run_as_command
from experiments.run_folder import RunFolder, versions
from snnjax import emd

Peer = Literal["scipy", "pot"]
PACKAGES = {"scipy": "scipy", "pot": "POT"}
Work = dict[str, Callable[[], Any]]


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """Time the parts of snnjax beside other libraries."""

    only: tuple[Literal["emd"], ...] = ("emd",)
    """Which parts."""
    against: tuple[Peer, ...] = ("scipy", "pot")
    """Which peers, of those that are installed."""
    runs: int = 9
    """Timed runs of each, after one that is not timed; at least 7 for a median."""
    neurons: int = 1_000_000
    """Size of a layer."""
    observations: int = 40_000
    """T x images."""
    out: Path = Path("runs/benchmark")
    """Folder for benchmark.json and benchmark.md."""

    def __post_init__(self):
        for name in ("runs", "neurons", "observations"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Several ways to do the same work; others are set against the first."""

    title: str
    work: Work


def emd_comparisons(config: BenchmarkConfig, peers: set[str]) -> list[Comparison]:
    """Exact W1 of two layers: from counts, from samples, weighted, with gradients."""
    n, k = config.neurons, config.observations
    rng = np.random.default_rng(0)

    def layer(size: int, tail: float) -> np.ndarray:
        return rng.binomial(k, rng.beta(0.3, tail, size)).astype(np.int32)

    x, y = layer(n, 2.0), layer(n, 2.1)
    rates = x / k, y / k
    small = tuple(np.float32(r) for r in rates)
    weights = tuple(np.float32(rng.random(n)) for _ in range(2))
    many_x, many_y = np.tile(x, 10), np.tile(y, 10)
    on_device = jax.device_put((*small, *weights))
    inside = jax.jit(emd.wasserstein_1d)
    gradient = jax.jit(jax.value_and_grad(emd.wasserstein_1d))

    by_scipy: Work = {}
    by_pot: Work = {}
    if "scipy" in peers:
        from scipy.stats import wasserstein_distance

        by_scipy["scipy"] = lambda: wasserstein_distance(*rates)
    if "pot" in peers:
        import ot  # pyrefly: ignore[missing-import]

        by_pot["POT wasserstein_1d"] = lambda: ot.wasserstein_1d(*rates, p=1)
        by_pot["POT emd2_1d"] = lambda: ot.emd2_1d(*rates, metric="cityblock")
    exact = {"emd_from_counts": lambda: emd.emd_from_counts(x, y, k)}
    weighted_peers: Work = {}
    if "scipy" in peers:
        weighted_peers["scipy"] = lambda: wasserstein_distance(*rates, *weights)

    def ready(function, *arrays):
        return lambda: jax.block_until_ready(function(*arrays))

    return [
        Comparison(f"counts of {n:,} neurons at {k:,}", exact | by_scipy | by_pot),
        Comparison(
            "ten times the neurons",
            {
                f"emd_from_counts, {10 * n:,}": lambda: emd.emd_from_counts(
                    many_x, many_y, k
                ),
                f"emd_from_counts, {n:,}": exact["emd_from_counts"],
            },
        ),
        Comparison(
            f"{n:,} samples",
            {
                "wasserstein_1d": lambda: emd.wasserstein_1d(*rates),
                "wasserstein_1d in jit": ready(inside, *on_device[:2]),
                "its value_and_grad in jit": ready(gradient, *on_device[:2]),
            }
            | by_scipy
            | by_pot,
        ),
        Comparison(
            f"{n:,} weighted samples",
            {
                "wasserstein_1d": lambda: emd.wasserstein_1d(*rates, *weights),
                "wasserstein_1d in jit": ready(inside, *on_device),
            }
            | weighted_peers,
        ),
    ]


COMPARISONS = {"emd": emd_comparisons}


def measure(work: Work, runs: int) -> dict[str, list[float]]:
    """Seconds of each, in turn; the first turn (compiling, warming) does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(runs + 1):
        for name, function in work.items():
            start = time.perf_counter()
            function()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def installed(against: Sequence[str]) -> dict[str, str]:
    """Versions of the peers that are here."""
    found = {}
    for peer in against:
        try:
            found[peer] = importlib.metadata.version(PACKAGES[peer])
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def run(config: BenchmarkConfig, console: Console | None = None) -> Path:
    """Measure, print, and write benchmark.json and benchmark.md; returns the folder."""
    console = console or Console()
    peers = installed(config.against)
    machine = {
        "cores": os.cpu_count(),
        "platform": jax.default_backend(),
        "processor": platform.machine(),
        "versions": versions() | peers,
    }
    results = []
    for part in config.only:
        for comparison in COMPARISONS[part](config, set(peers)):
            with console.status(f"{part}: {comparison.title}"):
                seconds = measure(comparison.work, config.runs)
            medians = {name: statistics.median(all_) for name, all_ in seconds.items()}
            results.append(
                {
                    "part": part,
                    "title": comparison.title,
                    "seconds": seconds,
                    "median": medians,
                }
            )
            console.print(_table(comparison.title, medians))
    missing = sorted(set(config.against) - set(peers))
    if missing:
        console.print(f"not installed: {', '.join(missing)}", highlight=False)
    folder = RunFolder(config.out)
    folder.write_text(
        "benchmark.json", json.dumps(machine | {"results": results}, indent=1) + "\n"
    )
    folder.write_text("benchmark.md", markdown(machine, results))
    console.print(f"written to {config.out}", highlight=False, soft_wrap=True)
    return config.out


def _lines(medians: dict[str, float]) -> list[tuple[str, str, str]]:
    """Name, milliseconds, and how many times as long as the first."""
    first = next(iter(medians.values()))
    return [
        (name, f"{1e3 * median:.1f}", f"{median / first:.2f}")
        for name, median in medians.items()
    ]


def _table(title: str, medians: dict[str, float]) -> Table:
    table = Table("", "ms", "times the first", title=title, title_justify="left")
    table.columns[1].justify = table.columns[2].justify = "right"
    for line in _lines(medians):
        table.add_row(*line)
    return table


def markdown(machine: dict[str, Any], results: list[dict[str, Any]]) -> str:
    """The tables, with what they were measured on."""
    used = ", ".join(
        f"{name} {version}" for name, version in machine["versions"].items()
    )
    text = f"{machine['cores']} cores ({machine['processor']}), {machine['platform']}; "
    text += f"{used}. Medians, in turn in one process.\n"
    for result in results:
        text += (
            f"\n### {result['title']}\n\n| | ms | times the first |\n|---|---:|---:|\n"
        )
        for line in _lines(result["median"]):
            text += f"| {' | '.join(line)} |\n"
    return text


def main() -> None:
    program = "python -m experiments.benchmark"
    run_as_command(run, BenchmarkConfig, program=program, stopped="nothing was written")


if __name__ == "__main__":
    main()
