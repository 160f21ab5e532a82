"""Sequences over time: a list of arrays for few steps, one array for many.

XLA fuses what is done to the arrays of a list into one pass over the spikes: at T = 4
ten times as fast as a loop. Reductions over time, concatenations and slices of one
array end such a pass, or are computed again and again inside it. For many steps a list
would be a large program, so that there an array is scanned over. Both hold ``[...]``
for each step, and functions here take either.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Longest trains that become lists.
UNROLL = 16

Sequence = list[Array] | Array


def as_sequence(x: Array) -> Sequence:
    """Split ``[T, ...]`` into a list of steps if T is at most ``UNROLL``."""
    return [x[t] for t in range(x.shape[0])] if x.shape[0] <= UNROLL else x


def as_events(x: Array) -> Sequence:
    """Convert to bool per step; converting the whole array would end the fusion."""
    return map_steps(lambda now: now.astype(bool), as_sequence(x))


def broadcast_constants(values: np.ndarray, like: Sequence, dtype: Any) -> Sequence:
    """Shape one number per step or cell to broadcast with ``like``."""
    dimensions = like[0].ndim
    array = jnp.asarray(values.reshape(-1, *[1] * dimensions), dtype)
    return list(array) if isinstance(like, list) else array


def map_steps(function: Callable[..., Array], *sequences: Sequence) -> Sequence:
    """Apply an elementwise function to every step."""
    if isinstance(sequences[0], list):
        return [function(*now) for now in zip(*sequences, strict=True)]
    return jax.vmap(function)(*sequences)


def sum_steps(x: Sequence) -> Array:
    """Sum over all steps."""
    return functools.reduce(operator.add, x) if isinstance(x, list) else jnp.sum(x, 0)


def scan_steps(
    step: Callable, start: Any, *sequences: Sequence, reverse: bool = False
) -> tuple[Any, Any]:
    """Scan step(carry, now) -> (carry, result), with result an array or None.

    Returns:
        The last carry, and the results in the order of the steps.
    """
    if not isinstance(sequences[0], list):
        return jax.lax.scan(step, start, sequences, reverse=reverse)
    carry, results = start, []
    for now in (reversed if reverse else list)(list(zip(*sequences, strict=True))):
        carry, result = step(carry, now)
        results.append(result)
    return carry, results[::-1] if reverse else results


def concatenate(*parts: Sequence | tuple[Array]) -> Sequence:
    """Concatenate sequences in time; a tuple is a single step."""
    if any(isinstance(part, list) for part in parts):
        return [step for part in parts for step in part]
    return jnp.concatenate(
        [part if isinstance(part, Array) else jnp.stack(part) for part in parts]
    )
