"""Exact distances between firing rates that are given as spike counts.

Rates are whole multiples of 1 / observations, so integers replace rounding, and counts
of batches and devices are merged by adding them. Many neurons are counted in a
histogram, in linear time; few neurons with many observations are sorted, so that no
cost hangs on the number of observations alone.
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
    :math:`n` and :math:`m`. By a histogram or by sorting, whichever is less work: time
    and memory are linear in the neurons where the counts' range is no larger than some
    times their number, and never grow with the observations alone.

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
        apart = _subtract_cdfs(x, y, kx, ky)
        moved = apart.neurons if apart.gaps is None else apart.neurons * apart.gaps
        return int(np.sum(moved)) / (apart.total * apart.unit)
    moved = _subtract_traced_cdfs(x, y, kx, ky)
    sums = moved.neurons
    if moved.gaps is not None:
        sums = _int_limbs.multiply(sums, moved.gaps)
    w1 = _int_limbs.divide(_int_limbs.sum_limbs(sums), moved.total * moved.unit)
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
        apart = _subtract_cdfs(x, y, kx, ky)
        return int(np.max(apart.neurons, initial=0)) / apart.total
    apart = _subtract_traced_cdfs(x, y, kx, ky)
    shares = _int_limbs.divide(apart.neurons, apart.total)
    if apart.gaps is not None:  # between equal rates there is no interval
        shares = jnp.where(sum(apart.gaps) > 0, shares, 0)
    ks = jnp.max(shares, initial=0)
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


class Difference(NamedTuple):
    """Difference of two distribution functions of rates, interval by interval.

    Attributes:
        neurons: |F_x - F_y| in each interval, times ``total``: int64 (Python's integers
            where 64 bits may not do), inside ``jit`` limbs.
        gaps: the intervals' lengths, times ``unit``; None where all are 1.
        total: a common multiple of the numbers of neurons.
        unit: a common multiple of the observations.
    """

    neurons: Any
    gaps: Any
    total: int
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


def _prepare_counts(x_counts, y_counts, observations) -> tuple[Any, Any, int, int]:
    """Check and flatten counts, on the host unless one is traced."""
    pair = observations if isinstance(observations, tuple) else (observations,) * 2
    if len(pair) != 2 or not all(map(_checks.is_whole, pair)) or min(pair) < 1:
        raise ValueError(
            "observations must be a whole number >= 1 (T x images) or a pair of them, "
            f"got {observations!r}; traced ones are not known inside jit: return the "
            "counts and compare them outside"
        )
    kx, ky = (int(k) for k in pair)
    if max(pair) >= 2**62:
        raise ValueError(f"observations must be below 2**62, got {observations!r}")
    flat = []
    for name, counts, k in (("x_counts", x_counts, kx), ("y_counts", y_counts, ky)):
        counts = _checks.require_real(name, counts)
        if not jnp.issubdtype(counts.dtype, jnp.integer):
            raise ValueError(f"{name} must be integers, got {counts.dtype}")
        if counts.size == 0:
            raise ValueError(f"{name} is empty: a layer needs neurons")
        if not isinstance(counts, jax.core.Tracer):
            counts = np.asarray(counts)
            if counts.dtype.kind not in "iu":  # int4, which NumPy does not reduce
                counts = counts.astype(np.int64)
            if counts.min() < 0 or counts.max() > k:
                raise ValueError(
                    f"{name} must lie within 0..{k} (observations), got "
                    f"{counts.min()}..{counts.max()}"
                )
        flat.append(counts.ravel())
    if any(isinstance(counts, jax.core.Tracer) for counts in flat):
        flat = [_as_traceable(counts) for counts in flat]
    return flat[0], flat[1], kx, ky


def _as_traceable(counts: Array | np.ndarray) -> Array:
    """Convert to at least 32 bits: an int8 cannot be compared with 40,000."""
    if counts.dtype.itemsize < 4:
        return jnp.asarray(counts, jnp.int32)
    if isinstance(counts, np.ndarray) and counts.dtype.itemsize > 4:
        if counts.max() < 2**32:
            return jnp.asarray(counts.astype(np.uint32))
        if jnp.result_type(int) != jnp.int64:
            raise ValueError(
                f"counts inside jit must be below 2**32 unless x64 is on, got "
                f"{counts.max()}"
            )
    return jnp.asarray(counts)


def _prefer_histogram(span: int, neurons: int, ratio: int = 8) -> bool:
    """Return True if bins are less work than sorting.

    Sorting a neuron costs about as much as ``ratio`` bins: 8 in NumPy, 32 in XLA.
    """
    return span <= ratio * neurons + 2**10


def _are_valid(x: Array, y: Array, kx: int, ky: int) -> Array:
    # Not every dtype holds the observations.
    top_x, top_y = (
        np.asarray(min(k, jnp.iinfo(c.dtype).max), c.dtype)
        for c, k in ((x, kx), (y, ky))
    )
    return jnp.all((x >= 0) & (x <= top_x)) & jnp.all((y >= 0) & (y <= top_y))


def _count_bins(counts: np.ndarray, low: int, span: int) -> np.ndarray:
    """Count the neurons at each count low..low + span, int64."""
    bins = np.zeros(span + 1, np.int64)
    # Chunks stay in the cache (NumPy counts an int64 copy), but are not smaller than
    # the histogram.
    size = max(2**18, span)
    for start in range(0, counts.size, size):
        piece = counts[start : start + size].astype(np.int64, copy=False)
        bins += np.bincount(piece - low if low else piece, minlength=span + 1)
    return bins


def _tabulate(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts that occur, rising, and the neurons at most at each."""
    low, high = int(counts.min()), int(counts.max())
    if _prefer_histogram(high - low, counts.size):
        bins = _count_bins(counts, low, high - low)
        places = np.flatnonzero(bins)
        return places + low, np.cumsum(bins[places])
    values, neurons = np.unique(counts.astype(np.int64), return_counts=True)
    return values, np.cumsum(neurons)


