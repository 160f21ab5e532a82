"""Distances that match the spikes of one train with those of another.

Both functions here are one dynamic programme over time. Its state is the number k of
spikes under way: of x where k > 0, of y where k < 0. A spike goes under way, meets one
that is under way from the other train, or is left over; every border of time steps
costs |k| moves; in the end nothing is under way. Spikes that coincide are matched with
each other, since exchanging partners never costs more, and so are spikes with what is
under way. After t of T steps |k| is at most min(t, T - t), since each spike under way
has come in a step and will meet its partner in another.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays
from snnjax.spiketrain import trains
from snnjax.spiketrain.sequences import UNROLL


def time_wasserstein(
    x: ArrayLike, y: ArrayLike, *, unmatched: ArrayLike | None = None
) -> Array:
    r"""Compute the partial optimal transport between two trains, in time.

    .. math:: \min_M \sum_{(i, j) \in M} |t_i - t_j| + c\, (n_x + n_y - 2 |M|)

    over all matchings M of spikes of x with spikes of y, with c the cost of a spike
    left over, ``unmatched``. A pair is matched where it is at most 2 c apart, so that c
    is a time scale as well as a price. Where both trains have n spikes and c is T/2 or
    more it is n times the 1-Wasserstein distance between their spike times.

    The default, T/2, is half the window, the least cost at which as many spikes as can
    be are matched, wherever in the window they lie (on the grid of steps (T - 1)/2 is
    enough). Twice the distance is then an integer: exact in float32 up to T = 4000.

    ``time_wasserstein(x, y, unmatched=c)`` is ``c * victor_purpura(x, y, cost=1 / c)``:
    the same family of metrics, in steps instead of edits. It is a metric for every
    c > 0.

    Gradient: none by the spikes (it is piecewise constant, so 0; train on `van_rossum`
    or on `latency`). By ``unmatched``, the number of spikes left over; where matchings
    are equally cheap, a number between theirs.

    Args:
        x: spikes ``[T, ...]``, 0 or 1 of any dtype.
        y: spikes of the same shape.
        unmatched: cost of a spike left over, in steps; T/2 when None. May be traced.

    Returns:
        One distance for each neuron, ``[...]``, in time steps summed over spikes;
        float32, or wider where a train is. Time is O(T^2), memory O(T).

    Raises:
        ValueError: shapes that differ, T = 0; outside ``jit`` values other than 0 and
            1; unmatched negative or NaN (a traced one gives NaN).

    Source: partial transport on the line, e.g. Figalli, 2010. Differs from the spike
    train distance of Sihn and Kim, 2019, in: trains are not normalised to the same
    mass, so that silent ones are compared too and spike counts matter.

    >>> x, y = jnp.array([1, 0, 0, 1]), jnp.array([0, 1, 0, 0])
    >>> float(time_wasserstein(x, y))  # one step from 0 to 1, one spike left over
    3.0
    """
    x, y = trains.as_pair(x, y)
    unmatched = x.shape[0] / 2 if unmatched is None else unmatched
    unmatched = trains.as_nonnegative(
        "unmatched", unmatched, _arrays.compute_dtype(x, y)
    )
    return _match(x, y, jnp.ones_like(unmatched), unmatched)


def victor_purpura(x: ArrayLike, y: ArrayLike, *, cost: ArrayLike) -> Array:
    r"""Compute the least cost of editing one spike train into another.

    .. math:: \min_M \sum_{(i, j) \in M} q\, |t_i - t_j| + (n_x + n_y - 2 |M|)

    Inserting or deleting a spike costs 1, moving it by a step ``cost``, q; moves by
    more than 2/q do not pay. At 0 it is the difference of the spike counts, from 2 on
    and at infinity the number of spikes that do not coincide.

    It is ``time_wasserstein(x, y, unmatched=1 / cost) * cost``.

    Gradient: none by the spikes (it is piecewise constant, so 0; train on
    `van_rossum`). By ``cost``, the steps moved; where matchings are equally cheap, a
    number between theirs.

    Args:
        x: spikes ``[T, ...]``, 0 or 1 of any dtype.
        y: spikes of the same shape.
        cost: of moving a spike by one time step, 0 and infinity included. May be
            traced.

    Returns:
        One distance for each neuron, ``[...]``, in edits; float32, or wider where a
        train is. Time is O(T^2), memory O(T).

    Raises:
        ValueError: shapes that differ, T = 0; outside ``jit`` values other than 0 and
            1; cost negative or NaN (a traced one gives NaN).

    Source: Victor and Purpura, 1996; Elephant's ``victor_purpura_distance``, whose
    ``cost_factor`` is this cost for each unit of time. Differs from Elephant in: at
    infinity spikes that coincide do not count, which is the limit of large cost.

    >>> x, y = jnp.array([1, 0, 0, 1]), jnp.array([0, 1, 0, 0])
    >>> float(victor_purpura(x, y, cost=0.5))
    1.5
    """
    x, y = trains.as_pair(x, y)
    cost = trains.as_nonnegative("cost", cost, _arrays.compute_dtype(x, y))
    return _match(x, y, cost, jnp.ones_like(cost))


@jax.jit
def _match(x, y, move, drop):
    match = _match_unrolled if x.shape[0] <= UNROLL else _match_scanned
    return trains.mask_invalid(jnp.minimum(move, drop), match(x, y, move, drop))


def _split_by_train(x: Array, y: Array) -> tuple[Array, Array]:
    """Find spikes of one train only; coinciding spikes are matched at no cost."""
    x, y = x.astype(bool), y.astype(bool)
    return x & ~y, y & ~x


def _match_unrolled(x: Array, y: Array, move: Array, drop: Array) -> Array:
    """Match with one array per reachable state: a single elementwise loop."""
    steps, *neurons = x.shape
    costs = {0: jnp.zeros(neurons, drop.dtype)}
    never = jnp.asarray(jnp.inf, drop.dtype)
    for t in range(steps):
        only_x, only_y = _split_by_train(x[t], y[t])
        left_over = {k: cost + drop for k, cost in costs.items()}
        most = min(t + 1, steps - t - 1)
        following = {}
        for k in range(-most, most + 1):
            by_x, by_y = costs.get(k - 1, never), costs.get(k + 1, never)
            # A spike is left over only while none of the other train waits for it.
            if k >= 0:
                by_x = jnp.minimum(by_x, left_over.get(k, never))
            if k <= 0:
                by_y = jnp.minimum(by_y, left_over.get(k, never))
            cost = jnp.where(only_y, by_y, costs.get(k, never))
            cost = jnp.where(only_x, by_x, cost)
            following[k] = cost + abs(k) * move if k else cost
        costs = following
    return costs[0]


def _match_scanned(x: Array, y: Array, move: Array, drop: Array) -> Array:
    """Match with an axis of states, -T//2 to T//2, in a scan."""
    steps, *neurons = x.shape
    most = steps // 2
    k = jnp.arange(-most, most + 1, dtype=drop.dtype)
    k = k.reshape(-1, *[1] * len(neurons))
    # No state is worth less than infinity; nothing is subtracted, so it makes no NaN.
    drop_x, drop_y = jnp.where(k >= 0, drop, jnp.inf), jnp.where(k <= 0, drop, jnp.inf)
    border = jnp.where(k == 0, 0, jnp.abs(k) * move)  # 0 at infinite cost too
    none = jnp.full((1, *neurons), jnp.inf, drop.dtype)

    def step(costs, now):
        only_x, only_y = (only[None] for only in _split_by_train(*now))
        by_x = jnp.minimum(jnp.concatenate([none, costs[:-1]]), costs + drop_x)
        by_y = jnp.minimum(jnp.concatenate([costs[1:], none]), costs + drop_y)
        costs = jnp.where(only_x, by_x, jnp.where(only_y, by_y, costs))
        return costs + border, None

    nothing = jnp.zeros_like(x[0], drop.dtype)  # varies over a mesh as the trains do
    start = jnp.where(k == 0, 0, jnp.inf).astype(drop.dtype) + nothing[None]
    return jax.lax.scan(step, start, (x, y))[0][most]
