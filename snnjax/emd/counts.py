"""Exact distances between firing rates that are given as spike counts.

Rates are whole multiples of 1 / observations, so histograms replace sorting, integers
replace rounding, and counts of batches and devices are merged by adding them.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks, _int_limbs

Observations = int | np.integer | tuple[int | np.integer, int | np.integer]


def emd_from_counts(
    x_counts: ArrayLike, y_counts: ArrayLike, observations: Observations
) -> float | Array:
    r"""Compute the exact W1 between firing rates given as spike counts.

    Rates are whole multiples of 1 / observations, so the distance is a sum of integers,

    .. math:: W_1 = \frac{1}{nmK} \sum_{k=0}^{K-1} |m C_x(k) - n C_y(k)|,

    with :math:`C(k)` the number of neurons that fired at most :math:`k` times, of
    :math:`n` and :math:`m`. Histograms instead of sorting: time and memory are
    linear in the neurons and in the observations.

    Outside ``jit`` it is exact (64-bit integers and one division, on the host). Inside
    it is float32 within 2e-7, from integer sums of any width; on a mesh, counts are
    summed over devices first (``jax.lax.psum``), which loses nothing. It is an integer
    function of integers, so there is no gradient: use `wasserstein_1d` on rates.

    Args:
        x_counts: spikes of each neuron, integers of any shape, 0..observations.
        y_counts: the same for the other network; the sizes may differ.
        observations: T x images, which made the counts; a pair where the two differ.
            A static Python integer.

    Returns:
        W1 in spikes per time step, within [0, 1]: a float, inside ``jit`` an array.

    Raises:
        ValueError: no neurons, counts that are not integers or (outside ``jit``) not
            within 0..observations, observations below 1. Inside ``jit`` counts out of
            range give NaN.

    >>> emd_from_counts(np.array([0, 2]), np.array([1, 4]), observations=4)
    0.375
    """
    x, y, kx, ky = _prepare_counts(x_counts, y_counts, observations)
    if isinstance(x, np.ndarray):
        moved, steps = _subtract_cdfs(x, y, kx, ky)
        kind = moved.dtype
        return int(np.sum(moved * steps.gaps.astype(kind))) / steps.unit
    moved, steps = _subtract_traced_cdfs(x, y, kx, ky)
    if kx != ky:
        moved = _int_limbs.multiply(moved, _int_limbs.split_limbs(steps.gaps))
    w1 = _int_limbs.divide(_int_limbs.sum_limbs(moved), steps.unit)
    return jnp.where(_are_valid(x, y, kx, ky), w1, jnp.nan)


def ks_from_counts(
    x_counts: ArrayLike, y_counts: ArrayLike, observations: Observations
) -> float | Array:
    r"""Kolmogorov-Smirnov statistic :math:`\max_r |F_x(r) - F_y(r)|`, from counts.

    The largest share of neurons on whose side of some rate the two networks disagree,
    within [0, 1]. It sees how many neurons moved, and not how far: a layer whose silent
    neurons all begin to fire once has a statistic near 1 and an EMD near 0.

    Arguments, errors and precision are those of `emd_from_counts`; no gradient.

    >>> ks_from_counts(np.array([0, 2]), np.array([1, 4]), observations=4)
    0.5
    """
    x, y, kx, ky = _prepare_counts(x_counts, y_counts, observations)
    if isinstance(x, np.ndarray):
        apart, steps = _subtract_cdfs(x, y, kx, ky)
        return int(np.max(apart)) / steps.neurons
    apart, steps = _subtract_traced_cdfs(x, y, kx, ky)
    ks = jnp.max(_int_limbs.divide(apart, steps.neurons))
    return jnp.where(_are_valid(x, y, kx, ky), ks, jnp.nan)


def layer_emd(
    x_counts: Mapping[str, ArrayLike],
    y_counts: Mapping[str, ArrayLike],
    observations: Observations,
) -> dict[str, float | Array]:
    """Apply `emd_from_counts` to every layer.

    Args:
        x_counts: ``{layer: counts}`` of one network.
        y_counts: the same layers of the other.
        observations: T x images, or a pair of them.

    Returns:
        ``{layer: W1}``.

    Raises:
        ValueError: the layers' names differ, or there is none.
    """
    for name, counts in (("x_counts", x_counts), ("y_counts", y_counts)):
        if not isinstance(counts, Mapping):
            raise ValueError(
                f"{name} must be {{layer: counts}}, got {_checks.format_value(counts)}"
            )
    if set(x_counts) != set(y_counts) or not x_counts:
        raise ValueError(
            "the two networks must have the same layers, at least one; only in one of "
            f"them: {sorted(set(x_counts) ^ set(y_counts), key=str)}"
        )
    return {
        name: emd_from_counts(x_counts[name], y_counts[name], observations)
        for name in x_counts
    }


class Steps(NamedTuple):
    """Intervals between the rates below 1 at which a distribution function can step.

    Attributes:
        of_x: for each interval between two such rates, the count of x that it has
            passed.
        of_y: the same for y.
        gaps: the interval's length.
        neurons: what a difference of distribution functions is counted in.
        unit: ``neurons`` times the number of such lengths in a rate of 1.
    """

    of_x: np.ndarray
    of_y: np.ndarray
    gaps: np.ndarray
    neurons: int
    unit: int


def merge_breakpoints(
    kx: int, ky: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Merge the multiples of 1/kx and 1/ky in [0, 1) into intervals.

    Returns:
        For each interval: how many steps of x and of y lie before it, its length, and
        the number of such lengths in 1.
    """
    if kx == ky:
        steps = np.arange(kx)
        return steps, steps, np.ones(kx, np.int64), kx
    unit = math.lcm(kx, ky)
    at_x, at_y = unit // kx * np.arange(kx + 1), unit // ky * np.arange(ky + 1)
    # A stable sort merges two sorted runs; np.union1d is a hundred times slower.
    at = np.sort(np.concatenate([at_x, at_y]), kind="stable")
    at = at[np.append(True, np.diff(at) > 0)]
    left = at[:-1]
    return left // (unit // kx), left // (unit // ky), np.diff(at), unit


