"""How a network fires: spike counts, rates, and what changed between two networks.

Counts are integers for each neuron, summed over time and images where the spikes
arise. They merge exactly, over batches and devices, in any order; no train is kept.
A neuron is one position (h, w, c). Its rate is spikes / (T x images), in spikes per
time step, within [0, 1].
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import emd

DEAD = 0.05  # below this rate a neuron is dead, as in the paper
SATURATED = 0.95  # above this one, saturated


def total(spikes: ArrayLike, mask: ArrayLike | None = None) -> Array:
    """Spikes of each neuron, summed over time and images.

    Args:
        spikes: ``[T, B, ...]``, 0 or 1 (an ADD block's output: a small integer).
        mask: ``[B]``, 0 for the images that only fill up a last batch.

    Returns:
        int32 ``[...]``.

    Raises:
        ValueError: spikes without time and batch, or a mask of another length.

    >>> total(jnp.ones((4, 3, 2)), mask=jnp.array([1, 1, 0])).tolist()
    [8, 8]
    """
    spikes = jnp.asarray(spikes)
    if spikes.ndim < 2:
        raise ValueError(f"spikes must be [T, B, ...], got shape {spikes.shape}")
    if mask is not None:
        mask = jnp.asarray(mask)
        if mask.shape != spikes.shape[1:2]:
            raise ValueError(
                f"mask must be [B] = {spikes.shape[1:2]}, got shape {mask.shape}"
            )
        mask = mask.reshape(-1, *(1,) * (spikes.ndim - 2))
        spikes = jnp.where(mask != 0, spikes, 0)
    return jnp.sum(spikes, axis=(0, 1), dtype=jnp.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FiringCounts:
    """Spike counts of every spiking layer; ``a + b`` merges two sets of images.

    Attributes:
        spikes: ``{layer: int32 [neurons...]}``.
        observations: T x images, the most a neuron can have fired; static.
    """

    spikes: Mapping[str, ArrayLike]
    observations: int = dataclasses.field(metadata={"static": True})

    def __add__(self, other: "FiringCounts") -> "FiringCounts":
        """Counts over both sets of images."""
        _same_layers(self, other)
        observations = self.observations + other.observations
        for counts in (*self.spikes.values(), *other.spikes.values()):
            dtype = jnp.result_type(counts)
            if observations > jnp.iinfo(dtype).max:
                raise ValueError(
                    f"{observations} observations do not fit into {dtype} counts; "
                    "compare the parts instead"
                )
        spikes = {k: self.spikes[k] + other.spikes[k] for k in self.spikes}
        return FiringCounts(spikes, observations)

    def rates(self) -> dict[str, np.ndarray]:
        """Firing rates ``{layer: float64 [neurons...]}``."""
        return {k: np.asarray(v) / self.observations for k, v in self.spikes.items()}


def _same_layers(a: FiringCounts, b: FiringCounts) -> None:
    shapes = [{k: np.shape(v) for k, v in c.spikes.items()} for c in (a, b)]
    if shapes[0] != shapes[1]:
        different = sorted(
            k for k in shapes[0] | shapes[1] if shapes[0].get(k) != shapes[1].get(k)
        )
        raise ValueError(
            "the two networks must have the same layers with the same neurons; "
            f"different: {different}"
        )


class RateSummary(NamedTuple):
    """Over all neurons of all layers: each neuron counts once."""

    mean_rate: float
    dead_fraction: float
    saturated_fraction: float


def summary(counts: FiringCounts) -> RateSummary:
    """Mean rate, and the fractions of dead (< 0.05) and saturated (> 0.95) neurons."""
    rates = np.concatenate([np.ravel(r) for r in counts.rates().values()])
    return RateSummary(
        float(rates.mean()),
        float(np.mean(rates < DEAD)),
        float(np.mean(rates > SATURATED)),
    )


def paired_shift(reference: FiringCounts, other: FiringCounts) -> dict[str, float]:
    r"""How far each neuron's own rate moved: :math:`\frac1n \sum_i |r_i - r'_i|`.

    Never below W1, which lets neurons swap their rates; exact like it.

    Raises:
        ValueError: different layers, or layers of different shapes.
    """
    return _exact_mean(reference, other, np.abs)


def mean_shift(reference: FiringCounts, other: FiringCounts) -> dict[str, float]:
    r"""By how much the mean rate rose, signed: its size is never above W1.

    Raises:
        ValueError: different layers, or layers of different shapes.
    """
    return _exact_mean(reference, other, lambda difference: difference)


def _exact_mean(reference, other, of) -> dict[str, float]:
    _same_layers(reference, other)
    unit = math.lcm(reference.observations, other.observations)
    shifts = {}
    for name, spikes in reference.spikes.items():
        # Past 64 bits Python's own integers take over, as in the EMD.
        kind = np.int64 if np.size(spikes) * unit < 2**62 else object
        x, y = (
            np.asarray(c.spikes[name]).astype(kind) * (unit // c.observations)
            for c in (reference, other)
        )
        shifts[name] = int(np.sum(of(y - x))) / (x.size * unit)
    return shifts


class FiringReport(NamedTuple):
    """What `report` finds of ``other``, beside ``reference``.

    Attributes:
        emd: ``{layer: W1}``.
        emd_mean: mean of ``emd`` over layers.
        paired_shift: ``{layer: mean |r - r'|}``, at least W1.
        mean_shift: ``{layer: mean r' - mean r}``, at most W1 in size.
        mean_rate: of ``other``, over all neurons.
        dead_fraction: of ``other``: rate below 0.05.
        saturated_fraction: of ``other``: rate above 0.95.
    """

    emd: dict[str, float]
    emd_mean: float
    paired_shift: dict[str, float]
    mean_shift: dict[str, float]
    mean_rate: float
    dead_fraction: float
    saturated_fraction: float


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
    _same_layers(reference, other)
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
    )


def noise_floor(counts_by_batch: Sequence[FiringCounts]) -> dict[str, float]:
    """W1 between two halves of the images seen by one network.

    An EMD below it may be the choice of images alone. It is an upper estimate for two
    networks evaluated on the same images, whose sampling noise is shared in part.

    Args:
        counts_by_batch: counts of disjoint sets of images, at least two; those at even
            and those at odd places are merged and compared.

    Returns:
        ``{layer: W1}``.

    Raises:
        ValueError: fewer than two sets.
    """
    if len(counts_by_batch) < 2:
        raise ValueError(
            f"a split needs at least two sets of images, got {len(counts_by_batch)}"
        )
    even, odd = (sum(counts_by_batch[i + 2 :: 2], counts_by_batch[i]) for i in range(2))
    return report(even, odd).emd
