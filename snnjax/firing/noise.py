"""Noise floor: the EMD that the choice of images alone causes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from snnjax import _checks, emd
from snnjax.firing.counts import FiringCounts, check_comparable


class NoiseFloor(NamedTuple):
    """W1 between a network and itself on other images.

    Attributes:
        emd: ``{layer: mean W1 over the replicates}``.
        critical_value: ``{layer: W1}`` that a fraction ``alpha`` of the replicates
            exceeds. A smaller EMD is no significant drift on these images.
        emd_mean: mean over the replicates of the mean over layers.
        critical_mean: critical value of the mean over layers.
    """

    emd: dict[str, float]
    critical_value: dict[str, float]
    emd_mean: float
    critical_mean: float


def noise_floor(
    counts_by_batch: Sequence[FiringCounts],
    *,
    method: str = "halves",
    other_observations: int | None = None,
    alpha: float | int = 0.05,
    replicates: int = 200,
    seed: int = 0,
) -> NoiseFloor:
    """Estimate the W1 between a network and itself on other images.

    Each replicate draws two sets of images and takes the W1 between them. Images are
    drawn by the batches in which they were counted, so give many batches, of equal size
    and mixed contents. With 32 batches the rate of false alarms is near ``alpha``, with
    8 it is up to twice that.

    - ``"halves"`` splits the images at random into two halves. This is the noise
      between two networks that were evaluated on two such halves.
    - ``"bootstrap"`` draws two sets with replacement, each of all images less one batch
      (the correction of McCarthy and Snowden, 1985, for resampling a sample). This is
      the noise between two evaluations on this many images. It is about 1/sqrt(2) of
      the noise of halves, and above that of two networks on the same images, which
      share part of their sampling noise.

    The noise of an EMD is that of both sides, and mostly the smaller one's. Where the
    network that is compared was evaluated on fewer or more images than this one, give
    its ``other_observations``: bootstrap then draws one set as large as this network's
    and one as large as that (in whole batches, rounded down). Without it, a network is
    taken to have drifted from itself on fewer images. There the critical value is
    raised for the number of batches, so that false alarms stay below ``alpha``; with 32
    batches fewer than ``alpha`` of the replicates exceed it.

    Args:
        counts_by_batch: one network's counts of disjoint sets of images.
        method: ``"halves"`` or ``"bootstrap"``.
        other_observations: T x images of the other network, for ``"bootstrap"``; as
            many as this one's when None. At least a batch.
        alpha: significance level, the rate of false alarms, within (0, 1).
        replicates: number of draws, at least 1 / alpha.
        seed: seed of the draws; the same seed gives the same floor.

    Returns:
        A `NoiseFloor`.

    Raises:
        ValueError: fewer than two sets of images, an unknown method, alpha or number of
            replicates out of range, sets of different layers, no counts, other
            observations with ``"halves"`` or of less than a batch.
    """
    batches = list(counts_by_batch)
    if len(batches) < 2:
        raise ValueError(
            f"a split needs at least two sets of images, got {len(batches)}"
        )
    _checks.require_one_of("method", method, ("halves", "bootstrap"))
    known = isinstance(alpha, (int, float, np.number)) and _checks.is_whole(replicates)
    if not known or not 0 < alpha < 1 or replicates < 1 / alpha:
        raise ValueError(
            "alpha must be within (0, 1) and replicates a whole number >= 1 / alpha, "
            f"got {alpha} and {replicates}"
        )
    check_comparable(*batches)
    rng = np.random.default_rng(seed)
    observations = np.array([batch.observations for batch in batches])
    drawn, scale = _plan_draws(observations, method, other_observations)
    quantile = 1 - alpha
    if scale != 1:
        # n batches show a quantile q of new ones only as their own q (n + 1) / n.
        quantile = min(1.0, quantile * (len(batches) + 1) / len(batches))
    layers = {
        # Sums of counts below 2**31 are exact in float64, whose products are fast.
        name: np.stack([np.ravel(batch.spikes[name]) for batch in batches]) * 1.0
        for name in batches[0].spikes
    }
    found: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(replicates):
        x, y = _draw(rng, len(batches), drawn)
        of_each = int(x @ observations), int(y @ observations)
        for name, counts in layers.items():
            one, two = ((times @ counts).astype(np.int64) for times in (x, y))
            w1 = float(emd.emd_from_counts(one, two, of_each))
            found[name].append(w1 * scale)
    means = np.mean(list(found.values()), axis=0)

    def critical_value(values) -> float:
        return float(np.quantile(values, quantile, method="higher"))

    return NoiseFloor(
        {name: float(np.mean(values)) for name, values in found.items()},
        {name: critical_value(values) for name, values in found.items()},
        float(np.mean(means)),
        critical_value(means),
    )


def _plan_draws(
    observations: np.ndarray, method: str, other: int | None
) -> tuple[tuple[int, int] | None, float]:
    """Return how many batches to draw for each side, and what corrects W1 for it.

    Resampling n batches, the variance comes out (n - 1) / n times too small. For equal
    sides one batch fewer makes up for it, else a factor.
    """
    batches, own = len(observations), int(observations.sum())
    if other is not None:
        _checks.require_whole("other_observations", other, 1)
        if method != "bootstrap":
            raise ValueError(
                "other_observations needs method='bootstrap', got method="
                f"{method!r}: halves are equally large"
            )
    if method == "halves":
        return None, 1.0
    if other is None or other == own:
        return (batches - 1, batches - 1), 1.0
    share = other * batches // own
    if share < 1:
        raise ValueError(
            f"other_observations must be at least a batch's, {own / batches:g}, got "
            f"{other}; count the images in smaller batches"
        )
    return (batches, share), (batches / (batches - 1)) ** 0.5


def _draw(
    rng, batches: int, drawn: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw two sets of batches; return the multiplicity of each batch in each set."""
    shares = np.full(batches, 1 / batches)
    if drawn:
        return rng.multinomial(drawn[0], shares), rng.multinomial(drawn[1], shares)
    # With an odd number of batches, leave one out so that the halves are equal.
    order = rng.permutation(batches)[: batches // 2 * 2]
    chosen = np.zeros((2, batches), int)
    chosen[0, order[::2]] = chosen[1, order[1::2]] = 1
    return chosen[0], chosen[1]
