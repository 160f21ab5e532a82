"""Rounding with straight-through gradients.

A quantizer is a range, a rounding and a gradient rule. This module has the rounding and
the rules; `lsq`, `dorefa` and `mint` add their ranges.
"""

import jax
import jax.numpy as jnp
from jax import Array

from snnjax._axes import match_varying_axes


@jax.custom_vjp
def round_through(x: Array) -> Array:
    """Round to the nearest whole number, ties to even; the gradient is the identity."""
    return jnp.round(x)


round_through.defvjp(lambda x: (jnp.round(x), None), lambda _, cotangent: (cotangent,))


def round_within(x: Array, step: Array, low: Array, high: Array, share: Array) -> Array:
    r"""Round to a level :math:`s \cdot \mathrm{round}(\mathrm{clip}(x / s, l, h))`.

    Gradient by ``x``: 1 for :math:`l \le x / s \le h`, else 0. By the step
    (`lsq`'s rule): :math:`\mathrm{round}(x / s) - x / s` inside and the edge, :math:`l`
    or :math:`h`, outside, summed over elements that share the step, times ``share``.
    """
    return _round_within(*match_varying_axes(x, step, low, high, share))


@jax.custom_vjp
def _round_within(x, step, low, high, share):
    return jnp.round(jnp.clip(x / step, low, high)) * step


def _round_within_fwd(x, step, low, high, share):
    return _round_within(x, step, low, high, share), (x, step, low, high, share)


def _round_within_bwd(residuals, cotangent):
    x, step, low, high, share = residuals
    y = x / step
    inside = (low <= y) & (y <= high)
    clipped = jnp.clip(y, low, high)
    by_x = jnp.where(inside, cotangent, 0)
    by_step = cotangent * (jnp.round(clipped) - jnp.where(inside, y, 0)) * share
    zeros = (jnp.zeros_like(low), jnp.zeros_like(high), jnp.zeros_like(share))
    return by_x, _sum_to(by_step, step.shape), *zeros


_round_within.defvjp(_round_within_fwd, _round_within_bwd)


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Sum over the axes along which ``shape`` was broadcast to ``x``'s."""
    lead = x.ndim - len(shape)
    stretched = [lead + i for i, size in enumerate(shape) if size != x.shape[lead + i]]
    return jnp.sum(x, (*range(lead), *stretched)).reshape(shape)
