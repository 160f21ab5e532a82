"""The noise floor: what the choice of images alone makes of an EMD."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from snnjax import _checks, emd
from snnjax.firing.counts import FiringCounts, check_comparable


class NoiseFloor(NamedTuple):
    """The W1 that the choice of images alone makes between a network and itself.

    Attributes:
        emd: ``{layer: mean W1 over the replicates}``.
        high: ``{layer: W1}`` that a share ``level`` of the replicates exceeds. An EMD
            inside the band 0..high is no drift that these images can show.
        emd_mean: of the mean over layers, the mean over the replicates.
        high_mean: of the mean over layers, as ``high``.
    """

    emd: dict[str, float]
    critical_value: dict[str, float]
    emd_mean: float
    high_mean: float


def noise_floor(
    counts_by_batch: Sequence[FiringCounts],
    *,
    method: str = "halves",
    alpha: float | int = 0.05,
    replicates: int = 200,
    seed: int = 0,
) -> NoiseFloor:
    """How far the firing of one network lies from its own on other images.

    Each replicate makes two sets of images and takes the W1 between them. Images are
    drawn by the batches that they were counted in: as many batches as can be had, of
    equal size and mixed contents. With 32 the chance of a false alarm is near
    ``level``, with 8 it is up to twice that.

    - ``"halves"`` splits the images at random into two halves. It is the noise of two
      networks that were evaluated on two such halves.
    - ``"bootstrap"`` draws two sets with replacement, as many as all images (one batch
      fewer, which makes up for drawing from what was drawn; McCarthy and Snowden,
      1985). It is the noise of two evaluations on as many images as these, about
      1/sqrt(2) of the halves', and above that of two networks on the same images, whose
      sampling noise is shared in part.

    Args:
        counts_by_batch: one network's counts of disjoint sets of images.
        method: ``"halves"`` or ``"bootstrap"``.
        level: chance that mere noise is taken for drift, within (0, 1).
        replicates: how many; at least 1 / level.
        seed: of the draws; the same seed gives the same floor.

    Returns:
        A `NoiseFloor`.

    Raises:
        ValueError: fewer than two sets of images, an unknown method, level or number of
            replicates out of range, sets of different layers, no counts.
    """
    batches = list(counts_by_batch)
    if len(batches) < 2:
        raise ValueError(
            f"a split needs at least two sets of images, got {len(batches)}"
        )
    if method not in ("halves", "bootstrap"):
        raise ValueError(f'method must be "halves" or "bootstrap", got {method!r}')
    known = isinstance(alpha, (int, float, np.number)) and _checks.is_whole(replicates)
    if not known or not 0 < alpha < 1 or replicates < 1 / alpha:
        raise ValueError(
            "expected level within (0, 1) and a whole number of replicates >= 1 / "
            f"level, got {level} and {replicates}"
        )
    check_comparable(*batches)
    rng = np.random.default_rng(seed)
    observations = np.array([batch.observations for batch in batches])
    layers = {
        # Sums of counts below 2**31 are exact in float64, and its products are fast.
        name: np.stack([np.ravel(batch.spikes[name]) for batch in batches]) * 1.0
        for name in batches[0].spikes
    }
    found: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(replicates):
        x, y = _draw(rng, len(batches), method)
        of_each = int(x @ observations), int(y @ observations)
        for name, counts in layers.items():
            one, two = ((times @ counts).astype(np.int64) for times in (x, y))
            found[name].append(float(emd.emd_from_counts(one, two, of_each)))
    means = np.mean(list(found.values()), axis=0)

    def critical_value(values) -> float:
        return float(np.quantile(values, 1 - alpha, method="higher"))

    return NoiseFloor(
        {name: float(np.mean(values)) for name, values in found.items()},
        {name: critical_value(values) for name, values in found.items()},
        float(np.mean(means)),
        critical_value(means),
    )


def _draw(rng, batches: int, method: str) -> tuple[np.ndarray, np.ndarray]:
    """How often each batch is in the one set and in the other."""
    if method == "bootstrap":
        times = rng.multinomial(batches - 1, np.full(batches, 1 / batches), size=2)
        return times[0], times[1]
    # Of an odd number of batches one stays out, so that the halves are equal.
    order = rng.permutation(batches)[: batches // 2 * 2]
    chosen = np.zeros((2, batches), int)
    chosen[0, order[::2]] = chosen[1, order[1::2]] = 1
    return chosen[0], chosen[1]
