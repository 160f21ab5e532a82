"""Forms of differentiable EMD, each as a loss between rates and a target."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import emd

POINTS = 64  # of the soft distribution functions
TEMPERATURES = (0.01, 0.03, 0.1)
EPSILONS = (0.1, 0.03)
# Sinkhorn's algorithm is quadratic: a training step takes so many neurons of a layer.
DRAWN = 128
SQUARED = (100.0, 1000.0, 10_000.0, 100_000.0)


@dataclasses.dataclass(frozen=True)
class Loss:
    """A distance between rates and a fixed target.

    Attributes:
        name: in tables.
        of: ``of(rates [n], target)``, a scalar.
        target: from the reference's rates of several batches ``[batches, n]``.
        power: the power of a rate that its value has.
        most: the largest n that it is timed at.
        drawn: neurons of a layer that it takes in training; None is all.
        strengths: those tried in training. A squared distance is smaller and needs
            larger ones.
    """

    name: str
    of: Callable[[Array, Any], ArrayLike]
    target: Callable[[Array], Array]
    power: int = 1
    most: int = 1_000_000
    drawn: int | None = None
    strengths: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)


def mean_quantiles(batches: Array) -> Array:
    """Return the mean of sorted rates: the reference's own batches differ by noise."""
    return jnp.mean(jnp.sort(batches, axis=1), axis=0)


def _soft(temperature: float) -> Loss:
    return Loss(
        f"soft CDF {temperature:g}",
        functools.partial(emd.soft_cdf_distance, temperature=temperature),
        functools.partial(emd.soft_cdf, points=POINTS, temperature=temperature),
    )


def _sinkhorn(epsilon: float) -> Loss:
    return Loss(
        f"Sinkhorn {epsilon:g}",
        functools.partial(emd.sinkhorn_divergence, epsilon=epsilon),
        mean_quantiles,
        most=1000,
        drawn=DRAWN,
    )


LOSSES = (
    Loss("sorted W1", emd.wasserstein_1d, mean_quantiles),
    Loss(
        "sorted W2²",
        functools.partial(emd.wasserstein_p_1d, p=2),
        mean_quantiles,
        2,
        strengths=SQUARED,
    ),
    *map(_soft, TEMPERATURES),
    *map(_sinkhorn, EPSILONS),
)
# The cost of Sinkhorn's handicap: another loss with as few neurons.
FEW = Loss(
    f"sorted W1, {DRAWN} neurons", emd.wasserstein_1d, mean_quantiles, drawn=DRAWN
)
# Not an EMD: it pairs neurons, which bounds what an EMD could gain by doing so.
PAIRED = Loss(
    "paired squares",
    lambda r, t: jnp.mean((r - t) ** 2),
    lambda b: jnp.mean(b, 0),
    strengths=SQUARED,
)


def make_penalty(loss: Loss) -> Callable[[Mapping[str, Array], Any], Array]:
    """Return the loss for `snnjax.train.fit`: mean over layers, times a strength."""

    def penalty(rates: Mapping[str, Array], target: Any) -> Array:
        strength, targets = target
        parts = [
            loss.of(_draw_neurons(loss, jnp.ravel(rates[name])), targets[name])
            for name in targets
        ]
        return strength * jnp.mean(jnp.asarray(parts))

    return penalty


def compute_targets(loss: Loss, batches: Mapping[str, Array]) -> dict[str, Array]:
    """Return each layer's target, from the reference's ``[batches, neurons...]``."""
    found = {}
    for name, rates in batches.items():
        whole = loss.target(rates.reshape(len(rates), -1))
        if loss.drawn is not None and whole.size > loss.drawn:
            # As many mean_quantiles, evenly spaced, as neurons are drawn.
            at = (np.arange(loss.drawn) + 0.5) * whole.size / loss.drawn
            whole = whole[at.astype(int)]
        found[name] = whole
    return found


def _draw_neurons(loss: Loss, rates: Array) -> Array:
    if loss.drawn is None or rates.size <= loss.drawn:
        return rates
    # The same neurons in every step, from all channels.
    return rates[np.random.default_rng(0).permutation(rates.size)[: loss.drawn]]
