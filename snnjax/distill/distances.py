"""Distances of two recordings, layer by layer, relative to the teacher's variance."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax._arrays import match_mask, mean_over_first, sum_over_first, widen
from snnjax.distill.recording import Recording

# Distances are relative to this variance at least, a deviation of rates of 1 %: below
# it a layer counts as silent, and its noise would outweigh all else.
LEAST_VARIANCE = 1e-4


def axis_of(student: Any) -> str | None:
    """Return the mesh axis of a recording, or None."""
    return student.axis_name if isinstance(student, Recording) else None


def mask_of(student: Any) -> Array | None:
    """Return the mask of a recording, or None."""
    return student.mask if isinstance(student, Recording) else None


def mean(x: Array, axis: str | None, weights: Array | None = None) -> Array:
    """Average over all of ``x``, or what the weights keep, on all devices."""
    if weights is None:
        average = jnp.mean(x)
        return average if axis is None else jax.lax.pmean(average, axis)
    kept = jnp.broadcast_to(weights, x.shape)
    total, number = jnp.sum(jnp.where(kept, x, 0)), jnp.sum(kept)
    if axis is not None:
        total, number = jax.lax.psum((total, number), axis)
    return total / number.astype(total.dtype)


def image_rates(spikes: ArrayLike, mask: Array | None) -> Array:
    """Divide each neuron's spikes in each image by the steps: ``[B, neurons...]``."""
    x = widen(spikes)
    steps = match_mask(mask, x)
    if steps is None:
        return mean_over_first(x)
    total = sum_over_first(jnp.where(steps, x, 0))
    return total / jnp.sum(steps, 0).astype(x.dtype)


def batch_rates(spikes: ArrayLike, axis: str | None, mask: Array | None) -> Array:
    """Divide each neuron's spikes by the steps of the whole batch, as counts do."""
    x = widen(spikes)
    steps = match_mask(mask, x)
    if steps is None:
        rates = mean_over_first(_flatten_batch(x))
        rates = rates if axis is None else jax.lax.pmean(rates, axis)
    else:
        total = sum_over_first(_flatten_batch(jnp.where(steps, x, 0)))
        number = jnp.sum(steps)
        if axis is not None:
            total, number = jax.lax.psum((total, number), axis)
        rates = total / number.astype(total.dtype)
    return jnp.ravel(rates)


def _flatten_batch(x: Array) -> Array:
    return x.reshape(-1, *x.shape[2:])


def relative_square(
    s: Array, t: Array, axis: str | None, mask: Array | None = None
) -> Array:
    """Compute the mean squared distance, relative to the variance of t."""
    kept = match_mask(mask, t)
    variance = mean(jnp.square(t - mean(t, axis, kept)), axis, kept)
    apart = mean(jnp.square(s - t), axis, kept)
    return apart / jnp.maximum(variance, LEAST_VARIANCE)


def pair_parts(student: Any, teacher: Any, part: str) -> tuple[Any, Any]:
    """Return this part of two recordings, or what stands in its place."""
    if teacher is None:
        raise ValueError(
            f"teacher must be a recording: the loss compares {part} with a teacher's; "
            "give teacher=model to train.fit"
        )
    masks = [x.mask for x in (student, teacher) if isinstance(x, Recording)]
    if len(masks) == 2 and not _agree(*masks):
        raise ValueError(
            "student and teacher must be recorded with one mask, of the same batch; "
            "give mask= to both calls of distill.record"
        )
    pair = tuple(
        getattr(x, part) if isinstance(x, Recording) else x for x in (student, teacher)
    )
    return pair[0], pair[1]


def _agree(ours: Array | None, theirs: Array | None) -> bool:
    """Return False for masks that are known to differ."""
    if ours is None or theirs is None:
        return ours is theirs
    if any(isinstance(x, jax.core.Tracer) for x in (ours, theirs)):
        return np.shape(ours) == np.shape(theirs)
    return np.array_equal(ours, theirs)


def mean_of_layers(
    student: Any, teacher: Any, part: str, compare: Callable[..., Array]
) -> Array:
    """Average ``compare(s, t, axis, mask)`` over the layers of two recordings.

    Raises:
        ValueError: no recordings of this part, other layers or other shapes.
    """
    ours, theirs = pair_parts(student, teacher, part)
    for name, x in (("student", ours), ("teacher", theirs)):
        if not isinstance(x, Mapping) or not x:
            raise ValueError(
                f"{name} must be a recording with {part}, or {{layer: array [T, B, "
                f"...]}} of at least one layer, got {_checks.format_value(x)}"
                + "; distill.record(..., membranes=True) has them"
                * (part == "membranes")
            )
    if set(ours) != set(theirs):
        raise ValueError(
            "student and teacher must have the same layers; only in one of the two: "
            f"{sorted(set(ours) ^ set(theirs))}"
        )
    axis, mask, each = axis_of(student), mask_of(student), []
    for name in ours:
        s, t = ours[name], jax.lax.stop_gradient(theirs[name])
        if np.shape(s) != np.shape(t):
            raise ValueError(
                f"student and teacher must have layers of one shape, got {np.shape(s)} "
                f"and {np.shape(t)} in {name}"
            )
        each.append(compare(s, t, axis, mask))
    return jnp.mean(jnp.stack(each))
