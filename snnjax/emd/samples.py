"""Exact Wasserstein distances between samples on the line, with subgradients.

On the line the cheapest coupling keeps the order: between two neighbouring levels of
the distribution functions all mass moves from one x to one y. `couple_quantiles`
finds it on the host, `_traced_cost` inside ``jit``.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays, _checks
from snnjax.emd import _sorting
from snnjax.emd.counts import merge_breakpoints


def wasserstein_1d(
    x: ArrayLike,
    y: ArrayLike,
    x_weights: ArrayLike | None = None,
    y_weights: ArrayLike | None = None,
) -> float | Array:
    r"""Compute the exact W1 between two samples on the line.

    .. math:: W_1 = \int_0^1 |Q_x(s) - Q_y(s)|\, ds

    Gradient: by a sample, its mass times the sign of its way from its partner in the
    monotone coupling, and exactly 0 where the two coincide (``jax.grad(jnp.abs)(0.)``
    is 1, which on tied rates turns the gradient round). By the weights, up to a
    constant, a Kantorovich potential, which need not be 0 where equal distributions
    have other samples (`histogram_emd`'s is). Piecewise constant in ``x``: no second
    derivative. Where many rates are tied only those whose partners differ get a signal,
    the same however far they are: for training see `wasserstein_p_1d` with p = 2 and
    `soft_cdf_distance` too.

    Outside ``jit`` and ``grad`` it is computed in float64 on the host; inside it is
    within 5e-6 of the largest sample in float32, which rounds integers beyond 2**24
    (counts go into `emd_from_counts`).

    Args:
        x: samples ``[n]`` (other shapes are flattened).
        y: samples ``[m]``.
        x_weights: mass of each x, non-negative, normalised to 1; equal when None.
        y_weights: mass of each y.

    Returns:
        W1 in the unit of ``x``: a float, inside ``jit`` an array.

    Raises:
        ValueError: empty samples, weights of another shape; outside ``jit`` also NaN or
            infinity, weights negative or all zero. Inside ``jit`` those give NaN.

    >>> wasserstein_1d(np.array([0.0, 1.0]), np.array([0.5, 1.0]))
    0.25
    """
    traced, arrays = _prepare_samples(x, y, x_weights, y_weights)
    if traced:
        return _mask_infinite(_traced_cost(*arrays, p=1))
    return _require_finite(_host_w1(*arrays))


def wasserstein_p_1d(
    x: ArrayLike,
    y: ArrayLike,
    x_weights: ArrayLike | None = None,
    y_weights: ArrayLike | None = None,
    *,
    p: float | int,
) -> float | Array:
    r"""Compute the p-Wasserstein distance on the line, to the power p.

    .. math:: W_p^p = \int_0^1 |Q_x(s) - Q_y(s)|^p\, ds

    The power is returned, as POT does, because the root has no gradient where the
    samples are equal: take ``w ** (1 / p)`` to show it.

    Gradient: by a sample with mass m, :math:`m\, p\, |d|^{p-1}` times the sign of its
    way d from its partner: for p > 1 the farther, the stronger; 0 where they coincide,
    where for p < 2 there is no second derivative.

    Args:
        x: as of `wasserstein_1d`.
        y: as of `wasserstein_1d`.
        x_weights: as of `wasserstein_1d`.
        y_weights: as of `wasserstein_1d`.
        p: the power, a Python number of at least 1; static.

    Returns:
        The p-th power, in the unit of ``x`` to the power p.

    Raises:
        ValueError: as `wasserstein_1d`; p below 1, where the order-keeping coupling is
            no longer the cheapest.

    >>> wasserstein_p_1d(np.array([0.0, 1.0]), np.array([0.5, 1.0]), p=2)
    0.125
    """
    if not isinstance(p, (int, float, np.number)) or not 1 <= p < np.inf:
        raise ValueError(f"p must be a finite number >= 1, got {p!r}")
    traced, arrays = _prepare_samples(x, y, x_weights, y_weights)
    if traced:
        return _mask_infinite(_traced_cost(*arrays, p=p))
    way = couple_quantiles(*arrays)
    with np.errstate(over="ignore"):
        return _require_finite(float(np.sum(way.mass * np.abs(way.x - way.y) ** p)))


def _prepare_samples(*arguments) -> tuple[bool, Any]:
    """Return if any argument is traced, and flat arrays (float64 if none is)."""
    for name, a in zip(("x", "y", "x_weights", "y_weights"), arguments, strict=True):
        if a is not None or "weights" not in name:
            _checks.require_real(name, a)
    shapes = [None if a is None else np.shape(a) for a in arguments]
    for name, shape, weights in (("x", shapes[0], shapes[2]), ("y", *shapes[1::2])):
        if shape is not None and 0 in shape:
            raise ValueError(f"{name} is empty: a distribution needs samples")
        if weights is not None and weights != shape:
            raise ValueError(
                f"{name}_weights must have {name}'s shape {shape}, got {weights}"
            )
    if any(isinstance(a, jax.core.Tracer) for a in arguments):
        return True, _map_given(
            arguments, lambda a: jnp.ravel(prevent_constant_folding(a))
        )
    arrays = _map_given(arguments, lambda a: np.ravel(np.asarray(a, np.float64)))
    for name, a in zip(("x", "y", "x_weights", "y_weights"), arrays, strict=True):
        if a is not None and not np.all(np.isfinite(a)):
            raise ValueError(f"{name} has NaN or infinite entries")
        if a is not None and "weights" in name and (a.min() < 0 or a.max() <= 0):
            raise ValueError(f"{name} must be non-negative and not all zero")
    # The sum of the largest floats would be infinite; a power of 2 is exact.
    x_weights, y_weights = _map_given(
        arrays[2:], lambda a: np.ldexp(a, -np.frexp(a.max())[1])
    )
    return False, (*arrays[:2], x_weights, y_weights)


def prevent_constant_folding(a: ArrayLike) -> Array:
    """Convert to an array inside ``jit`` that XLA does not treat as a constant.

    Sorting a closed-over reference at compile time takes XLA seconds, and rounds
    differently from the compiled program.
    """
    if isinstance(a, jax.core.Tracer):
        return a
    return jax.lax.optimization_barrier(jnp.asarray(a))


def sample_dtype(x: ArrayLike, y: ArrayLike) -> jnp.dtype:
    """Return float32 or a wider sample dtype; JAX's default float for integers."""
    dtypes = [jnp.result_type(a) for a in (x, y)]
    floating = all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes)
    least = jnp.float32 if floating else jnp.result_type(float)
    return _arrays.promote_dtypes(*dtypes, least)


