"""Differences between the firing of two networks, per layer and over all neurons."""

import math
from typing import NamedTuple

import numpy as np

from snnjax import emd
from snnjax.firing.counts import FiringCounts, check_comparable

DEAD = 0.05  # below this rate a neuron is dead, as in the paper
SATURATED = 0.95  # above this one, saturated


class RateSummary(NamedTuple):
    """Summary over all neurons of all layers; each neuron counts once."""

    mean_rate: float
    dead_fraction: float
    saturated_fraction: float


def summary(counts: FiringCounts) -> RateSummary:
    """Compute the mean rate and the fractions of dead and saturated neurons.

    A neuron is dead below a rate of 0.05 and saturated above 0.95.

    Raises:
        ValueError: no layer, a layer without neurons, counts outside 0..observations.
    """
    check_comparable(counts)
    rates = np.concatenate([np.ravel(r) for r in counts.rates().values()])
    return RateSummary(
        float(rates.mean()),
        float(np.mean(rates < DEAD)),
        float(np.mean(rates > SATURATED)),
    )


def paired_shift(reference: FiringCounts, other: FiringCounts) -> dict[str, float]:
    r"""Mean shift of each neuron's own rate, :math:`\frac1n \sum_i |r_i - r'_i|`.

    It is exact, and never below W1, which lets neurons swap their rates.

    Raises:
        ValueError: different layers, or layers of different shapes.
    """
    return _exact_mean(reference, other, np.abs)


def mean_shift(reference: FiringCounts, other: FiringCounts) -> dict[str, float]:
    r"""Change of the mean rate, signed; its absolute value is never above W1.

    Raises:
        ValueError: different layers, or layers of different shapes.
    """
    return _exact_mean(reference, other, lambda difference: difference)


def kolmogorov_smirnov(
    reference: FiringCounts, other: FiringCounts
) -> dict[str, float]:
    """Largest difference between the distribution functions of the rates, by layer.

    See `emd.ks_from_counts`: it counts the neurons that moved, however far.

    Raises:
        ValueError: different layers, or layers of different shapes.
    """
    check_comparable(reference, other)
    observations = (reference.observations, other.observations)
    return {
        name: float(emd.ks_from_counts(x, other.spikes[name], observations))
        for name, x in reference.spikes.items()
    }


def _exact_mean(reference, other, transform) -> dict[str, float]:
    check_comparable(reference, other)
    unit = math.lcm(reference.observations, other.observations)
    shifts = {}
    for name, spikes in reference.spikes.items():
        # Beyond 64 bits, use Python's integers, as the EMD does.
        kind = np.int64 if np.size(spikes) * unit < 2**62 else object
        x, y = (
            np.asarray(c.spikes[name]).astype(kind) * (unit // c.observations)
            for c in (reference, other)
        )
        shifts[name] = int(np.sum(transform(y - x))) / (x.size * unit)
    return shifts


class FiringReport(NamedTuple):
    """Result of `report`: ``other`` compared with ``reference``.

    Attributes:
        emd: ``{layer: W1}``.
        emd_mean: mean of ``emd`` over layers.
        paired_shift: ``{layer: mean |r - r'|}``, at least W1 (by ``"ott"``, up to that
            method's rounding; so mean_shift too).
        mean_shift: ``{layer: mean r' - mean r}``, at most W1 in size.
        mean_rate: of ``other``, over all neurons.
        dead_fraction: of ``other``: rate below 0.05.
        saturated_fraction: of ``other``: rate above 0.95.
        ks: ``{layer: Kolmogorov-Smirnov statistic}``.
    """

    emd: dict[str, float]
    emd_mean: float
    paired_shift: dict[str, float]
    mean_shift: dict[str, float]
    mean_rate: float
    dead_fraction: float
    saturated_fraction: float
    ks: dict[str, float]


def report(
    reference: FiringCounts, other: FiringCounts, *, method: str = "exact"
) -> FiringReport:
    """Compare the firing of two networks, layer by layer.

    Args:
        reference: counts of the full-precision network.
        other: counts of the quantized one, over the same layers.
        method: ``"exact"`` (`emd.emd_from_counts`) or ``"ott"``
            (`emd.ott_wasserstein_1d`, float32).

    Raises:
        ValueError: different layers or neurons, unknown method.
    """
    check_comparable(reference, other)
    if method == "exact":
        observations = (reference.observations, other.observations)
        distances = emd.layer_emd(reference.spikes, other.spikes, observations)
    elif method == "ott":
        x, y = reference.rates(), other.rates()
        distances = {
            k: emd.ott_wasserstein_1d(np.float32(x[k]), np.float32(y[k])) for k in x
        }
    else:
        raise ValueError(f'method must be "exact" or "ott", got {method!r}')
    distances = {name: float(w1) for name, w1 in distances.items()}
    return FiringReport(
        distances,
        float(np.mean(list(distances.values()))),
        paired_shift(reference, other),
        mean_shift(reference, other),
        *summary(other),
        kolmogorov_smirnov(reference, other),
    )
