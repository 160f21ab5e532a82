"""Powers of two: levels that a chip multiplies by with a shift."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays, _checks
from snnjax._axes import match_varying_axes
from snnjax.quantize import checks, nearest


def check_bits(bits: object) -> None:
    """Raise ValueError unless bits is whole and from 2 to 5."""
    checks.require_bits(bits, 2, 5, "power_of_two")


def count_halvings(bits: ArrayLike) -> Array:
    """Count the halvings from the largest level to the least that is not 0."""
    bits = jnp.asarray(bits, jnp.float32)
    return jnp.ldexp(jnp.ones_like(bits), bits.astype(jnp.int32) - 1) - 2


def power_of_two(x: ArrayLike, *, bits: ArrayLike, clip: ArrayLike) -> Array:
    r"""Round to the nearest of 0 and :math:`\pm c\, 2^{-k}`.

    .. math:: \hat x \in \{0\} \cup \{\pm c\, 2^{-k} : k = 0, \dots, 2^{b-1} - 2\}

    :math:`2^b - 1` levels, dense near 0, where most weights lie; 2 bits are ternary.
    The level is the nearest one in exact arithmetic; a tie goes away from 0. Gradient
    by ``x``: 1 up to the clip, its edges included, 0 beyond; 0 by ``bits`` and
    ``clip``.

    Args:
        x: weights, any shape, floating point.
        bits: 2 to 5: the least level of 5 bits is :math:`2^{-14} c`; traced.
        clip: the largest level, positive; traced, or broadcastable to ``x``.

    Returns:
        Levels in the shape and dtype of ``x``. NaN stays NaN.

    Raises:
        ValueError: bits or clip out of range or not broadcastable, integer ``x``.

    Source: Zhou et al., `Incremental Network Quantization
    <https://arxiv.org/abs/1702.03044>`_, 2017, section 3.1. Differs from the paper in:
    c need not be a power of 2, all :math:`2^b - 1` levels are used, and no weights are
    held fixed in training.

    >>> power_of_two(jnp.array([-3.0, 0.1, 0.3, 0.4]), bits=3, clip=1.0).tolist()
    [-1.0, 0.0, 0.25, 0.5]
    """
    check_bits(bits)
    _checks.require_positive("clip", clip)
    x = _checks.require_floating("x", x)
    _checks.require_broadcast("bits", bits, "x", x.shape)
    _checks.require_broadcast("clip", clip, "x", x.shape)
    work = _arrays.compute_dtype(x)
    numbers = (_arrays.match_rank(jnp.asarray(a, work), x.ndim) for a in (bits, clip))
    return _powers(*match_varying_axes(x.astype(work), *numbers)).astype(x.dtype)


@jax.custom_vjp
def _powers(x, bits, clip):
    # With c and x scaled by the same power of 2, nothing under- or overflows.
    c, up, down = nearest.normalize(clip)
    least = count_halvings(bits).astype(jnp.int32)
    size = jnp.minimum(jnp.abs(x) * up, 2 * c)
    below = -jnp.frexp(size / c)[1]  # proposes a k; the true one is near
    found = jnp.zeros_like(size)
    for k in (below - 1, below, below + 1, below + 2):
        k = jnp.clip(k, 0, least)
        level = jnp.ldexp(jnp.broadcast_to(c, size.shape), -k)
        # The boundary under the level: halfway to the next one, or to 0.
        boundary = jnp.where(k == least, 0.5, 0.75).astype(c.dtype)
        found = jnp.maximum(found, jnp.where(_reaches(size, boundary, level), level, 0))
    # NaN compares as nothing.
    return jnp.where(jnp.isnan(x), x, jnp.copysign(found * down, x) + 0.0)


def _reaches(size: Array, share: Array, level: Array) -> Array:
    """Compare ``size >= share * level`` exactly: the product may be rounded."""
    product, rest = nearest.multiply(level, share)
    return (size - product) - rest >= 0


def _powers_fwd(x, bits, clip):
    return _powers(x, bits, clip), (jnp.abs(x) <= clip, bits, clip)


def _powers_bwd(residuals, cotangent):
    inside, bits, clip = residuals
    straight = jnp.where(inside, cotangent, 0)
    return straight, jnp.zeros_like(bits), jnp.zeros_like(clip)


_powers.defvjp(_powers_fwd, _powers_bwd)


def to_places(codes: np.ndarray) -> np.ndarray:
    """Return the signed places of codes ``+-2**m``, m + 1; 0 stays 0."""
    return np.sign(codes) * np.frexp(np.abs(codes).astype(np.float64))[1]


def from_places(places: np.ndarray) -> np.ndarray:
    """Return the codes of `to_places`."""
    size = np.where(places == 0, 0, 1 << np.maximum(np.abs(places) - 1, 0))
    return np.sign(places) * size
