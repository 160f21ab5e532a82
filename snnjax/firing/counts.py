"""Spike counts: integers per neuron that merge exactly.

Spikes are summed over time and images as they arise, and counts over batches and
devices in any order; no spike train is stored.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays, _checks


def total(spikes: ArrayLike, mask: ArrayLike | None = None) -> Array:
    """Sum the spikes of each neuron over time and images.

    Args:
        spikes: ``[T, B, ...]``, 0 or 1 (an ADD block's output: a small whole number).
        mask: ``[B]``, 0 for images that only pad the last batch.

    Returns:
        int32 ``[...]``.

    Raises:
        ValueError: spikes without time and batch, or a mask of another length; outside
            ``jit`` also spikes that are not whole numbers from 0.

    >>> total(jnp.ones((4, 3, 2)), mask=jnp.array([1, 1, 0])).tolist()
    [8, 8]
    """
    spikes = _as_counts(spikes)
    if spikes.ndim < 2:
        raise ValueError(f"spikes must be [T, B, ...], got shape {spikes.shape}")
    if mask is not None:
        mask = jnp.asarray(_checks.require_real("mask", mask))
        if mask.shape != spikes.shape[1:2]:
            raise ValueError(
                f"mask must be [B] = {spikes.shape[1:2]}, got shape {mask.shape}"
            )
        mask = mask.reshape(1, -1, *(1,) * (spikes.ndim - 2))
        spikes = jnp.where(mask.astype(bool), spikes, jnp.zeros_like(spikes))
    return jnp.sum(spikes, axis=(0, 1), dtype=jnp.int32)


def total_by_group(spikes: ArrayLike, group: ArrayLike, groups: int) -> Array:
    """Sum the spikes of each neuron over time and the images of each group.

    One pass over the spikes makes counts of disjoint sets of images, which
    `noise_floor` resamples.

    Args:
        spikes: ``[T, B, ...]``, as in `total`.
        group: ``[B]``, each image's group, 0..groups - 1; others do not count.
        groups: number of groups; static.

    Returns:
        int32 ``[groups, ...]``; exact while a neuron's count in a batch is below 2**24.

    Raises:
        ValueError: as `total`; groups of another length.

    >>> total_by_group(jnp.ones((4, 3, 1)), jnp.array([0, 1, 1]), 2).tolist()
    [[4], [8]]
    """
    spikes = _as_counts(spikes)
    group = jnp.asarray(_checks.require_real("group", group))
    _checks.require_whole("groups", groups, 1)
    if not jnp.issubdtype(group.dtype, jnp.integer):
        raise ValueError(f"group must be integers, got {group.dtype}")
    if spikes.ndim < 2 or group.shape != spikes.shape[1:2]:
        raise ValueError(
            "spikes must be [T, B, ...] and group [B], got shapes "
            f"{spikes.shape} and {group.shape}"
        )
    each = jnp.sum(spikes, axis=0, dtype=jnp.int32).astype(jnp.float32)
    dtype = _arrays.promote_dtypes(group.dtype, jnp.int32)
    member = group.astype(dtype)[None] == jnp.arange(groups, dtype=dtype)[:, None]
    member = member.astype(jnp.float32)
    # Whole numbers: their matrix product is exact at full precision.
    return jnp.tensordot(member, each, 1, precision="highest").astype(jnp.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FiringCounts:
    """Spike counts of every spiking layer; ``a + b`` merges two sets of images.

    Attributes:
        spikes: ``{layer: int32 [neurons...]}``.
        observations: T x images, the largest possible count; static. Counts above it
            (of the outputs of ADD blocks) cannot be compared.

    Raises:
        ValueError: observations below 1, and of a sum also different layers or more
            observations than the counts' integers hold.
    """

    spikes: Mapping[str, ArrayLike]
    observations: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        _checks.require_whole("observations", self.observations, 1)

    def __add__(self, other: "FiringCounts") -> "FiringCounts":
        """Merge the counts of two sets of images."""
        check_same_layers(self, other)
        observations = self.observations + other.observations
        spikes = {}
        for name in self.spikes:
            # Convert to arrays: `+` would concatenate lists.
            ours, theirs = (_as_integers(name, c.spikes[name]) for c in (self, other))
            dtype = np.promote_types(ours.dtype, theirs.dtype)
            if observations > np.iinfo(dtype).max:
                raise ValueError(
                    f"{observations} observations do not fit into {dtype} counts; "
                    "compare the parts instead"
                )
            spikes[name] = ours.astype(dtype) + theirs.astype(dtype)
        return FiringCounts(spikes, observations)

    def rates(self) -> dict[str, np.ndarray]:
        """Compute firing rates ``{layer: float64 [neurons...]}``."""
        return {k: np.asarray(v) / self.observations for k, v in self.spikes.items()}


def check_same_layers(*networks: FiringCounts) -> None:
    """Raise ValueError unless all have the same layers with the same neurons."""
    for counts in networks:
        if not isinstance(counts, FiringCounts):
            raise ValueError(
                "firing is compared between FiringCounts, all must be FiringCounts, "
                f"got {_checks.format_value(counts)}"
            )
        if not isinstance(counts.spikes, Mapping):
            got = _checks.format_value(counts.spikes)
            raise ValueError(f"spikes must be {{layer: counts}}, got {got}")
    first, *others = ({k: np.shape(v) for k, v in c.spikes.items()} for c in networks)
    for shapes in others:
        if first != shapes:
            different = (k for k in first | shapes if first.get(k) != shapes.get(k))
            raise ValueError(
                "the two networks must have the same layers with the same neurons; "
                f"different: {sorted(different, key=str)}"
            )


def check_comparable(*networks: FiringCounts) -> None:
    """Raise ValueError unless all are counts of the same neurons, at least one a layer.

    It reads the values, so it does not work inside ``jit``.
    """
    check_same_layers(*networks)
    for counts in networks:
        if not counts.spikes:
            raise ValueError("the counts have no layers: record at least one")
        for name, spikes in counts.spikes.items():
            if np.size(spikes) == 0:
                raise ValueError(f"{name} is empty: a layer needs neurons")
            seen = np.asarray(_as_integers(name, spikes))
            if seen.min() < 0 or seen.max() > counts.observations:
                raise ValueError(
                    f"counts of {name} must lie within 0..{counts.observations} "
                    "observations (T x images), got "
                    f"{seen.min()} to {seen.max()}"
                )


def _as_counts(spikes: ArrayLike) -> Array:
    """Convert to an array; ValueError for readable values that are not counts."""
    spikes = _checks.require_real("spikes", spikes)

    def is_count(x):
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        # NaN and infinity fail both conditions.
        return (x >= 0) & (x - jnp.floor(x) == 0) if floating else x >= 0

    if spikes.dtype != jnp.bool_ and not _checks.all_satisfy(spikes, is_count):
        raise ValueError(
            f"spikes must be whole numbers from 0, got {_checks.format_value(spikes)}; "
            "pass spikes, not rates or membranes"
        )
    return jnp.asarray(spikes)


def _as_integers(name: str, spikes: ArrayLike) -> Array | np.ndarray:
    spikes = _checks.require_real(f"counts of {name}", spikes)
    if not jnp.issubdtype(spikes.dtype, jnp.integer):
        raise ValueError(f"counts of {name} must be integers, got {spikes.dtype}")
    return spikes
