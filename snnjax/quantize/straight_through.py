"""Rounding with straight-through gradients.

A quantizer is a range, a rounding and a gradient rule. This module has the rounding and
the rules; `lsq`, `dorefa` and `mint` add their ranges.
"""

import jax
import jax.numpy as jnp
from jax import Array

from snnjax._axes import match_varying_axes
from snnjax.quantize.nearest import nearest_code, smallest_scale


@jax.custom_vjp
def round_through(x: Array) -> Array:
    """Round to the nearest whole number, ties to even; the gradient is the identity."""
    return jnp.round(x)


round_through.defvjp(lambda x: (jnp.round(x), None), lambda _, cotangent: (cotangent,))


@jax.custom_vjp
def substitute(x: Array, exact: Array) -> Array:
    """Return ``exact``; the gradient goes to ``x``, for which it stands."""
    return exact


substitute.defvjp(lambda x, exact: (exact, exact), lambda e, d: (d, jnp.zeros_like(e)))


def round_within(
    x: Array, scale: Array, parts: Array, low: Array, high: Array, share: Array
) -> Array:
    r"""Round to a level :math:`s \cdot \mathrm{round}(\mathrm{clip}(x / s, l, h))`.

    The step is :math:`s = c / Q`, for a ``scale`` c and ``parts`` Q. The code is the
    formula's in exact arithmetic, a tie goes to the even one. A scale that is not
    positive counts as the least one that is.

    Gradient by ``x``: 1 for :math:`l \le x / s \le h`, else 0. By the step
    (`lsq`'s rule): :math:`\mathrm{round}(x / s) - x / s` inside and the edge, :math:`l`
    or :math:`h`, outside, summed over elements that share the step, times ``share``; by
    the scale 1 / Q of that.
    """
    return _round_within(*match_varying_axes(x, scale, parts, low, high, share))


@jax.custom_vjp
def _round_within(x, scale, parts, low, high, share):
    return _codes_and_levels(x, scale, parts, low, high)[1]


def _codes_and_levels(x, scale, parts, low, high):
    code, level = nearest_code(x, scale, 2 * parts, 2 * low, 2 * high, "even")
    return code / 2, level


def _round_within_fwd(x, scale, parts, low, high, share):
    kept = (x, scale, parts, low, high, share)
    return _round_within(*kept), kept


def _round_within_bwd(residuals, cotangent):
    x, scale, parts, low, high, share = residuals
    least = jnp.asarray(smallest_scale(scale.dtype), scale.dtype)
    y = x / (jnp.maximum(scale, least) / parts)
    inside = (low <= y) & (y <= high)
    code, _ = _codes_and_levels(x, scale, parts, low, high)
    by_x = jnp.where(inside, cotangent, 0)
    by_step = cotangent * (code - jnp.where(inside, y, 0)) * share
    by_scale = _sum_to(by_step / parts, scale.shape)
    return by_x, by_scale, *map(jnp.zeros_like, (parts, low, high, share))


_round_within.defvjp(_round_within_fwd, _round_within_bwd)


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Sum over the axes along which ``shape`` was broadcast to ``x``'s."""
    lead = x.ndim - len(shape)
    stretched = [lead + i for i, size in enumerate(shape) if size != x.shape[lead + i]]
    return jnp.sum(x, (*range(lead), *stretched)).reshape(shape)
