"""Distances of two recordings, layer by layer, relative to the teacher's variance."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax.distill.recording import Recording

# Below this variance of rates, a deviation of 1 %, a layer counts as silent.
LEAST_VARIANCE = 1e-4


def axis_of(student: Any) -> str | None:
    """Return the mesh axis of a recording, or None."""
    return student.axis_name if isinstance(student, Recording) else None


def widen(x: ArrayLike) -> Array:
    """Return numbers in float32 at least."""
    x = jnp.asarray(x)
    return x.astype(np.promote_types(x.dtype, np.float32))


def mean(x: Array, axis: str | None) -> Array:
    """Average over all of ``x``, on all devices."""
    average = jnp.mean(x)
    return average if axis is None else jax.lax.pmean(average, axis)


def batch_rates(spikes: ArrayLike, axis: str | None) -> Array:
    """Average spikes over time and the whole batch, one rate for each neuron."""
    rates = jnp.ravel(jnp.mean(widen(spikes), axis=(0, 1)))
    return rates if axis is None else jax.lax.pmean(rates, axis)


def relative_square(s: Array, t: Array, axis: str | None) -> Array:
    """Compute the mean squared distance, relative to the variance of t."""
    variance = mean(jnp.square(t - mean(t, axis)), axis)
    return mean(jnp.square(s - t), axis) / jnp.maximum(variance, LEAST_VARIANCE)


def pair_parts(student: Any, teacher: Any, part: str) -> tuple[Any, Any]:
    """Return this part of two recordings, or what stands in its place."""
    if teacher is None:
        raise ValueError(
            f"teacher must be a recording: the loss compares {part} with a teacher's; "
            "give teacher=model to train.fit"
        )
    pair = tuple(
        getattr(x, part) if isinstance(x, Recording) else x for x in (student, teacher)
    )
    return pair[0], pair[1]


def mean_of_layers(
    student: Any, teacher: Any, part: str, compare: Callable[..., Array]
) -> Array:
    """Average ``compare(s, t, axis)`` over the layers of two recordings.

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
    axis, each = axis_of(student), []
    for name in ours:
        s, t = ours[name], jax.lax.stop_gradient(theirs[name])
        if np.shape(s) != np.shape(t):
            raise ValueError(
                f"student and teacher must have layers of one shape, got {np.shape(s)} "
                f"and {np.shape(t)} in {name}"
            )
        each.append(compare(s, t, axis))
    return jnp.mean(jnp.stack(each))
