"""Uniform quantization on a fixed clip, on two grids.

The grid matters more than the method. Mid-tread has a zero level and rounds small
values to it: weights vanish under a wide clip. Mid-rise has no zero: at few bits it
keeps only the sign, and BatchNorm corrects the scale.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays, _checks
from snnjax._axes import match_varying_axes
from snnjax.quantize import checks

GRIDS = ("mid_rise", "mid_tread")


def check_numbers(*, bits: object, clip: object, grid: str) -> None:
    """Check Python and NumPy numbers; JAX arrays may be traced and are skipped.

    Raises:
        ValueError: unknown grid, bits outside 1..16 (mid-tread: 2..16) or not whole,
            clip not positive.
    """
    _checks.require_one_of("grid", grid, GRIDS)
    least = 2 if grid == "mid_tread" else 1
    checks.require_bits(bits, least, 16, f"the {grid} grid")
    _checks.require_positive("clip", clip)


def uniform(
    x: ArrayLike,
    *,
    bits: ArrayLike,
    clip: ArrayLike,
    signed: bool = True,
    grid: str = "mid_rise",
) -> Array:
    r"""Round to the nearest of equally spaced levels, straight-through inside the clip.

    With :math:`b` bits and clip :math:`c`, and ties rounded to even on mid-tread:

    .. math::
        \text{mid-tread, signed:} \quad & Q = 2^{b-1} - 1,\; \Delta = c / Q,\quad
            \hat x = \Delta \,\mathrm{clip}(\mathrm{round}(x / \Delta), -Q, Q) \\
        \text{mid-tread, unsigned:} \quad & \Delta = c / (2^b - 1),\quad
            \hat x = \Delta \,\mathrm{clip}(\mathrm{round}(x / \Delta), 0, 2^b - 1) \\
        \text{mid-rise, signed:} \quad & \Delta = 2c / (2^b - 1),\quad \hat x = \Delta
            (\mathrm{clip}(\lfloor x / \Delta \rfloor, -2^{b-1}, 2^{b-1} - 1)
            + \tfrac12) \\
        \text{mid-rise, unsigned:} \quad & \Delta = c / (2^b - \tfrac12),\quad \hat x =
            \Delta (\mathrm{clip}(\lfloor x / \Delta \rfloor, 0, 2^b - 1) + \tfrac12)

    The top level is always ``clip``. Mid-rise has ``2**bits`` levels and no zero;
    mid-tread has a zero, and ``2**bits - 1`` levels when signed.

    Gradient: 1 for ``x`` within the clip, its edges included (``|x| <= clip``, or
    ``0 <= x <= clip`` unsigned), 0 outside; 0 by ``bits`` and ``clip``. Only that mask
    is kept for the backward pass.

    Args:
        x: any shape, floating point.
        bits: 1 to 16, mid-tread 2 to 16; traced, or broadcastable to ``x``.
        clip: positive bound; traced, or broadcastable to ``x`` (per channel).
        signed: levels from ``-clip`` to ``clip``, else from 0 to ``clip``.
        grid: ``"mid_rise"`` or ``"mid_tread"``.

    Returns:
        Nearest levels in the shape and dtype of ``x``. NaN stays NaN.

    Raises:
        ValueError: bits, clip or grid out of range, or integer ``x``.

    Source: the two grids are textbook (Gersho and Gray, 1992, ch. 5); straight-through:
    Bengio et al., 2013, `arXiv 1308.3432 <https://arxiv.org/abs/1308.3432>`_.

    >>> x = jnp.array([-2.0, 0.1, 0.6])
    >>> uniform(x, bits=2, clip=1.0, grid="mid_tread").tolist()
    [-1.0, 0.0, 1.0]
    """
    check_numbers(bits=bits, clip=clip, grid=grid)
    x = _checks.require_floating("x", x)
    _checks.require_broadcast("bits", bits, "x", x.shape)
    _checks.require_broadcast("clip", clip, "x", x.shape)
    work = _arrays.compute_dtype(x)
    numbers = (_arrays.match_rank(jnp.asarray(a, work), x.ndim) for a in (bits, clip))
    return _uniform(*match_varying_axes(x, *numbers), signed, grid)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _uniform(x, bits, clip, signed, grid):
    levels = jnp.ldexp(jnp.ones_like(bits), bits.astype(jnp.int32))
    shift = 0.0 if grid == "mid_tread" else 0.5
    top = (levels / 2 if signed else levels) - 1 + shift
    delta = clip / top
    y = x.astype(clip.dtype) / delta
    y = jnp.round(y) if grid == "mid_tread" else jnp.floor(y) + shift
    y = jnp.clip(y, -top if signed else shift, top)
    # delta * top may round to a neighbour of clip, below a threshold equal to clip.
    y = jnp.where(jnp.abs(y) == top, jnp.copysign(clip, y), delta * y)
    return y.astype(x.dtype)


def _uniform_fwd(x, bits, clip, signed, grid):
    wide = x.astype(clip.dtype)
    inside = jnp.abs(wide) <= clip
    inside = inside if signed else inside & (wide >= 0)
    return _uniform(x, bits, clip, signed, grid), (inside, bits, clip)


def _uniform_bwd(signed, grid, residuals, cotangent):
    inside, bits, clip = residuals
    straight = jnp.where(inside, cotangent, 0)
    return straight, jnp.zeros_like(bits), jnp.zeros_like(clip)


_uniform.defvjp(_uniform_fwd, _uniform_bwd)
