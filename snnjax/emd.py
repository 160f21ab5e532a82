r"""Earth mover's distances between firing distributions.

Everything here is the 1-Wasserstein distance on the line, in the unit of its input
(rates: spikes per time step),

.. math:: W_1(u, v) = \int |F_u(r) - F_v(r)|\, dr = \int_0^1 |Q_u(s) - Q_v(s)|\, ds,

with :math:`F` the distribution functions and :math:`Q` the quantile functions. It asks
how the rates are distributed and not which neuron has which: compare
`firing.paired_shift`, which is never smaller.
"""

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _wide

Observations = int | np.integer | tuple[int | np.integer, int | np.integer]


def emd_from_counts(
    x_counts: ArrayLike, y_counts: ArrayLike, observations: Observations
) -> float | Array:
    r"""Exact W1 between firing rates given as spike counts.

    Rates are whole multiples of 1 / observations, so the distance is a sum of integers,

    .. math:: W_1 = \frac{1}{nmK} \sum_{k=0}^{K-1} |m C_x(k) - n C_y(k)|,

    with :math:`C(k)` the number of neurons that fired at most :math:`k` times, of
    :math:`n` and :math:`m`. Histograms instead of sorting: time and memory are
    linear in the neurons and in the observations.

    Outside ``jit`` it is exact (64-bit integers and one division, on the host). Inside
    it is float32 within 2e-7, from integer sums of any width. It is an integer function
    of integers, so there is no gradient: use `wasserstein_1d` on rates.

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
    pair = observations if isinstance(observations, tuple) else (observations,) * 2
    whole = [isinstance(k, (int, np.integer)) and k is not True for k in pair]
    if len(pair) != 2 or not all(whole) or min(pair) < 1:
        raise ValueError(
            "observations must be a whole number >= 1 (T x images) or a pair of them, "
            f"got {observations!r}"
        )
    kx, ky = (int(k) for k in pair)
    inputs = {"x_counts": x_counts, "y_counts": y_counts}
    for name, counts in inputs.items():
        if not jnp.issubdtype(jnp.result_type(counts), jnp.integer):
            raise ValueError(f"{name} must be integers, got {jnp.result_type(counts)}")
        if np.size(counts) == 0:
            raise ValueError(f"{name} is empty: a layer needs neurons")
    if any(isinstance(counts, jax.core.Tracer) for counts in inputs.values()):
        x, y = jnp.ravel(jnp.asarray(x_counts)), jnp.ravel(jnp.asarray(y_counts))
        return _traced_counts_w1(x, y, kx, ky)
    x, y = np.ravel(x_counts), np.ravel(y_counts)
    for name, counts, k in (("x_counts", x, kx), ("y_counts", y, ky)):
        if counts.min() < 0 or counts.max() > k:
            raise ValueError(
                f"{name} must lie within 0..{k} (observations), got "
                f"{counts.min()}..{counts.max()}"
            )
    return _host_counts_w1(x, y, kx, ky)


def _host_counts_w1(x: np.ndarray, y: np.ndarray, kx: int, ky: int) -> float:
    common = math.gcd(x.size, y.size)
    of_x, of_y, gaps, unit = _breakpoints(kx, ky)

    def cumulative(counts, k, at):
        counts = counts.astype(np.int64, copy=False)  # NumPy 2.0 counts no uint64
        return np.cumsum(np.bincount(counts, minlength=k + 1))[at]

    below_x, below_y = cumulative(x, kx, of_x), cumulative(y, ky, of_y)
    n, m = x.size // common, y.size // common
    denominator = x.size * m * unit
    # A bound on the sum; past 64 bits Python's own integers take over.
    kind = np.int64 if denominator < 2**62 else object
    moved = np.abs(below_x.astype(kind) * m - below_y.astype(kind) * n)
    return int(np.sum(moved * gaps.astype(kind))) / denominator


def _breakpoints(kx: int, ky: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Where either distribution function can step, below rate 1.

    Returns:
        For each interval between two such rates: the count of x and of y up to which it
        has passed, its length, and the number of such lengths in a rate of 1.
    """
    if kx == ky:
        steps = np.arange(kx)
        return steps, steps, np.ones(kx, np.int64), kx
    unit = math.lcm(kx, ky)
    at_x, at_y = unit // kx * np.arange(kx + 1), unit // ky * np.arange(ky + 1)
    at = np.union1d(at_x, at_y)
    left = at[:-1]
    return left // (unit // kx), left // (unit // ky), np.diff(at), unit


