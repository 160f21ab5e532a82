"""Measure each loss on known rates: bias, direction, noise, time, memory.

Rates of the reference are beta distributed, like those of trained networks: most
neurons are nearly silent. In the drifted network weak neurons fire half as often and
strong ones 1.3 times, so that the true gradient of W1 by the rates has both signs. A
loss receives rates of a batch, T x 32 images, or "tied" ones of a single image, with
five values at T = 4; its gradient is compared with that of the underlying rates.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.emd_gradients.losses import Loss
from snnjax import emd
from snnjax.runs import Row

NEURONS, DRAWS = 1000, 20
SIZES = (1_000, 10_000, 100_000, 1_000_000)
OBSERVATIONS = {"batch": 128, "tied": 4}


def drift(rates: np.ndarray) -> np.ndarray:
    """Return the drifted network's rates, in the same order."""
    return np.where(rates < 0.1, 0.5 * rates, np.minimum(1.3 * rates, 1))


def measure_gradients(loss: Loss) -> Row:
    """Return the means over 20 networks of 1,000 neurons, each with 20 batches."""
    both = jax.jit(jax.value_and_grad(loss.of))
    row: Row = {}
    for kind, k in OBSERVATIONS.items():
        found = [_measure_network(loss, both, k, seed) for seed in range(DRAWS)]
        row[kind] = {key: float(np.mean([f[key] for f in found])) for key in found[0]}
    return row


def _measure_network(loss: Loss, both, k: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    rates = rng.beta(0.3, 3, NEURONS)
    moved = drift(rates)
    target = loss.target(jnp.asarray(_sample_rates(rng, rates, k)))
    batches = [both(jnp.asarray(x), target) for x in _sample_rates(rng, moved, k)]
    value = np.mean([float(value) for value, _ in batches]) ** (1 / loss.power)
    # The loss estimates the W1 of the mean sorted batches.
    means = [np.sort(_sample_rates(rng, r, k), axis=1).mean(0) for r in (rates, moved)]
    slopes = np.stack([np.asarray(slope, np.float64) for _, slope in batches])
    mean = slopes.mean(0)
    spread = np.sqrt(np.mean(np.sum((slopes - mean) ** 2, axis=1)))
    truth = np.sign(moved - rates) / NEURONS
    best = _descend(moved, truth, rates)
    return {
        "value_over_w1": float(value) / float(emd.wasserstein_1d(*means)),
        "cosine": float(np.mean([_cosine(slope, truth) for slope in slopes])),
        "descent": float(np.mean([_descend(moved, s, rates) for s in slopes])) / best,
        "gradient_noise": float(spread / np.linalg.norm(mean)),
    }


def _sample_rates(rng, rates: np.ndarray, k: int) -> np.ndarray:
    """Return the observed rates of 20 batches, ``[20, n]``."""
    return (rng.binomial(k, rates, (DRAWS, rates.size)) / k).astype(np.float32)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms else 0.0


def _descend(x: np.ndarray, slope: np.ndarray, y: np.ndarray) -> float:
    """Return by how much a short step against the slope lowers exact W1."""
    length = np.linalg.norm(slope)
    if length == 0:
        return 0.0
    step = 0.01 * slope / length  # each neuron by some 0.0003
    before, after = (float(emd.wasserstein_1d(z, y)) for z in (x, x - step))
    return before - after


def measure_cost(loss: Loss, n: int, runs: int = 5) -> Row:
    """Return milliseconds and bytes of a value with its gradient, at n neurons."""
    rng = np.random.default_rng(0)
    rates = rng.beta(0.3, 3, n)
    observed = (rng.binomial(128, r) / 128 for r in (rates, 0.8 * rates))
    y, x = (jnp.asarray(r, jnp.float32) for r in observed)
    target = loss.target(y[None])
    compiled = jax.jit(jax.value_and_grad(loss.of)).lower(x, target).compile()
    memory = compiled.memory_analysis()
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        jax.block_until_ready(compiled(x, target))
        seconds.append(time.perf_counter() - start)
    used = memory and memory.temp_size_in_bytes + memory.output_size_in_bytes
    return {"ms": 1e3 * statistics.median(seconds[1:]), "bytes": used}
