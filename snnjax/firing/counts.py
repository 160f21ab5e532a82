"""Spike counts: integers per neuron that merge exactly.

Spikes are summed over time and images as they arise, and counts over batches and
devices in any order; no spike train is stored.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

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
            ``jit`` also spikes that are not whole numbers from 0, and totals that int32
            does not hold.

    >>> total(jnp.ones((4, 3, 2)), mask=jnp.array([1, 1, 0])).tolist()
    [8, 8]
    """
    spikes = _as_counts(spikes, 2**31 - 1)
    if mask is not None:
        mask = jnp.asarray(_checks.require_real("mask", mask))
        if mask.shape != spikes.shape[1:2]:
            raise ValueError(
                f"mask must be [B] = {spikes.shape[1:2]}, got shape {mask.shape}"
            )
        mask = mask.reshape(1, -1, *(1,) * (spikes.ndim - 2))
        spikes = jnp.where(mask.astype(bool), spikes, jnp.zeros((), spikes.dtype))
    return jnp.sum(spikes, axis=(0, 1), dtype=jnp.int32)


def total_by_group(spikes: ArrayLike, group: ArrayLike, groups: int) -> Array:
    """Sum the spikes of each neuron over time and the images of each group.

    One pass over the spikes makes counts of disjoint sets of images, which
    `verdict` resamples.

    Args:
        spikes: ``[T, B, ...]``, as in `total`.
        group: ``[B]``, each image's group, 0..groups - 1; others do not count.
        groups: number of groups; static.

    Returns:
        int32 ``[groups, ...]``; exact while a neuron's count in a batch is below 2**24.

    Raises:
        ValueError: as `total`; groups of another length; outside ``jit`` also counts
            above 2**24.

    >>> total_by_group(jnp.ones((4, 3, 1)), jnp.array([0, 1, 1]), 2).tolist()
    [[4], [8]]
    """
    spikes = _as_counts(spikes, 2**24)
    group = jnp.asarray(_checks.require_real("group", group))
    _checks.require_whole("groups", groups, 1)
    if not jnp.issubdtype(group.dtype, jnp.integer):
        raise ValueError(f"group must be integers, got {group.dtype}")
    if group.shape != spikes.shape[1:2]:
        raise ValueError(
            f"group must be [B] = {spikes.shape[1:2]}, got shape {group.shape}"
        )
    each = jnp.sum(spikes, axis=0, dtype=jnp.int32).astype(jnp.float32)
    dtype = _arrays.promote_dtypes(group.dtype, jnp.int32)
    member = group.astype(dtype)[None] == jnp.arange(groups, dtype=dtype)[:, None]
    member = member.astype(jnp.float32)
    # Whole numbers: their matrix product is exact at full precision.
    return jnp.tensordot(member, each, 1, precision="highest").astype(jnp.int32)


