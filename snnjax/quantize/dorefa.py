"""DoReFa: weights squashed to [-1, 1] by their tanh, on a mid-rise grid."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays, _checks
from snnjax.quantize import checks
from snnjax.quantize.nearest import divide, nearest_code
from snnjax.quantize.straight_through import substitute


def check_bits(bits: object) -> None:
    """Raise ValueError unless bits is whole and from 1 to 16."""
    checks.require_bits(bits, 1, 16, "dorefa")


def dorefa(w: ArrayLike, *, bits: ArrayLike) -> Array:
    r"""Quantize weights by DoReFa.

    .. math::
        \hat w &= 2\, q_b\!\left(\frac{\tanh w}{2 \max |\tanh w|} + \frac12\right) - 1,
        \quad q_b(x) = \frac{\mathrm{round}((2^b - 1) x)}{2^b - 1} && b > 1 \\
        \hat w &= \mathrm{sign}(w) \, \langle |w| \rangle && b = 1

    The maximum and the mean are over all of ``w``. From the rounded tanh on, levels are
    decided in exact arithmetic; a tie goes to the even :math:`(2^b - 1) q_b`. There are
    :math:`2^b` levels from -1 to 1, none of them zero. Gradient: the rounding counts as
    the identity, tanh and maximum are differentiated; for 1 bit it is the identity.
    Zero by ``bits``. For activations the method is `uniform` on ``signed=False,
    grid="mid_tread", clip=1``.

    Args:
        w: weights, any shape, floating point.
        bits: 1 to 16; traced.

    Returns:
        Levels in the shape and dtype of ``w``. One NaN makes all of them NaN.

    Raises:
        ValueError: bits out of range or not broadcastable to ``w``, integer ``w``.

    Source: Zhou et al., `DoReFa-Net <https://arxiv.org/abs/1606.06160>`_, 2016, eqs. 9
    and 12, and tensorpack's code, where zero has sign 1.

    >>> [round(q, 3) for q in dorefa(jnp.array([-0.5, 0.1, 0.5]), bits=2).tolist()]
    [-1.0, 0.333, 1.0]
    """
    check_bits(bits)
    w = _checks.require_floating("w", w)
    _checks.require_broadcast("bits", bits, "w", w.shape)
    work = _arrays.compute_dtype(w)
    wide, bits = w.astype(work), _arrays.match_rank(jnp.asarray(bits, work), w.ndim)
    top = jnp.ldexp(jnp.ones_like(bits), bits.astype(jnp.int32)) - 1
    squashed = jnp.tanh(wide)
    largest = jnp.max(jnp.abs(squashed), initial=0)
    # Weights that are all zero lie in the middle, not at 0 / 0.
    largest = jnp.where(largest == 0, 1, largest)
    # Scale by a power of 2, which is exact: the gradient divides by the square of the
    # maximum, which underflows below 1e-19.
    power = jax.lax.stop_gradient(largest / (2 * jnp.frexp(largest)[0]))
    unit = (squashed / power) / (2 * (largest / power)) + 0.5
    top = jax.lax.stop_gradient(top)
    # Levels are whole numbers times 1 / top, and 1 at the ends.
    still = jax.lax.stop_gradient((squashed, largest, top, -top, top))
    code, _ = nearest_code(*still, "even_index")
    many = substitute(2 * top * unit - top, code) * divide(jnp.ones_like(top), top)
    scale = jax.lax.stop_gradient(jnp.mean(jnp.abs(wide)))
    one = _sign_through(wide, scale)
    return jnp.where(bits == 1, one, many).astype(w.dtype)


@jax.custom_vjp
def _sign_through(w: Array, scale: Array) -> Array:
    return jnp.where(w >= 0, scale, -scale)


_sign_through.defvjp(
    lambda w, scale: (_sign_through(w, scale), scale),
    lambda scale, cotangent: (cotangent, jnp.zeros_like(scale)),
)
