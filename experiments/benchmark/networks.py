"""Networks and layers of neurons, each contender in a process of its own."""

import dataclasses
import functools
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from experiments.benchmark.config import BenchmarkConfig
from experiments.benchmark.contender import Worker, closing
from experiments.benchmark.timing import Comparison, Comparisons, Measures, Work

Peers = Mapping[str, Any]  # by name, those that are installed
Spec = dict[str, Any]

STAGES = {"8": (1, 1, 1), "18": (2, 2, 2, 2)}
CONV3 = {"widths": (32, 64, 64), "strides": (1, 2, 2)}


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to do the work: a worker, and what its specification has besides."""

    name: str
    worker: str
    spec: Spec = dataclasses.field(default_factory=dict)


SNNJAX = (Way("snnjax", "on_snnjax", {"remat": "none"}),)
REMAT = tuple(
    Way(f"snnjax, remat {remat}", "on_snnjax", {"remat": remat})
    for remat in ("none", "block", "full")
)
SPIKINGJELLY = (
    Way("SpikingJelly", "on_spikingjelly", {"channels_last": False}),
    Way("SpikingJelly, channels-last", "on_spikingjelly", {"channels_last": True}),
)
OTHERS = (Way("snnTorch", "on_snntorch"), Way("spyx", "on_spyx"))


def network_spec(name: str) -> Spec:
    """Return what a worker needs to make the network.

    >>> network_spec("sew_resnet8-w16")
    {'blocks': (1, 1, 1), 'width': 16}
    """
    if name == "conv3":
        return dict(CONV3)
    depth, width = name.removeprefix("sew_resnet").split("-w")
    return {"blocks": STAGES[depth], "width": int(width)}


def steps(config: BenchmarkConfig, peers: Peers) -> Comparisons:
    """One training step."""
    return _networks(config, peers, "step", "training step")


def evals(config: BenchmarkConfig, peers: Peers) -> Comparisons:
    """One forward pass that nothing is trained by."""
    return _networks(config, peers, "eval", "prediction")


def memory(config: BenchmarkConfig, peers: Peers) -> Comparisons:
    """Time and peak memory of a training step, with what of it is computed twice."""
    for name in config.networks:
        if name == "conv3":  # it has no blocks to compute twice
            continue
        for timesteps in config.memory_timesteps:
            spec = _spec(config, network_spec(name)) | {"timesteps": timesteps}
            title = f"training step and its memory, {_what(name, spec)}"
            measures = ("seconds", "bytes")
            ways = REMAT + SPIKINGJELLY
            yield from _compare(config, peers, title, ways, spec, "step", measures)


def neurons(config: BenchmarkConfig, peers: Peers) -> Comparisons:
    """A layer of LIF neurons, alone and behind a BatchNorm."""
    for name, norm in (("LIF", False), ("BatchNorm and LIF", True)):
        spec = _spec(config, {"norm": norm, "channels": 64})
        shape = f"{config.timesteps}x{config.batch}x32x32x64"
        title = f"{name} forward and backward, {shape}"
        yield from _compare(config, peers, title, SNNJAX + SPIKINGJELLY, spec)


def compilations(config: BenchmarkConfig, peers: Peers) -> Comparisons:
    """Compiling the training step: without a compilation cache, and with a full one."""
    del peers
    for name in config.networks:
        spec = _spec(config, network_spec(name))
        with tempfile.TemporaryDirectory() as kept:
            # The turn that does not count fills the cache.
            work = {
                "cold": functools.partial(_compile_once, config, spec, None),
                "warm": functools.partial(_compile_once, config, spec, kept),
            }
            title = f"compiling the training step, {_what(name, spec)}"
            yield Comparison(title, work, most=3)


def _compile_once(config: BenchmarkConfig, spec: Spec, cache: str | None) -> Measures:
    """In a fresh process; without a folder, in one that is empty."""
    with tempfile.TemporaryDirectory() as empty:
        spec = spec | {"cache": cache or empty}
        with closing([_contender(config, SNNJAX[0], spec)]) as (contender,):
            return contender.run("compile")


def _networks(config, peers, command: str, title: str) -> Comparisons:
    for name in config.networks:
        ways = SNNJAX + SPIKINGJELLY + (OTHERS if name == "conv3" else ())
        spec = _spec(config, network_spec(name))
        yield from _compare(
            config, peers, f"{title}, {_what(name, spec)}", ways, spec, command
        )


def _compare(
    config: BenchmarkConfig,
    peers: Peers,
    title: str,
    ways: tuple[Way, ...],
    spec: Spec,
    command: str = "step",
    measures: tuple[str, ...] = ("seconds",),
) -> Comparisons:
    """Compare the ways whose library is installed."""
    spec = spec | {"command": command}
    here = [way for way in ways if way.worker in _workers(peers)]
    with closing([_contender(config, way, spec) for way in here]) as contenders:
        work: Work = {c.name: functools.partial(_warm, c, command) for c in contenders}
        yield Comparison(title, work, measures)


def _warm(contender: Worker, command: str) -> Measures:
    """The second of two: the first finds cold caches, and others' threads spinning."""
    contender.run(command)
    return contender.run(command)


def _workers(peers: Peers) -> set[str]:
    return {"on_snnjax"} | {f"on_{peer}" for peer in peers}


def _contender(config: BenchmarkConfig, way: Way, spec: Spec) -> Worker:
    python = config.pythons().get(way.worker.removeprefix("on_"), sys.executable)
    module = f"experiments.benchmark.workers.{way.worker}"
    return Worker(way.name, (python, "-m", module), spec | way.spec)


def _spec(config: BenchmarkConfig, spec: Spec) -> Spec:
    return {"timesteps": config.timesteps, "batch": config.batch} | spec


def _what(name: str, spec: Spec) -> str:
    return f"{name}, T = {spec['timesteps']}, batch {spec['batch']}"