class _HostInteger:
    """Field that reads a concrete scalar array as a Python integer, on access.

    On access and not before: the result of a jitted function would have to be waited
    for.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.place = f"_{name}"

    def __get__(self, counts: Any, owner: type) -> Any:
        if counts is None:
            raise AttributeError  # the dataclass asks for a default: there is none
        value = vars(counts)[self.place]
        traced = isinstance(value, jax.core.Tracer)
        if traced or not isinstance(value, (Array, np.ndarray)) or value.ndim:
            return value
        return value.item()

    def __set__(self, counts: Any, value: Any) -> None:
        vars(counts)[self.place] = value


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False)
class FiringCounts:
    """Spike counts of every spiking layer; ``a + b`` merges two sets of images.

    A pytree whose leaves all add: ``jax.lax.psum``, ``jax.tree.map(jnp.add, a, b)`` and
    the carry of a scan, from ``jax.tree.map(jnp.zeros_like, counts)``, give the same.

    Attributes:
        spikes: ``{layer: int32 [neurons...]}``.
        observations: T x images, the largest possible count: an int, inside ``jit``
            perhaps traced. Counts above it (of the outputs of ADD blocks) cannot be
            compared.
        groups: ``{layer: int32 [groups, neurons...]}``, counts of disjoint groups of
            inputs, which sum to ``spikes``. Sums add group by group.
        group_observations: ``[groups]``, which sum to ``observations``; equal by
            default.
        inputs_id: equal where two recordings saw the same inputs in the same groups;
            static.

    Raises:
        ValueError: observations below 1, groups that do not sum to the whole, and of a
            sum also different layers, groups or inputs, or more observations than the
            counts' integers hold. Inside ``jit`` such a sum has observations of -1,
            which cannot be compared.
    """

    spikes: Mapping[str, ArrayLike]
    observations: int = _HostInteger()  # pyrefly: ignore[bad-assignment]
    groups: Mapping[str, ArrayLike] | None = None
    group_observations: ArrayLike | None = None
    inputs_id: str | int | None = None

    def __post_init__(self):
        if not isinstance(self.spikes, Mapping):
            got = _checks.format_value(self.spikes)
            raise ValueError(f"spikes must be {{layer: counts}}, got {got}")
        if not isinstance(self.observations, jax.core.Tracer):
            _checks.require_whole("observations", self.observations, 1)
            object.__setattr__(self, "observations", int(self.observations))
        elif self.observations.ndim or not jnp.issubdtype(
            self.observations.dtype, jnp.integer
        ):
            raise ValueError(
                "observations must be one integer, got "
                f"{self.observations.dtype} of shape {self.observations.shape}"
            )
        if not isinstance(self.inputs_id, (str, int, type(None))):
            got = _checks.format_value(self.inputs_id)
            raise ValueError(f"inputs_id must be a string or None, got {got}")
        if self.groups is not None:
            sizes = _check_groups(self)
            object.__setattr__(self, "group_observations", sizes)
        elif self.group_observations is not None:
            raise ValueError("group_observations needs groups, got None")

    @classmethod
    def from_spikes(cls, spikes: Mapping[str, ArrayLike]) -> "FiringCounts":
        """Count the spikes ``{layer: [T, B, neurons...]}`` of one batch.

        Raises:
            ValueError: spikes without time, batch and neurons, or of different T and B;
                as `total`.

        >>> FiringCounts.from_spikes({"a": jnp.ones((4, 3, 2))}).observations
        12
        """
        if not isinstance(spikes, Mapping) or not spikes:
            got = _checks.format_value(spikes)
            raise ValueError(f"spikes must be {{layer: [T, B, ...]}}, got {got}")
        for name, each in spikes.items():
            if np.ndim(each) < 3:
                raise ValueError(
                    f"spikes of {name} must be [T, B, neurons...], got shape "
                    f"{np.shape(each)}; of one image spikes[:, None], of one neuron "
                    "spikes[..., None]"
                )
        counts = {name: total(each) for name, each in spikes.items()}
        sizes = {np.shape(each)[:2] for each in spikes.values()}
        if len(sizes) > 1:
            raise ValueError(f"all spikes must have one T and B, got {sorted(sizes)}")
        return cls(counts, math.prod(sizes.pop()))

    def tree_flatten_with_keys(self):
        """Flatten without reading the observations, which may still be computed."""
        names = ("spikes", "observations", "groups", "group_observations")
        raw = vars(self)
        leaves = [raw.get(name, raw.get(f"_{name}")) for name in names]
        keys = map(jax.tree_util.GetAttrKey, names)
        return tuple(zip(keys, leaves, strict=True)), self.inputs_id

    @classmethod
    def tree_unflatten(cls, inputs_id, leaves):
        """Make counts of any leaves, unchecked: JAX puts in its own objects."""
        counts = object.__new__(cls)
        for field, value in zip(
            dataclasses.fields(cls), (*leaves, inputs_id), strict=True
        ):
            object.__setattr__(counts, field.name, value)
        return counts

    def __eq__(self, other: object) -> bool:
        """Return True if all fields are equal; it reads the values."""
        if not isinstance(other, FiringCounts):
            return NotImplemented
        (ours, kind), (theirs, other_kind) = map(jax.tree.flatten, (self, other))
        return kind == other_kind and all(map(np.array_equal, ours, theirs))

    __hash__ = None  # pyrefly: ignore[bad-assignment]

    def __add__(self, other: "FiringCounts") -> "FiringCounts":
        """Merge the counts of two sets of images."""
        check_same_layers(self, other)
        if self.inputs_id != other.inputs_id:
            raise ValueError(
                "counts of different inputs_id cannot be merged, got "
                f"{self.inputs_id!r} and {other.inputs_id!r}: name those of the sum"
            )
        spikes = _add_counts(self.spikes, other.spikes)
        limit = min((_largest_count(each) for each in spikes.values()), default=None)
        observations = _add_observations(self.observations, other.observations, limit)
        counts = {"spikes": spikes, "observations": observations}
        if self.groups is not None or other.groups is not None:
            ours, theirs = (
                0 if c.group_observations is None else np.size(c.group_observations)
                for c in (self, other)
            )
            if self.groups is None or other.groups is None or ours != theirs:
                raise ValueError(
                    "counts must have equally many groups to be merged, got "
                    f"{ours} and {theirs}"
                )
            # Sums of groups reach those of the whole, whose dtype the limit is of.
            counts["groups"] = _add_counts(_widen_groups(self), _widen_groups(other))
            sizes = (_widen(c.group_observations, np.int64) for c in (self, other))
            counts["group_observations"] = _add_integers(
                "group_observations",
                *sizes,  # pyrefly: ignore[bad-argument-type]
            )
        # Not by the constructor, which refuses an overflow's mark and an empty sum.
        leaves = [counts.get(f.name) for f in dataclasses.fields(self)[:-1]]
        return self.tree_unflatten(self.inputs_id, leaves)

    def rates(self) -> dict[str, np.ndarray]:
        """Compute firing rates ``{layer: float64 [neurons...]}``, not inside ``jit``.

        Raises:
            ValueError: no observations, counts that are none, or inside ``jit``.
        """
        check_readable(self)
        counts = {k: np.asarray(_as_integers(k, v)) for k, v in self.spikes.items()}
        for name, each in counts.items():
            if each.min(initial=0) < 0:
                raise ValueError(f"counts of {name} must be from 0, got {each.min()}")
        return {name: each / self.observations for name, each in counts.items()}

    def __radd__(self, other: Any) -> "FiringCounts":
        """Return the counts themselves for the 0 that ``sum`` begins with."""
        return self if isinstance(other, int) and other == 0 else NotImplemented


def _check_groups(counts: FiringCounts) -> ArrayLike:
    """Return the groups' observations; ValueError unless groups sum to the whole."""
    groups, spikes = counts.groups, counts.spikes
    if not isinstance(groups, Mapping) or set(groups) != set(spikes) or not groups:
        raise ValueError(
            "groups must be {layer: [groups, neurons...]} of the layers of spikes, got "
            f"{_checks.format_value(groups)}"
        )
    number = (np.shape(next(iter(groups.values()))) or (0,))[0]
    for name, each in groups.items():
        each = _as_integers(f"the groups of {name}", each)
        shape = (number, *np.shape(spikes[name]))
        if each.shape != shape or not number:
            raise ValueError(
                f"groups of {name} must be [groups, neurons...] = {shape}, as many in "
                f"every layer and at least one, got {each.shape}"
            )
        _require_sum(f"groups of {name}", each, spikes[name])
    sizes = counts.group_observations
    if sizes is None:
        share, rest = divmod(counts.observations, number)
        if not isinstance(counts.observations, jax.core.Tracer) and rest:
            raise ValueError(
                f"{counts.observations} observations are not {number} equal groups; "
                "give group_observations"
            )
        if isinstance(share, jax.core.Tracer) or share < 2**31:
            return jnp.full(number, share, jnp.int32)
        return np.full(number, share, np.int64)
    sizes = _as_integers("group_observations", sizes)
    if sizes.shape != (number,):
        raise ValueError(
            f"group_observations must be [groups] = ({number},), got {sizes.shape}"
        )
    _require_sum("group_observations", sizes, counts.observations)
    if not _checks.all_satisfy(sizes, lambda x: x >= 1):
        got = _checks.format_value(sizes)
        raise ValueError(f"group_observations must be at least 1, got {got}")
    return sizes