def _map_given(arguments, change):
    return tuple(None if a is None else change(a) for a in arguments)


def _mask_infinite(w: Array) -> Array:
    return jnp.where(jnp.isfinite(w), w, jnp.nan)


def _require_finite(w: float) -> float:
    if not np.isfinite(w):
        raise ValueError("x and y are too far apart for float64; scale them down")
    return w


@np.errstate(over="ignore", invalid="ignore")
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


class Coupling(NamedTuple):
    """Coupling: masses, each with its start x and its end y."""

    x: np.ndarray
    y: np.ndarray
    mass: np.ndarray


def couple_quantiles(x, y, x_weights=None, y_weights=None) -> Coupling:
    """Couple two samples in order, in float64 on the host."""
    if x_weights is None and y_weights is None:
        x, y = np.sort(x), np.sort(y)
        i, j, gaps, unit = merge_breakpoints(x.size, y.size)
        return Coupling(x[i], y[j], gaps / unit)

    def quantiles(values, weights):
        order = np.argsort(values)
        weights = np.ones(values.size) if weights is None else weights[order]
        mass = np.cumsum(weights)
        return values[order], mass / mass[-1]

    (x, x_levels), (y, y_levels) = quantiles(x, x_weights), quantiles(y, y_weights)
    levels = np.sort(np.concatenate([x_levels, y_levels]))
    below = np.concatenate([[0.0], levels[:-1]])
    i, j = (np.searchsorted(at, below, side="right") for at in (x_levels, y_levels))
    i, j = np.minimum(i, x.size - 1), np.minimum(j, y.size - 1)
    return Coupling(x[i], y[j], levels - below)