def _subtract_cdfs(x: np.ndarray, y: np.ndarray, kx: int, ky: int) -> Difference:
    """Compute |F_x - F_y| on the host."""
    n, m = x.size, y.size
    unit, total = math.lcm(kx, ky), math.lcm(n, m)
    # Their product bounds every sum; beyond 64 bits, use Python's integers.
    kind = np.int64 if unit * total < 2**62 else object
    low = min(int(x.min()), int(y.min()))
    span = max(int(x.max()), int(y.max())) - low
    if kx == ky and _prefer_histogram(span, n + m):
        gaps = None
        below_x, below_y = (
            np.cumsum(_count_bins(counts, low, span)) for counts in (x, y)
        )
    else:
        at_x, passed_x = _tabulate(x)
        at_y, passed_y = _tabulate(y)
        at_x, at_y = at_x.astype(kind) * (unit // kx), at_y.astype(kind) * (unit // ky)
        # A stable sort merges two sorted runs.
        at = np.sort(np.concatenate([at_x, at_y]), kind="stable")
        gaps = np.diff(at)
        # Between equal rates there is no interval.
        at, gaps = at[:-1][gaps > 0], gaps[gaps > 0]
        below_x, below_y = (
            np.append(0, passed)[np.searchsorted(values, at, "right")]
            for values, passed in ((at_x, passed_x), (at_y, passed_y))
        )
    below_x, below_y = (below.astype(kind, copy=False) for below in (below_x, below_y))
    apart = np.abs(below_x * (total // n) - below_y * (total // m))
    return Difference(apart, gaps, total, unit)


def _subtract_traced_cdfs(x: Array, y: Array, kx: int, ky: int) -> Difference:
    """Compute |F_x - F_y| inside ``jit``, as limbs."""
    n, m = x.size, y.size
    unit, total = math.lcm(kx, ky), math.lcm(n, m)
    if _prefer_histogram(kx + ky, n + m, ratio=32):
        of_x, of_y, lengths, _ = merge_breakpoints(kx, ky)
        gaps = None if kx == ky else _int_limbs.split_limbs(lengths)
        below_x, below_y = (
            jnp.cumsum(jnp.bincount(counts, length=k + 1).astype(jnp.int32))[at]
            for counts, k, at in ((x, kx, of_x), (y, ky, of_y))
        )
    else:
        below_x, below_y, gaps = _sort_jointly(x, y, unit // kx, unit // ky)

    def scale(below, times):
        limbs = _int_limbs.split_limbs(below)
        if times == 1:
            return limbs
        return _int_limbs.multiply(
            limbs, _int_limbs.split_limbs(np.asarray(times, np.int64))
        )

    apart = _int_limbs.absolute_difference(
        *_equalize(scale(below_x, total // n), scale(below_y, total // m))
    )
    return Difference(apart, gaps, total, unit)


def _split(counts: Array) -> _int_limbs.Limbs:
    """Split counts of 32 or 64 bits into limbs that hold all of them."""
    return _int_limbs.split_limbs(counts, 3 if counts.dtype.itemsize <= 4 else 5)


def _sort_jointly(x: Array, y: Array, times_x: int, times_y: int):
    """Sort the rates of both, with the neurons up to each and the way to the next.

    Returns:
        Neurons of x, neurons of y, and limbs of the gaps, for each rate but the last.
    """
    of_x = jnp.concatenate([jnp.ones(x.size, jnp.int32), jnp.zeros(y.size, jnp.int32)])
    if times_x == times_y:
        # Valid counts are not negative, and JAX has no common type of int32 and uint32.
        dtype = jnp.uint32 if x.dtype.itemsize == y.dtype.itemsize == 4 else jnp.int64
        keys = [jnp.concatenate([x.astype(dtype), y.astype(dtype)])]
    else:  # in common units, which int32 may not hold

        def scale(counts, times):
            limbs = max(3, -(-times.bit_length() // 15))
            times = _int_limbs.split_limbs(np.asarray(times, np.int64), limbs)
            return _int_limbs.multiply(_split(counts), times)

        pair = _equalize(scale(x, times_x), scale(y, times_y))
        keys = [jnp.concatenate(each) for each in zip(*pair, strict=True)][::-1]
    *keys, of_x = jax.lax.sort((*keys, of_x), num_keys=len(keys))
    if times_x == times_y:
        gaps = _split(jnp.diff(keys[0]))
    else:
        limbs = keys[::-1]
        gaps = _int_limbs.absolute_difference(
            [limb[1:] for limb in limbs], [limb[:-1] for limb in limbs]
        )
    passed = jnp.cumsum(of_x)[:-1]
    return passed, jnp.arange(1, of_x.size, dtype=passed.dtype) - passed, gaps


def _equalize(x: _int_limbs.Limbs, y: _int_limbs.Limbs):
    """Append limbs of zero to the shorter number."""
    width = max(len(x), len(y))
    return tuple(c + [jnp.zeros_like(c[0])] * (width - len(c)) for c in (x, y))
