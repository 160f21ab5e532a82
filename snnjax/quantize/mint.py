"""MINT: weights and membranes squashed by tanh, with one learned scale."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays, _checks
from snnjax.quantize import checks
from snnjax.quantize.straight_through import round_within


def check_bits(bits: object) -> None:
    """Raise ValueError unless bits is whole and from 2 to 16."""
    checks.require_bits(bits, 2, 16, "mint")


def _top_code(bits: Array) -> Array:
    return jnp.ldexp(jnp.ones_like(bits), bits.astype(jnp.int32) - 1) - 1


def mint(x: ArrayLike, scale: ArrayLike, *, bits: ArrayLike) -> Array:
    r"""Quantize weights or membranes by MINT.

    .. math:: \hat x = \frac{a}{Q} \,
        \mathrm{round}\!\left(Q \, \mathrm{clip}(\tanh(x) / a, -1, 1)\right), \quad
        Q = 2^{b-1} - 1

    The level of the rounded tanh is decided in exact arithmetic; a tie goes to the even
    code. Levels are multiples of :math:`a / Q`, zero among them; 2 bits are ternary.
    Differs from the paper in: there a layer's weights and the membranes they feed share
    one scale, so that on the chip both are plain integers; give both the same ``scale``
    for that. `layers` learns one for each.

    Gradient by ``x``: that of tanh inside the clip, 0 outside; by the scale as `lsq`'s
    by its step, ``scale / Q``, times :math:`1 / \sqrt{N Q}`. Zero by ``bits``.

    Args:
        x: weights, or the membrane after reset and leak (MINT stores the leaked
            potential, and so does `layers.Spiking`), any shape, floating point.
        scale: :math:`a`, positive; one number, or broadcastable to ``x``.
        bits: 2 to 16; traced.

    Returns:
        Levels in the shape and dtype of ``x``. NaN stays NaN.

    Raises:
        ValueError: bits out of range, scale not positive, integer ``x``; bits or scale
            that do not broadcast to it.

    Source: Yin et al., `MINT <https://arxiv.org/abs/2305.09850>`_, 2024, and its
    published code.

    >>> mint(jnp.array([-2.0, 0.1, 0.4]), 0.5, bits=2).tolist()
    [-0.5, 0.0, 0.5]
    """
    check_bits(bits)
    if not isinstance(scale, Array):
        _checks.require_positive("scale", scale)
    x = _checks.require_floating("x", x)
    _checks.require_broadcast("scale", scale, "x", x.shape)
    _checks.require_broadcast("bits", bits, "x", x.shape)
    work = _arrays.compute_dtype(x)
    bits, scale = (
        _arrays.match_rank(jnp.asarray(a, work), x.ndim) for a in (bits, scale)
    )
    top = _top_code(bits)
    share = 1 / jnp.sqrt(x.size * top)
    wide = round_within(jnp.tanh(x.astype(work)), scale, top, -top, top, share)
    return wide.astype(x.dtype)


def mint_init(w: ArrayLike, *, bits: ArrayLike) -> Array:
    r"""Compute MINT's initial scale, :math:`a_0 = 2 \langle |w| \rangle \sqrt Q`.

    Its step :math:`a_0 / Q` is `lsq_init`'s, so that more bits leave less error.
    Differs from the published code in: there the formula of LSQ's step is the scale
    itself, which at 8 bits and more cuts most weights.

    Args:
        w: weights.
        bits: as in `mint`.

    Returns:
        One number, float32 at least; 1 where all of ``w`` is 0.

    Raises:
        ValueError: bits out of range, integer ``w``.

    Source: Esser et al., `Learned Step Size Quantization
    <https://arxiv.org/abs/1902.08153>`_, 2020, section 2.1.
    """
    check_bits(bits)
    w = _checks.require_floating("w", w)
    checks.require_nonempty("w", w)
    work = _arrays.compute_dtype(w)
    top = _top_code(jnp.asarray(bits, work))
    scale = 2 * jnp.mean(jnp.abs(w.astype(work))) * jnp.sqrt(top)
    return jnp.where(scale == 0, 1, scale)