def absolute_value(difference: Array) -> Array:
    """Compute |difference|, with gradient 0 at 0."""
    return difference * jax.lax.stop_gradient(jnp.sign(difference))


def _traced_cost(x, y, x_weights, y_weights, p: float | int) -> Array:
    dtype = sample_dtype(x, y)
    x, y = x.astype(dtype), y.astype(dtype)

    def cost(difference):
        if p == 2:
            return difference * difference
        away = absolute_value(difference)
        return away if p == 1 else away**p

    if x_weights is None and y_weights is None:
        x, y = _sorting.sort(x), _sorting.sort(y)
        if x.size == y.size:
            costs = cost(x - y)
            # The sum may overflow where the mean does not; a power of 2 is exact.
            large = jax.lax.stop_gradient(jnp.max(costs)) > 2.0**64
            scale = jnp.where(large, jnp.asarray(2.0**-64, dtype), 1)
            return jnp.mean(costs * scale) / scale
        i, j, gaps, unit = merge_breakpoints(x.size, y.size)
        return jnp.sum(jnp.asarray(gaps / unit, dtype) * cost(x[i] - y[j]))

    def quantiles(values, weights):
        weights = jnp.ones_like(values) if weights is None else weights.astype(dtype)
        # Negative masses are invalid and make the result NaN.
        weights = jnp.where(jnp.all(weights >= 0), weights, jnp.nan)
        # Sort ties by weight: equal clouds then have equal levels.
        values, weights = jax.lax.sort((values, weights), num_keys=2)
        return values, accumulate_mass(weights)

    (x, x_levels), (y, y_levels) = quantiles(x, x_weights), quantiles(y, y_weights)
    level, rest = (
        jnp.concatenate(pair) for pair in zip(x_levels, y_levels, strict=True)
    )
    of_x = jnp.arange(level.size) < x.size
    level, rest, of_x = jax.lax.sort((level, rest, of_x.astype(jnp.int32)), num_keys=2)
    mass = jnp.diff(level, prepend=0) + jnp.diff(rest, prepend=0)
    passed = jnp.cumsum(of_x, dtype=jnp.int32) - of_x
    i = jnp.minimum(passed, x.size - 1)
    j = jnp.minimum(jnp.arange(level.size, dtype=jnp.int32) - passed, y.size - 1)
    return jnp.sum(mass * cost(x[i] - y[j]))


def accumulate_mass(weights: Array) -> tuple[Array, Array]:
    """Cumulate normalised masses over the last axis, as a float and its remainder.

    If two distributions are close, W1 lies in the digits that a plain sum of 100,000
    float32 numbers loses.
    """
    dtype = jnp.finfo(weights.dtype)
    # Scale to about 1 by a power of 2, which is exact: the derivative of the division
    # squares the total, and 1e-20 squared underflows.
    exponent = jnp.frexp(jnp.max(weights, axis=-1, keepdims=True))[1]
    exponent = jnp.clip(exponent, dtype.minexp + 2, dtype.maxexp - 2)
    weights = weights * jax.lax.stop_gradient(
        jnp.ldexp(jnp.ones((), weights.dtype), -exponent)
    )
    total = jnp.sum(weights, axis=-1, keepdims=True)
    mass = weights / total

    def halves(value):
        head = jax.lax.reduce_precision(value, dtype.nexp, (dtype.nmant - 1) // 2)
        return head, value - head

    # Remainder of the division: the products of halves are exact.
    (m1, m2), (t1, t2) = halves(mass), halves(total)
    left = (((weights - m1 * t1) - m1 * t2) - m2 * t1) - m2 * t2
    # Multiples of eps sum without rounding; the small rest carries the gradient.
    whole = jax.lax.stop_gradient(jnp.round(mass / dtype.eps) * dtype.eps)
    head = jnp.cumsum(whole, axis=-1)
    rest = (mass - whole) + jax.lax.stop_gradient(left / total)
    rest = jnp.cumsum(rest, axis=-1)
    # Correct the rounding error of the total.
    rest = rest - head * ((head[..., -1:] - 1) + rest[..., -1:])
    level = head + rest
    return level, rest - (level - head)
