"""SPIKE-distance: distance between the spike times of two trains, over time."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays
from snnjax.spiketrain import trains
from snnjax.spiketrain.intervals import (
    Intervals,
    carry_values,
    cell_edges,
    find_intervals,
)
from snnjax.spiketrain.sequences import (
    Sequence,
    as_events,
    broadcast_constants,
    map_steps,
    sum_steps,
)


def spike(x: ArrayLike, y: ArrayLike) -> Array:
    r"""Compute the SPIKE-distance, spike time differences relative to intervals.

    .. math::
        \frac1T \int_0^T \frac{S_x \nu_y + S_y \nu_x}{2 \bar\nu^2}\, dt, \quad
        \bar\nu = \frac{\nu_x + \nu_y}{2}, \quad
        S_x(t) = \frac{\Delta_p\, (t_f - t) + \Delta_f\, (t - t_p)}{\nu_x}

    with :math:`t_p` and :math:`t_f` the spikes of x around t, :math:`\nu_x` the
    interval between them, and :math:`\Delta` the distance of each to the nearest spike
    of y. A spike of step t lies at t + 0.5 in the window [0, T]. No parameter and no
    time scale, as with `isi`, but spike times count. Not a metric: the triangle
    inequality can fail.

    Edges as in PySpike: auxiliary spikes stand at min(0, first spike - first interval)
    and max(T, last spike + last interval), at 0 and T for trains of one spike or none;
    before the first spike and behind the last, S is that spike's :math:`\Delta`. For
    few steps (T = 4) these conventions are most of the value: prefer
    `time_wasserstein`.

    Gradient: none by the spikes (it is piecewise constant, so 0).

    Args:
        x: spikes ``[T, ...]``, 0 or 1 of any dtype.
        y: spikes of the same shape.

    Returns:
        One distance for each neuron, ``[...]``, within [0, 1], without unit; float32,
        or wider where a train is. Time and memory are O(T).

    Raises:
        ValueError: shapes that differ, T = 0; outside ``jit`` values other than 0 and
            1.

    Source: Kreuz et al., 2013, with the edges of PySpike's ``spike_distance``.

    >>> x, y = jnp.array([0, 1, 0, 0]), jnp.array([0, 0, 1, 0])
    >>> round(float(spike(x, y)), 6)
    0.475
    """
    return _spike(*trains.as_pair(x, y))


@jax.jit
def _spike(x, y):
    dtype = _arrays.compute_dtype(x, y)
    cuts = cell_edges(x.shape[0])
    x, y = as_events(x), as_events(y)
    a, b = find_intervals(x, dtype), find_intervals(y, dtype)
    middle = broadcast_constants((cuts[1:] + cuts[:-1]) / 2, x, dtype)
    widths = broadcast_constants(np.diff(cuts) / len(x), x, dtype)

    def profile(s_a, s_b, length_a, length_b, width):
        both = s_a * length_b + s_b * length_a
        return width * 2 * both / (length_a + length_b) ** 2

    # In a cell it is linear in time: its mean there is its value in the middle.
    s_a, s_b = _difference(x, a, b, middle), _difference(y, b, a, middle)
    return sum_steps(map_steps(profile, s_a, s_b, a.length, b.length, widths))


def _difference(
    x: Sequence, own: Intervals, other: Intervals, middle: Sequence
) -> Sequence:
    """Compute S of the train x in the middle of each cell."""
    steps = len(x)
    times = broadcast_constants(np.arange(steps) + 0.5, x, middle[0].dtype)
    # To the nearest spike of the other train; one at the same time is its following.
    nearest = map_steps(
        lambda time, previous, following: jnp.minimum(
            time - previous, following - time
        ),
        times,
        other.previous[:-1],
        other.following[:-1],
    )
    none = jnp.full_like(other.previous[0], -1)
    before = carry_values(x, nearest, none)
    behind = carry_values(x, nearest, none, reverse=True)
    # Of a silent train, from its auxiliary spikes, which are at 0 and T.
    opening = jnp.minimum(-other.previous[0], other.following[0])
    closing = jnp.minimum(steps - other.previous[-1], other.following[-1] - steps)

    def interpolate(before, behind, previous, following, length, middle):
        one = jnp.where(before < 0, jnp.where(own.silent, opening, behind), before)
        two = jnp.where(behind < 0, jnp.where(own.silent, closing, before), behind)
        return (one * (following - middle) + two * (middle - previous)) / length

    return map_steps(interpolate, before, behind, *own[:3], middle)
