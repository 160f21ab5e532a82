"""A training step's parts, beside the time that this machine's limits allow.

The limits are measured here: a product of large matrices, and a pass over memory. A
part's floor is the larger of its operations at the one and its bytes at the other.
"""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.benchmark.config import BenchmarkConfig
from experiments.benchmark.networks import describe_network
from experiments.benchmark.timing import Comparison, Comparisons, Measures
from experiments.benchmark.workers.on_snnjax import (
    Neurons,
    make_network,
    make_network_commands,
)
from snnjax.conv import conv2d

# Passes over a layer's currents: its statistics and its spikes forward, gradients back.
_PASSES = 9
_FLOAT = 4


def compare_with_roofline(config: BenchmarkConfig, peers: object) -> Comparisons:
    """Yield the parts of each network's training step, with their floors."""
    del peers
    product, bandwidth = measure_limits()
    limits = f"{product / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s"
    for name in config.networks:
        if name == "conv3":  # it has no table of synapses
            continue
        title, spec = describe_network(config, name, config.timesteps)
        work = {}
        for part, calls in _make_parts(spec | {"remat": "none"}).items():
            operations = sum(operations for _, operations, _ in calls)
            size = sum(size for _, _, size in calls)
            floor = max(operations / product, size / bandwidth)
            row = f"{part}: {operations / 1e9:.1f} GFLOP, {size / 1e6:.0f} MB"
            work[row] = _time_all([call[0] for call in calls], floor)
        title = f"parts of a training step, {title}; {limits}"
        yield Comparison(title, work, ("seconds", "floor seconds"))


def measure_limits() -> tuple[float, float]:
    """Return operations a second of a product, and bytes a second of a pass."""
    n, size = 2048, 2**26
    a, x = jnp.ones((n, n), jnp.float32), jnp.ones(size, jnp.float32)
    product, pass_over = jax.jit(lambda a: a @ a), jax.jit(lambda x: x + 1)
    return (
        2 * n**3 / _best_of(lambda: product(a)),
        2 * x.nbytes / _best_of(lambda: pass_over(x)),
    )


def _best_of(call: Callable[[], Any], runs: int = 7) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return min(times)


def _time_all(calls: list[Callable], floor: float) -> Callable[[], Measures]:
    def run() -> Measures:
        start = time.perf_counter()
        for call in calls:
            jax.block_until_ready(call())
        return {"seconds": time.perf_counter() - start, "floor seconds": floor}

    return run


def _make_parts(spec: dict[str, Any]) -> dict[str, list[Any]]:
    """Return for each part its functions, each with its operations and bytes."""
    rng = np.random.default_rng(0)
    images = spec["batch"] * spec["timesteps"]
    names = "convolutions", "their gradients", "BatchNorm and neurons"
    parts: dict[str, list] = {name: [] for name in names}
    network: Any = make_network(spec)
    for row in network.synapses((32, 32)):
        if not row.kernel_size:
            continue
        number = spec["batch"] if row.reads_input else images
        shapes = (
            (number, *row.in_shape),
            (*row.kernel_size, row.in_shape[2], row.out_shape[2]),
        )
        x, w = (jnp.asarray(rng.integers(0, 2, s), jnp.float32) for s in shapes)
        dy = jnp.asarray(rng.normal(size=(number, *row.out_shape)), jnp.float32)

        def convolve(x, w, row=row):
            return conv2d(x, w, strides=row.strides, padding=row.padding)

        # Both in one program: an input's gradient waits for its kernel's.
        def differentiate(x, w, dy, row=row, convolve=convolve):
            gradients = jax.vjp(convolve, x, w)[1](dy)
            return gradients[1:] if row.reads_input else gradients

        operations = 2 * dy.size * math.prod(row.kernel_size) * row.in_shape[2]
        size = _FLOAT * (x.size + dy.size)
        call = functools.partial(jax.jit(convolve), x, w)
        parts["convolutions"].append((call, operations, size))
        call = functools.partial(jax.jit(differentiate), x, w, dy)
        times = 1 if row.reads_input else 2
        parts["their gradients"].append((call, times * operations, times * size))
        shape = (spec["timesteps"], spec["batch"], *row.out_shape)
        parts["BatchNorm and neurons"].append(
            (_make_neurons(shape), 0, _PASSES * _FLOAT * dy.size)
        )
    step = make_network_commands(spec)["step"]
    everything = [call[1:] for calls in parts.values() for call in calls]
    total = [sum(each) for each in zip(*everything, strict=True)]
    return {"the step": [(step, *total)]} | parts


def _make_neurons(shape: tuple[int, ...]) -> Callable[[], Any]:
    """Return a call of BatchNorm and neurons, forward and backward."""
    x, dy = (jnp.full(shape, value, jnp.float32) for value in (0.3, 1.0))
    graphdef, state = nnx.split(Neurons(shape[-1], norm=True))

    @jax.jit
    def run(state, x, dy):
        layer = lambda x: nnx.merge(graphdef, state, copy=True)(x)  # noqa: E731
        y, backward = jax.vjp(layer, x)
        return y, backward(dy)

    return lambda: run(state, x, dy)
