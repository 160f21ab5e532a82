"""Compare the exact W1 of two layers with SciPy's and POT's, in this process."""

from collections.abc import Callable, Container
from typing import Any

import jax
import numpy as np

from experiments.benchmark.config import BenchmarkConfig
from experiments.benchmark.timing import Comparison, Comparisons, make_timer
from snnjax import emd


def compare_distances(config: BenchmarkConfig, peers: Container[str]) -> Comparisons:
    """Yield exact W1 from counts, from samples, weighted, and with gradients."""
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

    by_scipy, weighted_by_scipy, by_pot = {}, {}, {}
    if "scipy" in peers:
        from scipy.stats import wasserstein_distance

        by_scipy["scipy"] = lambda: wasserstein_distance(*rates)
        weighted_by_scipy["scipy"] = lambda: wasserstein_distance(*rates, *weights)
    if "pot" in peers:
        import ot  # pyrefly: ignore[missing-import]

        by_pot["POT wasserstein_1d"] = lambda: ot.wasserstein_1d(*rates, p=1)
        by_pot["POT emd2_1d"] = lambda: ot.emd2_1d(*rates, metric="cityblock")

    def from_counts(x, y):
        return lambda: emd.emd_from_counts(x, y, k)

    def run_to_end(function, *arrays):
        return lambda: jax.block_until_ready(function(*arrays))

    yield _comparison(
        f"counts of {n:,} neurons at {k:,}",
        {"emd_from_counts": from_counts(x, y)} | by_scipy | by_pot,
    )
    yield _comparison(
        "ten times the neurons",
        {
            f"emd_from_counts, {10 * n:,}": from_counts(many_x, many_y),
            f"emd_from_counts, {n:,}": from_counts(x, y),
        },
    )
    yield _comparison(
        f"{n:,} samples",
        {
            "wasserstein_1d": lambda: emd.wasserstein_1d(*rates),
            "wasserstein_1d in jit": run_to_end(inside, *on_device[:2]),
            "its value_and_grad in jit": run_to_end(gradient, *on_device[:2]),
        }
        | by_scipy
        | by_pot,
    )
    yield _comparison(
        f"{n:,} weighted samples",
        {
            "wasserstein_1d": lambda: emd.wasserstein_1d(*rates, *weights),
            "wasserstein_1d in jit": run_to_end(inside, *on_device),
        }
        | weighted_by_scipy,
    )


def _comparison(title: str, functions: dict[str, Callable[[], Any]]) -> Comparison:
    work = {row: make_timer(seconds=f) for row, f in functions.items()}
    return Comparison(title, work)
