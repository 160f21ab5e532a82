"""Each loss on rates whose truth is known: bias, direction, noise, time, memory.

The reference's neurons have rates from a beta distribution, as those of trained
networks: most nearly silent. In the drifted network weak neurons fire half as often and
strong ones 1.3 times, so that the true gradient of W1 by the rates has both signs. A
loss sees rates of a batch, T x 32 images, or "tied" ones of a single image, with five
values at T = 4; its gradient is judged by the rates behind them.
"""

import statistics
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from experiments.emd_gradients.losses import LOSSES, Loss
from snnjax import emd
from snnjax.runs import Row

NEURONS, DRAWS = 1000, 20
SIZES = (1_000, 10_000, 100_000, 1_000_000)
OBSERVATIONS = {"batch": 128, "tied": 4}


def drift(rates: np.ndarray) -> np.ndarray:
    """The drifted network's rates; in the same order."""
    return np.where(rates < 0.1, 0.5 * rates, np.minimum(1.3 * rates, 1))


def estimates(loss: Loss) -> Row:
    """Of ``loss``, at 1,000 neurons: means over 20 networks, each with 20 batches."""
    both = jax.jit(jax.value_and_grad(loss.of))
    row: Row = {"part": "estimator", "loss": loss.name}
    for kind, k in OBSERVATIONS.items():
        found = [_network(loss, both, k, seed) for seed in range(DRAWS)]
        row[kind] = {key: float(np.mean([f[key] for f in found])) for key in found[0]}
    return row


def _network(loss: Loss, both, k: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    rates = rng.beta(0.3, 3, NEURONS)
    moved = drift(rates)
    target = loss.target(jnp.asarray(_seen(rng, rates, k)))
    batches = [both(jnp.asarray(x), target) for x in _seen(rng, moved, k)]
    value = np.mean([float(value) for value, _ in batches]) ** (1 / loss.power)
    # What batches see on average of either, exactly compared.
    means = [np.sort(_seen(rng, r, k), axis=1).mean(0) for r in (rates, moved)]
    slopes = np.stack([np.asarray(slope, np.float64) for _, slope in batches])
    mean = slopes.mean(0)
    spread = np.sqrt(np.mean(np.sum((slopes - mean) ** 2, axis=1)))
    truth = np.sign(moved - rates) / NEURONS
    best = _gain(moved, truth, rates)
    return {
        "value_over_w1": float(value) / float(emd.wasserstein_1d(*means)),
        "cosine": float(np.mean([_cosine(slope, truth) for slope in slopes])),
        "descent": float(np.mean([_gain(moved, s, rates) for s in slopes])) / best,
        "gradient_noise": float(spread / np.linalg.norm(mean)),
    }


def _seen(rng, rates: np.ndarray, k: int) -> np.ndarray:
    """Rates that 20 batches see, ``[20, n]``."""
    return (rng.binomial(k, rates, (DRAWS, rates.size)) / k).astype(np.float32)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms else 0.0


def _gain(x: np.ndarray, slope: np.ndarray, y: np.ndarray) -> float:
    """By how much a short step against the slope lowers exact W1."""
    length = np.linalg.norm(slope)
    if length == 0:
        return 0.0
    step = 0.01 * slope / length  # each neuron by some 0.0003
    before, after = (float(emd.wasserstein_1d(z, y)) for z in (x, x - step))
    return before - after


def costs(loss: Loss, n: int, runs: int = 5) -> Row:
    """Milliseconds and bytes of a value with its gradient, at n neurons."""
    rng = np.random.default_rng(0)
    rates = rng.beta(0.3, 3, n)
    seen = (rng.binomial(128, r) / 128 for r in (rates, 0.8 * rates))
    y, x = (jnp.asarray(r, jnp.float32) for r in seen)
    target = loss.target(y[None])
    compiled = jax.jit(jax.value_and_grad(loss.of)).lower(x, target).compile()
    memory = compiled.memory_analysis()
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        jax.block_until_ready(compiled(x, target))
        seconds.append(time.perf_counter() - start)
    return {
        "part": "cost",
        "loss": loss.name,
        "neurons": n,
        "ms": 1e3 * statistics.median(seconds[1:]),
        "bytes": None
        if memory is None
        else memory.temp_size_in_bytes + memory.output_size_in_bytes,
    }


def parts(sizes: tuple[int, ...] = SIZES) -> Iterator[tuple[Loss, int | None]]:
    """All that is to be measured: a loss, and a size for its costs."""
    for loss in LOSSES:
        yield loss, None
        for n in sizes:
            if n <= loss.most:
                yield loss, n
