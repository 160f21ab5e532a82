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

# The longest trains that are lists.
UNROLL = 16

Sequence = list[Array] | Array


def as_sequence(x: Array) -> Sequence:
    """The steps of ``[T, ...]``."""
    return [x[t] for t in range(x.shape[0])] if x.shape[0] <= UNROLL else x


def as_events(x: Array) -> Sequence:
    """The same as bool, compared step by step: a converted copy would end the pass."""
    return map_steps(lambda now: now != 0, as_sequence(x))


def broadcast_constants(values: np.ndarray, like: Sequence, dtype: Any) -> Sequence:
    """Numbers of each step or cell, so shaped that they go with ``like``."""
    dimensions = like[0].ndim
    array = jnp.asarray(values.reshape(-1, *[1] * dimensions), dtype)
    return list(array) if isinstance(like, list) else array


def map_steps(function: Callable[..., Array], *sequences: Sequence) -> Sequence:
    """An elementwise function, applied to every step."""
    if isinstance(sequences[0], list):
        return [function(*now) for now in zip(*sequences, strict=True)]
    return function(*sequences)


def sum_steps(x: Sequence) -> Array:
    """The sum over all steps."""
    return functools.reduce(operator.add, x) if isinstance(x, list) else jnp.sum(x, 0)


def scan_steps(
    step: Callable, start: Any, *sequences: Sequence, reverse: bool = False
) -> tuple[Any, Any]:
    """`jax.lax.scan` of step(carry, now) -> (carry, result), result an array or None.

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
    """Sequences one after the other; a tuple is a single step."""
    if any(isinstance(part, list) for part in parts):
        return [step for part in parts for step in part]
    return jnp.concatenate(
        [part if isinstance(part, Array) else jnp.stack(part) for part in parts]
    )
