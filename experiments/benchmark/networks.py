"""Compare networks and layers of neurons, each contender in its own process."""

import dataclasses
import functools
import math
import os
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from experiments.benchmark.config import BenchmarkConfig
from experiments.benchmark.contender import Worker, close_at_end
from experiments.benchmark.timing import Comparison, Comparisons, Measures, Work

Peers = Mapping[str, Any]  # by name, those that are installed
Spec = dict[str, Any]

STAGES = {"8": (1, 1, 1), "18": (2, 2, 2, 2)}


@dataclasses.dataclass(frozen=True)
class Contender:
    """A worker's program, and its own part of the specification."""

    name: str
    worker: str
    spec: Spec = dataclasses.field(default_factory=dict)


SNNJAX = (Contender("snnjax", "on_snnjax", {"remat": "none"}),)
REMAT = tuple(
    Contender(f"snnjax, remat {remat}", "on_snnjax", {"remat": remat})
    for remat in ("none", "block", "full")
)
SPIKINGJELLY = (
    Contender("SpikingJelly", "on_spikingjelly", {"channels_last": False}),
    Contender(
        "SpikingJelly, channels-last", "on_spikingjelly", {"channels_last": True}
    ),
)
OTHERS = (Contender("snnTorch", "on_snntorch"), Contender("spyx", "on_spyx"))


def compare_steps(config: BenchmarkConfig, peers: Peers) -> Comparisons:
    """Yield one training step of each network."""
    return _compare_networks(config, peers, "step", "training step")


def compare_predictions(config: BenchmarkConfig, peers: Peers) -> Comparisons:
    """Yield one forward pass of each network, without training."""
    return _compare_networks(config, peers, "eval", "prediction")


def compare_memory(config: BenchmarkConfig, peers: Peers) -> Comparisons:
    """Yield time and peak memory of a training step, by what is rematerialized."""
    for name in config.networks:
        if name == "conv3":  # it has no blocks to rematerialize
            continue
        for timesteps in config.memory_timesteps:
            title, spec = describe_network(config, name, timesteps)
            title = f"training step and its memory, {title}"
            contenders, measures = REMAT + SPIKINGJELLY, ("seconds", "bytes")
            yield from _compare(config, peers, title, contenders, spec, measures)


def compare_neurons(config: BenchmarkConfig, peers: Peers) -> Comparisons:
    """Yield a layer of LIF neurons, alone and behind a BatchNorm."""
    sizes = {"timesteps": config.timesteps, "batch": config.batch}
    for name, norm in (("LIF", False), ("BatchNorm and LIF", True)):
        spec = sizes | {"norm": norm, "channels": 64, "command": "step"}
        shape = f"{config.timesteps}x{config.batch}x32x32x64"
        title = f"{name} forward and backward, {shape}"
        yield from _compare(config, peers, title, SNNJAX + SPIKINGJELLY, spec)


def compare_compile_times(config: BenchmarkConfig, peers: Peers) -> Comparisons:
    """Yield compile times of the training step, with an empty and with a full cache."""
    del peers

    def compile_step(spec: Spec, cache: str | None) -> Measures:
        with tempfile.TemporaryDirectory() as empty:
            worker = _make_worker(config, SNNJAX[0], spec | {"cache": cache or empty})
            with close_at_end([worker]):
                return worker.run("compile")

    for name in config.networks:
        title, spec = describe_network(config, name, config.timesteps)
        with tempfile.TemporaryDirectory() as cache:
            # The turn that does not count fills the cache.
            work: Work = {
                "cold": functools.partial(compile_step, spec, None),
                "warm": functools.partial(compile_step, spec, cache),
            }
            yield Comparison(f"compiling the training step, {title}", work, most=3)


def _compare_networks(config, peers, command: str, title: str) -> Comparisons:
    for name in config.networks:
        contenders = SNNJAX + SPIKINGJELLY + (OTHERS if name == "conv3" else ())
        if command == "step":
            contenders += _spread_over_cores(config.batch)
        shape, spec = describe_network(config, name, config.timesteps)
        spec["command"] = command
        yield from _compare(config, peers, f"{title}, {shape}", contenders, spec)


def _spread_over_cores(batch: int) -> tuple[Contender, ...]:
    """Return snnjax with a device a core, or fewer that can share the batch."""
    devices = math.gcd(batch, os.cpu_count() or 1)
    spec = SNNJAX[0].spec | {"devices": devices}
    one = Contender("snnjax, a device a core", "on_snnjax", spec)
    return (one,) * (devices > 1)


def _compare(
    config: BenchmarkConfig,
    peers: Peers,
    title: str,
    contenders: tuple[Contender, ...],
    spec: Spec,
    measures: tuple[str, ...] = ("seconds",),
) -> Comparisons:
    """Compare the contenders whose library is installed."""
    installed = {"on_snnjax", *(f"on_{peer}" for peer in peers)}
    some = [_make_worker(config, c, spec) for c in contenders if c.worker in installed]

    def run_warm(worker: Worker) -> Measures:
        # The first run finds cold caches, and threads of the others that still spin.
        worker.run(spec["command"])
        return worker.run(spec["command"])

    with close_at_end(some) as workers:
        work: Work = {w.name: functools.partial(run_warm, w) for w in workers}
        yield Comparison(title, work, measures)


def _make_worker(config: BenchmarkConfig, contender: Contender, spec: Spec) -> Worker:
    python = config.pythons().get(contender.worker.removeprefix("on_"), sys.executable)
    module = f"experiments.benchmark.workers.{contender.worker}"
    return Worker(contender.name, (python, "-m", module), spec | contender.spec)


def describe_network(
    config: BenchmarkConfig, name: str, timesteps: int
) -> tuple[str, Spec]:
    """Return the network's title, and the specification of its training step."""
    spec = {"timesteps": timesteps, "batch": config.batch, "command": "step"}
    if name == "conv3":
        spec |= {"widths": (32, 64, 64), "strides": (1, 2, 2)}
    else:
        depth, width = name.removeprefix("sew_resnet").split("-w")
        spec |= {"blocks": STAGES[depth], "width": int(width)}
    return f"{name}, T = {timesteps}, batch {config.batch}", spec
