"""Time of the first spike."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays, _checks
from snnjax.spiketrain import trains
from snnjax.spiketrain.sequences import Sequence, as_events, as_sequence, scan_steps


def latency(x: ArrayLike) -> Array:
    r"""Compute the time of the first spike, T for a silent train.

    .. math:: \sum_{t=0}^{T-1} \prod_{s \le t} (1 - x_s),

    the number of steps before the first spike. A silent train counts one step later
    than the last possible spike, so that all latencies can be averaged and compared;
    with many silent neurons the mean mostly counts them.

    Gradient: by the spikes, through a surrogate. At the first spike it is minus the
    time until the second (or T), at steps before it minus the time until the first, and
    0 behind: later spikes have no say.

    Args:
        x: spikes ``[T, ...]``, 0 or 1 of any dtype.

    Returns:
        ``[...]``, in time steps, 0..T, counted from 0 (add 0.5 for the time that the
        distances here take); float32, or wider where the train is.

    Raises:
        ValueError: T = 0; outside ``jit`` values other than 0 and 1.

    Source: time-to-first-spike coding, Thorpe et al., 2001. The inverse of
    `snnjax.encoding.latency`.

    >>> latency(jnp.array([[0, 0], [1, 0], [1, 0]])).tolist()
    [1.0, 3.0]
    """
    return _latency(trains.as_train("x", x))


@jax.jit
def _latency(x):
    return _steps_without(as_sequence(x), _arrays.compute_dtype(x))


def _steps_without(x: Sequence, dtype: jnp.dtype) -> Array:
    def step(carry, now):
        (silent, passed), (spikes,) = carry, now
        silent = silent * (1 - spikes.astype(dtype))
        return (silent, passed + silent), None

    start = (jnp.ones_like(x[0], dtype), jnp.zeros_like(x[0], dtype))
    return scan_steps(step, start, x)[0][1]


def latency_total(x: ArrayLike, mask: ArrayLike | None = None) -> Array:
    """Sum the times of each neuron's first spike over images.

    Integers that merge by adding, over batches and devices, in any order, like
    `firing.total`; and like counts they make an exact distance, between two networks'
    mean latencies in time steps::

        emd.emd_from_counts(a, b, T * images) * T

    Gradient: none (integers). Values other than 0 count as spikes.

    Args:
        x: spikes ``[T, B, ...]``, 0 or 1.
        mask: ``[B]``, 0 for images that only pad the last batch.

    Returns:
        int32 ``[...]``, 0..T x images, in time steps.

    Raises:
        ValueError: spikes without time and batch, T = 0, a mask of another length, T x
            images of 2**31 or more;
            outside ``jit`` values other than 0 and 1.

    >>> latency_total(jnp.array([[[0], [1]], [[1], [1]], [[1], [0]]])).tolist()
    [1]
    """
    x = trains.as_train("x", x)
    if x.ndim < 2:
        raise ValueError(f"spikes must be [T, B, ...], got shape {x.shape}")
    if x.shape[0] * x.shape[1] >= 2**31:
        raise ValueError(
            "T x images of x must be below 2**31, which the int32 sums hold, got shape "
            f"{x.shape}; sum smaller batches"
        )
    mask = np.ones(x.shape[1], bool) if mask is None else mask
    mask = jnp.asarray(_checks.require_real("mask", mask))
    if mask.shape != x.shape[1:2]:
        raise ValueError(f"mask must be [B] = {x.shape[1:2]}, got shape {mask.shape}")
    return _latency_total(x, mask)


@jax.jit
def _latency_total(x, mask):
    steps = _steps_without(as_events(x), jnp.dtype(jnp.int32))
    mask = mask.reshape(-1, *[1] * (steps.ndim - 1))
    return jnp.sum(jnp.where(mask.astype(bool), steps, 0), 0, dtype=jnp.int32)
