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
from snnjax.quantize import checks, nearest

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
    key: Array | None = None,
) -> Array:
    r"""Round to the nearest of equally spaced levels, straight-through inside the clip.

    With :math:`b` bits and clip :math:`c`:

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

    These formulas decide the level in exact arithmetic, at every representable input: a
    tie goes to the even code on mid-tread and up on mid-rise (there -0 counts as 0).
    The level itself is the code times the rounded :math:`\Delta`; the top level is
    always ``clip``. Mid-rise has ``2**bits`` levels and no zero;
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
        key: round stochastically with this random key: up or down with the
            probabilities that make the mean ``x``, within the clip.

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
    noise = None
    if key is not None:
        noise = jax.random.uniform(key, x.shape, work) - 0.5
    return _uniform(*match_varying_axes(x, *numbers), noise, signed, grid)


def count_parts(bits: Array, *, signed: bool, grid: str) -> Array:
    """Count the parts M of the clip, of which every level is a whole multiple.

    Levels are ``K * clip / M``, with K even on mid-tread and odd on mid-rise.
    """
    levels = jnp.ldexp(jnp.ones_like(bits), bits.astype(jnp.int32))
    if grid == "mid_tread":
        return levels - 2 if signed else 2 * levels - 2
    return levels - 1 if signed else 2 * levels - 1


def round_clip_to_pow2(clip: Array, bits: Array, *, signed: bool, grid: str) -> Array:
    """Return the least clip, not below ``clip``, whose step is a power of 2."""
    parts = count_parts(bits, signed=signed, grid=grid)
    c, _, down = nearest.normalize(clip)
    power = jnp.ones_like(c)
    # 2 to 4 over 1 to 2**17 parts: the power is from 2**-16 to 4.
    _, exponent = jnp.frexp(c / parts)
    power = jnp.ldexp(power, exponent - 1)
    # The quotient is rounded, the product of a power of 2 is exact.
    power = jnp.where(power * parts < c, 2 * power, power)
    power = jnp.where(power * parts >= 2 * c, power / 2, power)
    return power * parts * down


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _uniform(x, bits, clip, noise, signed, grid):
    parts = count_parts(bits, signed=signed, grid=grid)
    tread = grid == "mid_tread"
    low = -parts if signed else jnp.full_like(parts, 0 if tread else 1)
    wide = x.astype(clip.dtype)
    if noise is not None:
        least = -clip if signed else jnp.zeros_like(clip)
        wide = jnp.clip(wide, least, clip) + noise * (2 * clip / parts)
    ties = "even" if tread else "up"
    code, level = nearest.nearest_code(wide, clip, parts, low, parts, ties)
    # The product may round to a neighbour of clip, below a threshold equal to clip.
    level = jnp.where(jnp.abs(code) == parts, jnp.copysign(clip, code), level)
    return level.astype(x.dtype)


def _uniform_fwd(x, bits, clip, noise, signed, grid):
    wide = x.astype(clip.dtype)
    inside = jnp.abs(wide) <= clip
    inside = inside if signed else inside & (wide >= 0)
    return _uniform(x, bits, clip, noise, signed, grid), (inside, bits, clip, noise)


def _uniform_bwd(signed, grid, residuals, cotangent):
    inside, bits, clip, noise = residuals
    straight = jnp.where(inside, cotangent, 0)
    still = None if noise is None else jnp.zeros_like(noise)
    return straight, jnp.zeros_like(bits), jnp.zeros_like(clip), still


_uniform.defvjp(_uniform_fwd, _uniform_bwd)