def _traced_counts_w1(x: Array, y: Array, kx: int, ky: int) -> Array:
    common = math.gcd(x.size, y.size)
    n, m = x.size // common, y.size // common
    of_x, of_y, gaps, unit = _breakpoints(kx, ky)
    # An int8 or uint16 count cannot be compared with 40,000.
    x, y = (c if c.dtype.itemsize >= 4 else c.astype(jnp.int32) for c in (x, y))

    def cumulative(counts, k, at, times):
        bins = jnp.bincount(counts, length=k + 1).astype(jnp.int32)
        limbs = _wide.split(jnp.cumsum(bins)[at])
        if times == 1:
            return limbs
        return _wide.multiply(limbs, _wide.split(np.asarray(times, np.int64)))

    cx = cumulative(x, kx, of_x, m)
    cy = cumulative(y, ky, of_y, n)
    if len(cx) != len(cy):
        width = max(len(cx), len(cy))
        cx, cy = (c + [jnp.zeros_like(c[0])] * (width - len(c)) for c in (cx, cy))
    moved = _wide.absolute_difference(cx, cy)
    if kx != ky:
        moved = _wide.multiply(moved, _wide.split(gaps))
    w1 = _wide.ratio(_wide.total(moved), x.size * m * unit)
    valid = jnp.all((x >= 0) & (x <= kx)) & jnp.all((y >= 0) & (y <= ky))
    return jnp.where(valid, w1, jnp.nan)


def wasserstein_1d(
    x: ArrayLike,
    y: ArrayLike,
    x_weights: ArrayLike | None = None,
    y_weights: ArrayLike | None = None,
) -> float | Array:
    r"""Exact W1 between two samples on the line.

    .. math:: W_1 = \int_0^1 |Q_x(s) - Q_y(s)|\, ds

    Gradient: by a sample, its mass times the sign of the way to its partner in the
    monotone coupling, and exactly 0 where the two coincide (``jax.grad(jnp.abs)(0.)``
    is 1, which on tied rates turns the gradient round). By the weights, up to a
    constant, the Kantorovich potential. Piecewise constant in ``x``: no second
    derivative. Where many rates are tied only those whose partners differ get a signal.

    Outside ``jit`` and ``grad`` it is computed in float64 on the host; inside it is
    within 1e-6 in float32.

    Args:
        x: samples ``[n]`` (other shapes are flattened).
        y: samples ``[m]``.
        x_weights: mass of each x, non-negative, normalised to 1; equal when None.
        y_weights: mass of each y.

    Returns:
        W1 in the unit of ``x``: a float, inside ``jit`` an array.

    Raises:
        ValueError: empty samples, weights of another shape; outside ``jit`` also NaN or
            infinity, weights negative or all zero. Inside ``jit`` those give NaN or
            infinity and, for negative weights, no meaning.

    >>> wasserstein_1d(np.array([0.0, 1.0]), np.array([0.5, 1.0]))
    0.25
    """
    arguments = (x, y, x_weights, y_weights)
    shapes = [None if a is None else np.shape(a) for a in arguments]
    for name, shape, weights in (("x", shapes[0], shapes[2]), ("y", *shapes[1::2])):
        if shape is not None and 0 in shape:
            raise ValueError(f"{name} is empty: a distribution needs samples")
        if weights is not None and weights != shape:
            raise ValueError(
                f"{name}_weights must have {name}'s shape {shape}, got {weights}"
            )
    if any(isinstance(a, jax.core.Tracer) for a in arguments):
        arrays = [None if a is None else jnp.ravel(jnp.asarray(a)) for a in arguments]
        return _traced_w1(*arrays)
    arrays = [
        None if a is None else np.ravel(np.asarray(a, np.float64)) for a in arguments
    ]
    for name, a in zip(("x", "y", "x_weights", "y_weights"), arrays, strict=True):
        if a is not None and not np.all(np.isfinite(a)):
            raise ValueError(f"{name} has NaN or infinite entries")
        if a is not None and "weights" in name and (a.min() < 0 or a.sum() <= 0):
            raise ValueError(f"{name} must be non-negative and not all zero")
    return _host_w1(*arrays)


def _host_w1(x, y, x_weights, y_weights) -> float:
    if x.size == y.size and x_weights is None and y_weights is None:
        return float(np.mean(np.abs(np.sort(x) - np.sort(y))))
    at = np.sort(np.concatenate([x, y]))

    def cdf(values, weights):
        order = np.argsort(values)
        passed = np.searchsorted(values[order], at[:-1], side="right")
        if weights is None:
            return passed / values.size
        mass = np.concatenate([[0.0], np.cumsum(weights[order])])
        return mass[passed] / mass[-1]

    return float(np.sum(np.abs(cdf(x, x_weights) - cdf(y, y_weights)) * np.diff(at)))


def _distance(difference: Array) -> Array:
    """|difference|, with gradient 0 at 0."""
    return difference * jax.lax.stop_gradient(jnp.sign(difference))