def _require_sum(name: str, parts: Array | np.ndarray, whole: ArrayLike) -> None:
    if any(isinstance(each, jax.core.Tracer) for each in (parts, whole)):
        return
    if not np.array_equal(np.asarray(parts).astype(np.int64).sum(0), np.asarray(whole)):
        raise ValueError(f"{name} must sum to the whole, got other sums")


def _add_counts(ours: Mapping, theirs: Mapping) -> dict[str, Array | np.ndarray]:
    names = {name: f"counts of {name}" for name in ours}
    return {k: _add_integers(name, ours[k], theirs[k]) for k, name in names.items()}


def _add_integers(name: str, ours: ArrayLike, theirs: ArrayLike) -> Array | np.ndarray:
    # Convert to arrays: `+` would concatenate lists.
    x, y = (_as_integers(name, each) for each in (ours, theirs))
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        return x + y
    dtype = _arrays.promote_dtypes(x.dtype, y.dtype)
    return jnp.asarray(x, dtype) + jnp.asarray(y, dtype)


def _widen_groups(counts: Any) -> dict[str, Array | np.ndarray]:
    return {k: _widen(x, counts.spikes[k].dtype) for k, x in counts.groups.items()}


def _widen(x: Any, dtype: Any) -> Array | np.ndarray:
    """Return integers in as many bits as a dtype has; JAX may have no more than 32."""
    x = x if isinstance(x, Array | np.ndarray) else np.asarray(x)
    if isinstance(x, Array):
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    return x if x.dtype.itemsize >= np.dtype(dtype).itemsize else x.astype(dtype)


