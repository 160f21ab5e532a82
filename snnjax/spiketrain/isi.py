"""ISI-distance: relative difference of the instantaneous rates of two trains."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays
from snnjax.spiketrain import trains
from snnjax.spiketrain.intervals import cell_edges, find_intervals
from snnjax.spiketrain.sequences import (
    as_events,
    broadcast_constants,
    map_steps,
    sum_steps,
)


def isi(x: ArrayLike, y: ArrayLike) -> Array:
    r"""Compute the ISI-distance, the mean relative difference of intervals.

    .. math::
        \frac1T \int_0^T \frac{|\nu_x(t) - \nu_y(t)|}{\max(\nu_x(t), \nu_y(t))}\, dt

    with :math:`\nu(t)` the interval between the spikes around t. A spike of step t lies
    at t + 0.5 in the window [0, T]. Without parameters and, since only ratios count,
    without a time scale: trains that fire at the same rate, one behind the other, are
    hardly apart. It sees rates, `spike` sees times. A pseudometric: 0 between some
    trains that differ.

    Edges as in PySpike: there the interval is the longer of the gap to the window's
    edge and the neighbouring interval; that of a silent train is T. For few steps (T =
    4) these conventions are most of the value: prefer `time_wasserstein`.

    Gradient: none by the spikes (it is piecewise constant, so 0).

    Args:
        x: spikes ``[T, ...]``, 0 or 1 of any dtype.
        y: spikes of the same shape.

    Returns:
        One distance for each neuron, ``[...]``, within [0, 1), without unit; float32,
        or wider where a train is. Time and memory are O(T).

    Raises:
        ValueError: shapes that differ, T = 0; outside ``jit`` values other than 0 and
            1.

    Source: Kreuz et al., 2007, with the edges of PySpike's ``isi_distance``.

    >>> x, y = jnp.array([1, 1, 1, 1]), jnp.array([1, 0, 1, 0])
    >>> float(isi(x, y))
    0.5
    """
    return _isi(*trains.as_pair(x, y))


@jax.jit
def _isi(x, y):
    dtype = _arrays.compute_dtype(x, y)
    a, b = (find_intervals(as_events(train), dtype).length for train in (x, y))
    widths = broadcast_constants(np.diff(cell_edges(x.shape[0])) / x.shape[0], a, dtype)
    return sum_steps(
        map_steps(
            lambda a, b, width: width * jnp.abs(a - b) / jnp.maximum(a, b), a, b, widths
        )
    )