def _traced_w1(x, y, x_weights, y_weights) -> Array:
    dtype = jnp.promote_types(jnp.result_type(x, y), jnp.float32)
    x, y = x.astype(dtype), y.astype(dtype)
    # The monotone coupling: between two levels of either distribution function, all
    # mass goes from one x to one y.
    if x_weights is None and y_weights is None:
        x, y = jnp.sort(x), jnp.sort(y)
        if x.size == y.size:
            return jnp.mean(_distance(x - y))
        i, j, gaps, unit = _breakpoints(x.size, y.size)
        return jnp.sum(jnp.asarray(gaps / unit, dtype) * _distance(x[i] - y[j]))

    def quantiles(values, weights):
        weights = jnp.ones_like(values) if weights is None else weights.astype(dtype)
        # By weight too, where values are tied: equal clouds then have equal levels.
        values, weights = jax.lax.sort((values, weights), num_keys=2)
        return values, _cumulative_mass(weights)

    (x, x_levels), (y, y_levels) = quantiles(x, x_weights), quantiles(y, y_weights)
    level, rest = (
        jnp.concatenate(pair) for pair in zip(x_levels, y_levels, strict=True)
    )
    of_x = jnp.arange(level.size) < x.size
    level, rest, of_x = jax.lax.sort((level, rest, of_x.astype(jnp.int32)), num_keys=2)
    mass = jnp.diff(level, prepend=0) + jnp.diff(rest, prepend=0)
    passed = jnp.cumsum(of_x) - of_x
    i = jnp.minimum(passed, x.size - 1)
    j = jnp.minimum(jnp.arange(level.size) - passed, y.size - 1)
    return jnp.sum(mass * _distance(x[i] - y[j]))


def _cumulative_mass(weights: Array) -> tuple[Array, Array]:
    """Running sums of weights, normalised, as pairs: a float and what it leaves over.

    Where two distributions are close, all of W1 is in the digits that a plain sum of
    100,000 float32 numbers has lost.
    """
    dtype = jnp.finfo(weights.dtype)
    total = jnp.sum(weights)
    mass = weights / total

    def halves(value):
        head = jax.lax.reduce_precision(value, dtype.nexp, (dtype.nmant - 1) // 2)
        return head, value - head

    # What the division leaves over: the products of halves are exact.
    (m1, m2), (t1, t2) = halves(mass), halves(total)
    left = (((weights - m1 * t1) - m1 * t2) - m2 * t1) - m2 * t2
    # Multiples of eps sum without rounding, and the rest is small. It has the gradient.
    whole = jax.lax.stop_gradient(jnp.round(mass / dtype.eps) * dtype.eps)
    head = jnp.cumsum(whole)
    rest = jnp.cumsum((mass - whole) + jax.lax.stop_gradient(left / total))
    rest = rest - head * ((head[-1] - 1) + rest[-1])  # the rounding of the total
    level = head + rest
    return level, rest - (level - head)


def ott_wasserstein_1d(x: ArrayLike, y: ArrayLike) -> Array:
    """W1 through ott-jax's univariate solver: a second witness, and a bridge to OTT.

    The ground cost is our own |x - y|, with gradient 0 where points coincide: under
    ``value_and_grad`` ott-jax 0.6 returns wrong values for its norm-based costs there.

    Args:
        x: samples ``[n]`` (other shapes are flattened).
        y: samples ``[m]``.

    Returns:
        W1 in the unit of ``x``, a float32 scalar (float64 for float64 samples under
        x64), within about 1e-5 of the exact value. Slower than `wasserstein_1d`, which
        is to be preferred.

    Raises:
        ValueError: empty samples.

    Source: Cuturi et al., `OTT <https://arxiv.org/abs/2201.12324>`_, 2022.
    """
    from ott.geometry import pointcloud
    from ott.solvers import linear

    if 0 in (np.size(x), np.size(y)):
        raise ValueError("x or y is empty: a distribution needs samples")
    # In integers OTT's quantile solver would round the mass itself to 0.
    dtype = jnp.promote_types(jnp.result_type(x, y), jnp.float32)
    x, y = (jnp.ravel(jnp.asarray(a, dtype))[:, None] for a in (x, y))
    geometry = pointcloud.PointCloud(x, y, cost_fn=_absolute_cost())
    return linear.solve_univariate(geometry).ot_costs[0]


@functools.cache
def _absolute_cost():
    """OTT's translation-invariant cost |x - y|, with gradient 0 at 0."""
    from ott.geometry import costs

    @jax.tree_util.register_pytree_node_class
    class AbsoluteCost(costs.TICost):
        def h(self, z):  # pyrefly: ignore[bad-override]
            return jnp.sum(_distance(z))

    return AbsoluteCost()


def layer_emd(
    x_counts: Mapping[str, ArrayLike],
    y_counts: Mapping[str, ArrayLike],
    observations: Observations,
) -> dict[str, float | Array]:
    """`emd_from_counts` for every layer.

    Args:
        x_counts: ``{layer: counts}`` of one network.
        y_counts: the same layers of the other.
        observations: T x images, or a pair of them.

    Returns:
        ``{layer: W1}``.

    Raises:
        ValueError: the layers' names differ.
    """
    if set(x_counts) != set(y_counts):
        raise ValueError(
            "the two networks must have the same layers; only in one of them: "
            f"{sorted(set(x_counts) ^ set(y_counts))}"
        )
    return {
        name: emd_from_counts(x_counts[name], y_counts[name], observations)
        for name in x_counts
    }