def _largest_count(counts: Array | np.ndarray) -> tuple[int, str]:
    return int(jnp.iinfo(counts.dtype).max), str(counts.dtype)


def _add_observations(ours, theirs, limit: tuple[int, str] | None):
    """Add; an overflow is an error and, of traced observations, -1 from then on."""
    merged = ours + theirs
    if not any(isinstance(k, jax.core.Tracer) for k in (ours, theirs)):
        if limit and np.any(merged > limit[0]):
            raise ValueError(
                f"{merged} observations do not fit into {limit[1]} counts; compare the "
                "parts instead"
            )
        return merged
    # Integers wrap around to negative ones.
    valid = (ours >= 0) & (theirs >= 0) & (merged >= 0)
    if limit and limit[0] < jnp.iinfo(merged.dtype).max:
        valid &= merged <= limit[0]
    return jnp.where(valid, merged, -1)


def check_same_layers(*networks: FiringCounts) -> None:
    """Raise ValueError unless all have the same layers with the same neurons."""
    for counts in networks:
        if not isinstance(counts, FiringCounts):
            raise ValueError(
                "firing is compared between FiringCounts, all must be FiringCounts, "
                f"got {_checks.format_value(counts)}"
            )
    first, *others = ({k: np.shape(v) for k, v in c.spikes.items()} for c in networks)
    for shapes in others:
        if first != shapes:
            different = (k for k in first | shapes if first.get(k) != shapes.get(k))
            raise ValueError(
                "the two networks must have the same layers with the same neurons; "
                f"different: {sorted(different, key=str)}"
            )


def check_readable(counts: FiringCounts) -> None:
    """Raise ValueError inside ``jit``, and for observations below 1."""
    leaves = jax.tree.leaves(counts)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        raise ValueError(
            "counts are traced, and their values are read here: return FiringCounts "
            "from the jitted function and compare outside it (emd.emd_from_counts and "
            "emd.layer_emd work inside, with observations that are known)"
        )
    if np.ndim(counts.observations) or counts.observations < 1:
        raise ValueError(
            "observations must be one whole number from 1, got "
            f"{counts.observations}: nothing was counted, or a sum inside jit "
            "overflowed, or counts were stacked and not summed"
        )


def check_comparable(*networks: FiringCounts) -> None:
    """Raise ValueError unless all are counts of the same neurons, at least one a layer.

    It reads the values, so it does not work inside ``jit``.
    """
    check_same_layers(*networks)
    for counts in networks:
        check_readable(counts)
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


def _as_counts(spikes: ArrayLike, most: int) -> Array:
    """Convert to an array ``[T, B, ...]``.

    Raises:
        ValueError: no time or batch, readable values that are not counts, or that sum
            to more than ``most`` for a neuron.
    """
    spikes = _checks.require_real("spikes", spikes)
    if spikes.ndim < 2:
        raise ValueError(f"spikes must be [T, B, ...], got shape {spikes.shape}")

    def is_count(x):
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        # NaN and infinity fail both conditions.
        return (x >= 0) & (x - jnp.floor(x) == 0) if floating else x >= 0

    if spikes.dtype != jnp.bool_ and not _checks.all_satisfy(spikes, is_count):
        raise ValueError(
            f"spikes must be whole numbers from 0, got {_checks.format_value(spikes)}; "
            "pass spikes, not rates or membranes"
        )
    steps = spikes.shape[0] * spikes.shape[1]
    if spikes.dtype == jnp.bool_:
        small = steps <= most
    else:
        # Half of what would do, because the dtype may round it; not every one holds it.
        bound = min(most // max(2 * steps, 1), _largest_value(spikes.dtype))
        small = _checks.all_satisfy(spikes, lambda x: x <= bound)
    # Only then is it worth another pass in 64 bits.
    if not small and not isinstance(spikes, jax.core.Tracer):
        largest = np.asarray(spikes).sum((0, 1), dtype=np.float64).max(initial=0)
        if largest > most:
            raise ValueError(
                f"spikes of a neuron must sum to at most {most}, got {largest:.0f}; "
                "count smaller batches"
            )
    return jnp.asarray(spikes)


def _largest_value(dtype: jnp.dtype) -> int:
    kind = jnp.finfo if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo
    return int(float(kind(dtype).max))


def _as_integers(name: str, spikes: ArrayLike) -> Array | np.ndarray:
    spikes = _checks.require_real(f"counts of {name}", spikes)
    if not jnp.issubdtype(spikes.dtype, jnp.integer):
        raise ValueError(f"counts of {name} must be integers, got {spikes.dtype}")
    return spikes
