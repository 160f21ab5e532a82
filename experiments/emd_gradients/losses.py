"""The forms of EMD that are compared, each as a loss between rates and a target."""

import dataclasses
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
# Sinkhorn's algorithm is quadratic: neurons of a layer that a training step sees.
DRAWN = 128
SQUARED = (100.0, 1000.0, 10_000.0, 100_000.0)


@dataclasses.dataclass(frozen=True)
class Loss:
    """A distance of rates to a fixed target.

    Attributes:
        name: in tables.
        of: ``of(rates [n], target)``, a scalar.
        target: from the reference's rates of several batches ``[batches, n]``.
        power: of a rate that its value is.
        most: the largest n that it is timed at.
        drawn: how many neurons of a layer it takes in training; None is all.
        strengths: that are tried in training. A squared distance is smaller and needs
            more.
    """

    name: str
    of: Callable[[Array, Any], ArrayLike]
    target: Callable[[Array], Array]
    power: int = 1
    most: int = 1_000_000
    drawn: int | None = None
    strengths: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)


def quantiles(batches: Array) -> Array:
    """The mean of sorted rates: a batch of the reference itself is as far as noise."""
    return jnp.mean(jnp.sort(batches, axis=1), axis=0)


def _soft(temperature: float) -> Loss:
    return Loss(
        f"soft CDF {temperature:g}",
        lambda rates, target: emd.soft_cdf_distance(
            rates, target, temperature=temperature
        ),
        lambda batches: emd.soft_cdf(batches, points=POINTS, temperature=temperature),
    )


def _sinkhorn(epsilon: float) -> Loss:
    return Loss(
        f"Sinkhorn {epsilon:g}",
        lambda rates, target: emd.sinkhorn_divergence(rates, target, epsilon=epsilon),
        quantiles,
        most=1000,
        drawn=DRAWN,
    )


LOSSES = (
    Loss("sorted W1", emd.wasserstein_1d, quantiles),
    Loss(
        "sorted W2²",
        lambda r, t: emd.wasserstein_p_1d(r, t, p=2),
        quantiles,
        2,
        strengths=SQUARED,
    ),
    *map(_soft, TEMPERATURES),
    *map(_sinkhorn, EPSILONS),
)
# What Sinkhorn's handicap costs: a loss of all neurons, seeing as few.
FEW = Loss(f"sorted W1, {DRAWN} neurons", emd.wasserstein_1d, quantiles, drawn=DRAWN)
# No EMD: it knows which neuron is which. What an EMD could do if that mattered.
PAIRED = Loss(
    "paired squares",
    lambda r, t: jnp.mean((r - t) ** 2),
    lambda b: jnp.mean(b, 0),
    strengths=SQUARED,
)


def penalty(loss: Loss) -> Callable[[Mapping[str, Array], Any], Array]:
    """The loss as `snnjax.train.fit` takes it: mean over layers, times a strength."""

    def of_layers(rates: Mapping[str, Array], target: Any) -> Array:
        strength, targets = target
        parts = [
            loss.of(_some(loss, jnp.ravel(rates[name])), targets[name])
            for name in targets
        ]
        return strength * jnp.mean(jnp.asarray(parts))

    return of_layers


def targets(loss: Loss, batches: Mapping[str, Array]) -> dict[str, Array]:
    """Each layer's target, from the reference's rates ``[batches, neurons...]``."""
    found = {}
    for name, rates in batches.items():
        whole = loss.target(rates.reshape(len(rates), -1))
        if loss.drawn is not None and whole.size > loss.drawn:
            # As many quantiles, evenly spaced, as neurons are drawn.
            at = (np.arange(loss.drawn) + 0.5) * whole.size / loss.drawn
            whole = whole[at.astype(int)]
        found[name] = whole
    return found


def _some(loss: Loss, rates: Array) -> Array:
    if loss.drawn is None or rates.size <= loss.drawn:
        return rates
    # Always the same, of any channel.
    return rates[np.random.default_rng(0).permutation(rates.size)[: loss.drawn]]
