"""LSQ: a uniform grid with zero whose step, and zero point, the gradient learns."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays, _checks
from snnjax.quantize import checks
from snnjax.quantize.straight_through import round_within


def check_bits(bits: object, *, signed: bool) -> None:
    """Raise ValueError unless bits is whole, from 2 (unsigned: 1) to 16."""
    sign = "signed" if signed else "unsigned"
    checks.require_bits(bits, 2 if signed else 1, 16, f"{sign} lsq")


def code_bounds(bits: Array, *, signed: bool) -> tuple[Array, Array]:
    """Compute the codes of the lowest and the highest level."""
    if signed:
        half = jnp.ldexp(jnp.ones_like(bits), bits.astype(jnp.int32) - 1)
        return -half, half - 1
    return jnp.zeros_like(bits), jnp.ldexp(jnp.ones_like(bits), bits.astype(int)) - 1


def lsq(
    x: ArrayLike,
    step: ArrayLike,
    *,
    bits: ArrayLike,
    signed: bool = True,
    zero_point: ArrayLike | None = None,
) -> Array:
    r"""Quantize by a learned step size (LSQ).

    .. math:: \hat x = s \, \mathrm{round}(\mathrm{clip}(x / s, -Q_N, Q_P)), \quad
        Q_N = 2^{b-1},\; Q_P = 2^{b-1} - 1

    or :math:`Q_N = 0, Q_P = 2^b - 1` unsigned, decided in exact arithmetic at
    every representable input; a tie goes to the even code. Gradient by
    ``x``: 1 inside the range, its edges included, 0 outside. By the step:

    .. math:: \frac{\partial \hat x}{\partial s} = \frac{1}{\sqrt{N Q_P}} \cdot
        \begin{cases} \mathrm{round}(x / s) - x / s & \text{inside} \\
        -Q_N \text{ or } Q_P & \text{outside} \end{cases}

    summed over the elements that share the step, with :math:`N` the size of all of
    ``x``. Zero by ``bits``.

    A zero point z in place of a sign, any real number, learns how many levels lie below
    zero, which always is a level: :math:`Q_N = \mathrm{round}(\mathrm{clip}(z, 0, 2^b -
    1))` and :math:`Q_P = 2^b - 1 - Q_N`. By it the gradient is :math:`-s / \sqrt{N Q}`
    for elements outside the range, 0 inside, with the :math:`Q_P` of ``signed``.

    Args:
        x: any shape, floating point.
        step: positive; one number, or broadcastable to ``x`` (per channel). A JAX
            array is not read: where it is not positive, the least positive step counts.
        bits: 2 to 16, unsigned 1 to 16; traced.
        signed: levels on both sides of zero.
        zero_point: z; one number, or broadcastable to ``x``.

    Returns:
        Levels in the shape and dtype of ``x``. NaN stays NaN.

    Raises:
        ValueError: bits out of range, step not positive, integer ``x``; bits, step or
            zero point that do not broadcast to it.

    Source: Esser et al., `Learned Step Size Quantization
    <https://arxiv.org/abs/1902.08153>`_, 2020, eqs. 1 to 3 and section 2.2. The zero
    point after Bhalgat et al., `LSQ+ <https://arxiv.org/abs/2004.09576>`_, 2020.
    Differs from the paper in: there it is a real offset, and zero need not be a level.

    >>> lsq(jnp.array([-9.0, 0.4, 0.6, 9.0]), 0.5, bits=2).tolist()
    [-1.0, 0.5, 0.5, 0.5]
    """
    check_bits(bits, signed=signed)
    if not isinstance(step, Array):
        _checks.require_positive("step", step)
    x = _checks.require_floating("x", x)
    _checks.require_broadcast("step", step, "x", x.shape)
    _checks.require_broadcast("bits", bits, "x", x.shape)
    work = _arrays.compute_dtype(x)
    bits, step = (
        _arrays.match_rank(jnp.asarray(a, work), x.ndim) for a in (bits, step)
    )
    low, high = code_bounds(bits, signed=signed)
    share = 1 / jnp.sqrt(x.size * high)
    if zero_point is not None:
        _checks.require_broadcast("zero_point", zero_point, "x", x.shape)
        zero_point = _arrays.match_rank(jnp.asarray(zero_point, work), x.ndim)
        levels = high - low
        low = -jnp.round(jnp.clip(jax.lax.stop_gradient(zero_point), 0, levels))
        high = low + levels
    wide = x.astype(work)
    level = round_within(wide, step, jnp.ones_like(step), low, high, share)
    if zero_point is not None:
        y = wide / step
        slope = jnp.where((low <= y) & (y <= high), 0, -step * share)
        # Adds 0, with this slope.
        moved = zero_point - jax.lax.stop_gradient(zero_point)
        level = level + moved * jax.lax.stop_gradient(slope)
    return level.astype(x.dtype)


def lsq_init(
    x: ArrayLike, *, bits: ArrayLike, signed: bool = True, per_channel: bool = False
) -> Array:
    r"""Compute the initial step of LSQ.

    .. math:: s_0 = 2 \langle |x| \rangle / \sqrt{Q_P}

    Args:
        x: weights ``[..., C_out]``, or a batch of activations.
        bits: as in `lsq`.
        signed: as in `lsq`.
        per_channel: one step per channel of the last axis, ``[C_out]``, else one
            number.

    Returns:
        The step, float32 at least. A channel that is 0 has the mean step of the
        others; where all of ``x`` is 0 it is 1.

    Raises:
        ValueError: bits out of range, integer or empty ``x``.

    Source: Esser et al., 2020, section 2.1.
    """
    check_bits(bits, signed=signed)
    x = _checks.require_floating("x", x)
    checks.require_nonempty("x", x)
    work = _arrays.compute_dtype(x)
    axes = tuple(range(x.ndim - 1)) if per_channel else None
    _, high = code_bounds(jnp.asarray(bits, work), signed=signed)
    step = 2 * jnp.mean(jnp.abs(x.astype(work)), axes) / jnp.sqrt(high)
    silent = step == 0
    others = jnp.sum(step) / jnp.maximum(jnp.sum(~silent), 1).astype(work)
    return jnp.where(silent, jnp.where(others == 0, 1, others), step)
