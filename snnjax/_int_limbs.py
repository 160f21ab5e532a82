"""Exact arithmetic on integers wider than 32 bits, without x64.

A million neurons at 40,000 observations give sums near 2**36, which int32 does not
hold, and JAX has no int64 unless x64 is on. A number here is a list of int32 limbs of
15 bits, least first; products of two limbs and their carries fit into int32.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

_BITS = 15
_MASK = (1 << _BITS) - 1
Limbs = list[Array]


def split_limbs(x: Array | np.ndarray, limbs: int = 3) -> Limbs:
    """Split non-negative int32 (or, with numpy, int64) values into limbs."""
    digits = ((x >> (_BITS * i)) & _MASK for i in range(limbs))
    return [jnp.asarray(digit, jnp.int32) for digit in digits]


def propagate_carries(x: Limbs) -> Limbs:
    """Bring every limb but the last into 0..2**15 - 1; the last takes the sign."""
    out, over = [], 0
    for limb in x[:-1]:
        limb = limb + over
        out.append(limb & _MASK)
        over = limb >> _BITS  # arithmetic: rounds towards minus infinity
    return [*out, x[-1] + over]


def multiply(x: Limbs, y: Limbs) -> Limbs:
    """Multiply carried, non-negative numbers."""
    total: Limbs = [jnp.zeros((), jnp.int32)] * (len(x) + len(y))
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            product = a * b  # below 2**30
            total[i + j] = total[i + j] + (product & _MASK)
            total[i + j + 1] = total[i + j + 1] + (product >> _BITS)
    return propagate_carries(total)


def absolute_difference(x: Limbs, y: Limbs) -> Limbs:
    """Compute |x - y| of carried numbers with equally many limbs."""
    difference = propagate_carries([a - b for a, b in zip(x, y, strict=True)])
    sign = jnp.where(difference[-1] < 0, -1, 1)
    return propagate_carries([sign * limb for limb in difference])


def sum_limbs(x: Limbs) -> Limbs:
    """Sum carried numbers over their axis; the carried result has one more limb."""
    x = [*x, jnp.zeros_like(x[0])]
    while x[0].shape[0] > 1:
        # At most 2**15 limbs of 15 bits at a time: their sum stays below 2**30.
        n = x[0].shape[0]
        width = min(n, _MASK)
        pad = -n % width
        x = propagate_carries(
            [jnp.pad(limb, (0, pad)).reshape(-1, width).sum(1) for limb in x]
        )
    return [limb[0] for limb in x]


def divide(x: Limbs, denominator: int) -> Array:
    """Divide a carried number within 0..denominator by it, in float32.

    The error is below 2e-7: the leading part of the number and its remainder are summed
    separately in float32, and the rounding error of the reciprocal is corrected.
    """
    exponent = denominator.bit_length()
    # Multiply: compilers turn a division into a product, some of them inexactly.
    exact = 2**exponent / denominator  # within (1, 2]
    scale = np.float32(exact)
    correction = np.float32((exact - float(scale)) / exact)
    value = jnp.zeros((), jnp.float32)
    error = jnp.zeros((), jnp.float32)
    # From the top limb down; limbs past the denominator's are zero.
    for i in reversed(range(min(len(x), exponent // _BITS + 1))):
        term = x[i].astype(jnp.float32) * np.float32(2.0 ** (_BITS * i - exponent))
        new = value + term
        error = error + ((value - new) + term)  # exact: value is 0 or above term
        value = new
    head = value * scale
    return jnp.minimum(head + (error * scale + head * correction), 1)
