r"""Nearest levels in exact arithmetic.

Levels are :math:`K c / M` for whole numbers :math:`K` of one parity, so that the
boundaries between them are :math:`J c / M` for the :math:`J` of the other. A quotient
``x / step`` in floating point is rounded, and its step too, so that it may lie on the
wrong side of a boundary. Here the quotient only proposes the nearest boundary; the
exact sign of :math:`x M - J c`, by products without error, decides.

Source: Dekker, 1971, `A floating-point technique for extending the available precision
<https://doi.org/10.1007/BF01397083>`_. Halves are cut off by a mask and their products
are exact, so that fused multiply-adds change nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_LOW_BITS = {4: 12, 8: 27}  # of a float's bits, by its bytes


def smallest_scale(dtype) -> float:
    """Return the least scale whose levels are normal numbers, up to 16 bits."""
    return float(jnp.finfo(dtype).tiny) * 2.0**18


def as_integer(x: Any) -> Array:
    """Return the bits of a float32 or float64 as a whole number."""
    return jax.lax.bitcast_convert_type(x, np.dtype(f"int{8 * x.dtype.itemsize}"))


def _halves(x: Any) -> tuple[Array, Array]:
    bits = as_integer(x)
    mask = np.array(-1 << _LOW_BITS[x.dtype.itemsize], bits.dtype)
    high = jax.lax.bitcast_convert_type(bits & mask, x.dtype)
    return high, x - high


def multiply(a: Any, b: Any) -> tuple[Array, Array]:
    """Multiply without error: the rounded product and what it lacks."""
    a, b = jnp.asarray(a), jnp.asarray(b)
    product = a * b
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    return product, (((a1 * b1 - product) + a1 * b2) + a2 * b1) + a2 * b2


def normalize(scale: Any) -> tuple[Array, Array, Array]:
    """Return the scale times a power of 2, from 2 to 4; the power; and its inverse.

    A scale that is not positive counts as `smallest_scale`.
    """
    scale = jnp.maximum(scale, jnp.asarray(smallest_scale(scale.dtype), scale.dtype))
    exponent = jnp.frexp(scale)[1]
    one = jnp.ones_like(scale)
    up, down = jnp.ldexp(one, 2 - exponent), jnp.ldexp(one, exponent - 2)
    return scale * up, up, down


def divide(scale: Any, parts: Any) -> Array:
    """Divide a scale into whole parts, so that the product is the scale if possible.

    The quotient is rounded to a neighbour of the nearest number where that number times
    the parts is not the scale to the last bit and the neighbour's product is.
    """
    nearest = scale / parts
    above = jnp.nextafter(nearest, jnp.full_like(nearest, jnp.inf))
    below = jnp.nextafter(nearest, jnp.zeros_like(nearest))
    for other in (above, below):
        fits = (nearest * parts != scale) & (other * parts == scale)
        nearest = jnp.where(fits, other, nearest)
    return nearest


def divide_scale(scale: Any, parts: Any) -> Array:
    """Divide as `divide`, at any size of the scale: the step of `nearest_code`."""
    c, _, down = normalize(scale)
    return divide(c, parts) * down


def round_up_to_multiple(scale: Any, parts: Any) -> Array:
    """Return the least scale, not below, that is exactly a number times ``parts``."""
    c, _, down = normalize(scale)
    for _ in range(3):
        up = jnp.nextafter(c, jnp.full_like(c, jnp.inf))
        c = jnp.where(divide(c, parts) * parts == c, c, up)
    return c * down


def round_up_to_pow2(scale: Any) -> Array:
    """Return the least power of 2, not below a positive scale."""
    scale = jnp.asarray(scale)
    mantissa, exponent = jnp.frexp(scale)
    exponent = jnp.where(mantissa == 0.5, exponent - 1, exponent)
    return jnp.ldexp(jnp.ones_like(scale), exponent)


def nearest_code(
    x: Any,
    scale: Any,
    parts: Any,
    low: Any,
    high: Any,
    ties: str,
) -> tuple[Array, Array]:
    r"""Find the code K of the nearest level :math:`K c / M`, exactly.

    Args:
        x: any shape, float32 or float64.
        scale: c, positive; it and the rest broadcast to ``x``.
        parts: M, a whole number up to 2**17.
        low: the least code; the parity of ``high``.
        high: the greatest.
        ties: between two levels ``"up"``; ``"even"``, where K / 2 is even; or
            ``"even_index"``, where (K + M) / 2 is.

    Returns:
        K, and its level, K times `divide_scale`'s step.
    """
    c, up, down = normalize(scale)
    limit = (jnp.maximum(jnp.abs(low), high) + 4) / parts * c
    wide = jnp.clip(x * up, -limit, limit)
    y = wide * (parts / c) / 2
    # Boundaries are odd where K is even, and even where K is odd.
    j = 2 * jnp.floor(y) + 1 if ties == "even" else 2 * jnp.round(y)
    (x1, x2), (b1, b2) = multiply(wide, parts), multiply(j, c)
    sign = (x1 - b1) + (x2 - b2)
    if ties == "up":
        tie = True
    elif ties == "even":
        tie = jnp.mod((j + 1) / 2, 2) == 0
    else:
        tie = jnp.mod((j + 1 + parts) / 2, 2) == 0
    above = (sign > 0) | ((sign == 0) & tie)
    if ties != "even":
        # Below the normal numbers arithmetic sees 0; the sign is in the bits.
        bits = as_integer(x)
        negative = (bits < 0) & (bits != np.iinfo(bits.dtype).min)
        above = jnp.where(j == 0, ~negative, above) if ties == "up" else above
    code = jnp.clip(jnp.where(above, j + 1, j - 1), low, high)
    # j is NaN where x is; a clip keeps it.
    return code, code * divide(c, parts) * down