def _merge_steps(n: int, m: int, kx: int, ky: int) -> Steps:
    of_x, of_y, gaps, unit = merge_breakpoints(kx, ky)
    neurons = n * (m // math.gcd(n, m))
    return Steps(of_x, of_y, gaps, neurons, neurons * unit)


def _prepare_counts(x_counts, y_counts, observations) -> tuple[Any, Any, int, int]:
    """Check and flatten counts, on the host unless one is traced."""
    pair = observations if isinstance(observations, tuple) else (observations,) * 2
    if len(pair) != 2 or not all(map(_checks.is_whole, pair)) or min(pair) < 1:
        raise ValueError(
            "observations must be a whole number >= 1 (T x images) or a pair of them, "
            f"got {observations!r}"
        )
    kx, ky = (int(k) for k in pair)
    flat = []
    for name, counts, k in (("x_counts", x_counts, kx), ("y_counts", y_counts, ky)):
        counts = _checks.require_real(name, counts)
        if not jnp.issubdtype(counts.dtype, jnp.integer):
            raise ValueError(f"{name} must be integers, got {counts.dtype}")
        if counts.size == 0:
            raise ValueError(f"{name} is empty: a layer needs neurons")
        if not isinstance(counts, jax.core.Tracer):
            counts = np.asarray(counts)
            if counts.min() < 0 or counts.max() > k:
                raise ValueError(
                    f"{name} must lie within 0..{k} (observations), got "
                    f"{counts.min()}..{counts.max()}"
                )
        flat.append(counts.ravel())
    if any(isinstance(counts, jax.core.Tracer) for counts in flat):
        x, y = (jnp.asarray(counts) for counts in flat)
        # An int8 or uint16 count cannot be compared with 40,000.
        x, y = (c if c.dtype.itemsize >= 4 else c.astype(jnp.int32) for c in (x, y))
        return x, y, kx, ky
    return flat[0], flat[1], kx, ky


def _count_bins(counts: np.ndarray, k: int) -> np.ndarray:
    """Count the neurons at each count 0..k, int64."""
    bins = np.zeros(k + 1, np.int64)
    # Chunks stay in the cache (NumPy counts an int64 copy), but are not smaller than
    # the histogram.
    size = max(2**18, k)
    for start in range(0, counts.size, size):
        piece = counts[start : start + size].astype(np.int64, copy=False)
        bins += np.bincount(piece, minlength=k + 1)
    return bins


def _are_valid(x: Array, y: Array, kx: int, ky: int) -> Array:
    return jnp.all((x >= 0) & (x <= kx)) & jnp.all((y >= 0) & (y <= ky))


def _subtract_cdfs(x, y, kx: int, ky: int) -> tuple[np.ndarray, Steps]:
    """Compute |F_x - F_y| in each interval, times ``neurons``."""
    steps = _merge_steps(x.size, y.size, kx, ky)

    below_x = np.cumsum(_count_bins(x, kx))[steps.of_x]
    below_y = np.cumsum(_count_bins(y, ky))[steps.of_y]
    # The unit bounds every sum; beyond 64 bits, use Python's integers.
    kind = np.int64 if steps.unit < 2**62 else object
    times_x, times_y = steps.neurons // x.size, steps.neurons // y.size
    return np.abs(
        below_x.astype(kind) * times_x - below_y.astype(kind) * times_y
    ), steps


def _subtract_traced_cdfs(x: Array, y: Array, kx: int, ky: int):
    """Compute |F_x - F_y| inside ``jit``, as limbs."""
    steps = _merge_steps(x.size, y.size, kx, ky)

    def cumulative(counts, k, at, times):
        bins = jnp.bincount(counts, length=k + 1).astype(jnp.int32)
        limbs = _int_limbs.split_limbs(jnp.cumsum(bins)[at])
        if times == 1:
            return limbs
        return _int_limbs.multiply(
            limbs, _int_limbs.split_limbs(np.asarray(times, np.int64))
        )

    cx = cumulative(x, kx, steps.of_x, steps.neurons // x.size)
    cy = cumulative(y, ky, steps.of_y, steps.neurons // y.size)
    if len(cx) != len(cy):
        width = max(len(cx), len(cy))
        cx, cy = (c + [jnp.zeros_like(c[0])] * (width - len(c)) for c in (cx, cy))
    return _int_limbs.absolute_difference(cx, cy), steps
