"""Interspike intervals over time, for the ISI- and SPIKE-distances.

The spikes of all trains lie at 0.5, 1.5, ..., T - 0.5. Together with 0 and T they cut
the window into T + 1 cells, in none of which a spike lies, so that there the previous
spike, the following one and the interval between them are constant. At the edges, where
there is no such spike, an auxiliary one stands in, as in PySpike.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from snnjax.spiketrain.sequences import (
    Sequence,
    broadcast_constants,
    concatenate,
    map_steps,
    scan_steps,
)


class Intervals(NamedTuple):
    """Spikes around each of the T + 1 cells of a train.

    Attributes:
        previous: times of the spike before the cell.
        following: times of the spike after the cell.
        length: of the interval between them, positive: the ISI.
        silent: ``[...]``, True if the train has no spike.
    """

    previous: Sequence
    following: Sequence
    length: Sequence
    silent: Array


def cell_edges(steps: int) -> np.ndarray:
    """Compute the boundaries of the cells, ``[T + 2]``."""
    return np.concatenate([[0], np.arange(steps) + 0.5, [steps]])


def carry_values(
    x: Sequence, values: Sequence, none: Array, *, reverse: bool = False
) -> Sequence:
    """Carry to each cell the value at the last spike before it (or next after it).

    Args:
        x: a train, bool.
        values: of each step.
        none: where there is no such spike, ``[...]``.
        reverse: use the next spike after the cell.

    Returns:
        One for each of the T + 1 cells.
    """

    def step(last, now):
        spike, value = now
        return jnp.where(spike, value, last), last

    last, seen = scan_steps(step, none, x, values, reverse=reverse)
    return concatenate((last,), seen) if reverse else concatenate(seen, (last,))


def find_intervals(x: Sequence, dtype: jnp.dtype) -> Intervals:
    r"""Find the previous and following spike and the interval of every cell.

    Before the first spike the interval is the longer of the gap to the window's edge
    and the neighbouring interval, so that its auxiliary spike is at

    .. math:: \min(0,\ t_1 - (t_2 - t_1)),

    and likewise behind the last one at max(T, ...). A train of one spike has no other
    interval, and a silent one has its auxiliary spikes at 0 and T.

    Args:
        x: a train, bool.
        dtype: floating, of the times.

    Source: PySpike, whose ISI-distance takes the same intervals without such spikes.
    """
    steps = len(x)
    times = broadcast_constants(np.arange(steps) + 0.5, x, dtype)
    none = jnp.full_like(x[0], -1, dtype)

    def step(carry, now):
        (near, far), (spike, time) = carry, now
        return (jnp.where(spike, time, near), jnp.where(spike, near, far)), near

    # Carry the two most recent spikes.
    (last, before_last), seen = scan_steps(step, (none, none), x, times)
    previous = concatenate(seen, (last,))
    (first, second), seen = scan_steps(step, (none, none), x, times, reverse=True)
    following = concatenate((first,), seen)

    several = second >= 0
    opening = jnp.where(several, jnp.minimum(2 * first - second, 0), 0)
    closing = jnp.where(several, jnp.maximum(2 * last - before_last, steps), steps)
    previous = map_steps(lambda time: jnp.where(time < 0, opening, time), previous)
    following = map_steps(lambda time: jnp.where(time < 0, closing, time), following)
    length = map_steps(jnp.subtract, following, previous)
    return Intervals(previous, following, length, first < 0)
