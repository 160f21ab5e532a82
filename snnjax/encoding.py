"""Encode images as inputs over time: direct, Poisson, latency.

Each function maps ``x`` ``[...]`` to a sequence ``[T, ...]`` of the same dtype. A model
that receives an image ``[B, H, W, C]`` encodes it directly and convolves it once. Pass
the other encodings, and event frames ``[T, B, H, W, 2]`` (one channel per polarity,
with ``in_channels=2``), as sequences.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays, _checks

LATENCIES = ("linear", "log")


def direct(x: ArrayLike, *, timesteps: int) -> Array:
    """Repeat the same current at every step.

    Args:
        x: currents ``[...]``.
        timesteps: T.

    Returns:
        ``[T, ...]``.

    Raises:
        ValueError: timesteps below 1.

    >>> direct(jnp.array([0.5]), timesteps=2).tolist()
    [[0.5], [0.5]]
    """
    _checks.require_whole("timesteps", timesteps, 1)
    x = _checks.as_array("x", x)
    return jnp.broadcast_to(x, (timesteps, *x.shape))


def poisson(key: Array, x: ArrayLike, *, timesteps: int) -> Array:
    r"""Draw a spike at each step with the intensity as its probability.

    .. math:: P(S_t = 1) = x, \quad \text{independent over } t

    Each neuron is a Bernoulli process, whose count is binomial; the field calls it
    Poisson after the limit of small intensities. No gradient flows to ``x``.

    Args:
        key: random key; the same key draws the same spikes.
        x: intensities in [0, 1], ``[...]``, floating point.
        timesteps: T.

    Returns:
        Spikes ``[T, ...]``, 0 or 1.

    Raises:
        ValueError: timesteps below 1, integer x, or intensities outside [0, 1] (not
            checked inside ``jit``, where they are clipped).

    Source: SpikingJelly's ``PoissonEncoder``, snnTorch's ``spikegen.rate``.
    """
    _checks.require_whole("timesteps", timesteps, 1)
    _checks.require_key(key)
    x = _intensities(x)
    # Narrower types draw too few distinct numbers for an exact rate.
    wide = _arrays.widen(x)
    return jax.random.bernoulli(key, wide[None], (timesteps, *x.shape)).astype(x.dtype)


def latency(x: ArrayLike, *, timesteps: int, method: str = "linear") -> Array:
    r"""Encode each input as one spike, earlier for a stronger input.

    .. math::
        t &= \mathrm{round}((T - 1)(1 - x)) && \text{linear} \\
        t &= \mathrm{round}(T - 1 - \ln(1 + x (e^{T - 1} - 1))) && \text{log}

    counted from 0: intensity 1 spikes at the first step, 0 at the last. Ties round to
    even. No gradient flows to ``x``.

    Args:
        x: intensities in [0, 1], ``[...]``, floating point.
        timesteps: T.
        method: ``"linear"`` or ``"log"``.

    Returns:
        Spikes ``[T, ...]``, 0 or 1, their sum over T 1.

    Raises:
        ValueError: timesteps below 1, unknown method, integer x, or intensities outside
            [0, 1] (not checked inside ``jit``, where they are clipped).

    Source: SpikingJelly's ``LatencyEncoder``. Differs from snnTorch's
    ``spikegen.latency``, which takes times from the charging of an RC circuit.

    >>> latency(jnp.array([1.0, 0.5, 0.0]), timesteps=3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    _checks.require_whole("timesteps", timesteps, 1)
    _checks.require_one_of("method", method, LATENCIES)
    x = _intensities(x)
    wide = jnp.clip(_arrays.widen(x), 0, 1)
    last = timesteps - 1
    if method == "linear":
        times = last * (1 - wide)
    else:
        # ln(1 + x (e^n - 1)) = n + ln(x + (1 - x) e^-n): e^n is infinite at n = 89.
        times = -jnp.log(wide + (1 - wide) * float(np.exp(-float(last))))
    steps = jnp.arange(timesteps, dtype=wide.dtype).reshape(-1, *[1] * x.ndim)
    return (steps == jnp.clip(jnp.round(times), 0, last)[None]).astype(x.dtype)


def _intensities(x: ArrayLike) -> Array:
    x = _checks.require_floating("x", x, "divide uint8 images by 255: x is in [0, 1]")
    if not _checks.all_satisfy(x, lambda x: (x >= 0) & (x <= 1)):
        seen = np.asarray(x, np.float64)
        raise ValueError(
            f"x must lie in [0, 1], got {seen.min():g} to {seen.max():g}; use direct "
            "encoding for images that were normalised to mean 0"
        )
    return x
