"""Binary and ternary weights: signs times a mean magnitude, of now and not learned."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays, _checks
from snnjax.quantize import checks
from snnjax.quantize.nearest import smallest_scale
from snnjax.quantize.straight_through import substitute

# Below this share of the mean magnitude a ternary weight is zero: the published rule.
_ZERO_BELOW = 0.7


def binary(w: ArrayLike, *, per_channel: bool = False, pow2: bool = False) -> Array:
    r"""Quantize weights to their sign times their mean magnitude: 1 bit.

    .. math:: \hat w = \alpha\, \mathrm{sign}(w), \quad \alpha = \langle |w| \rangle

    the :math:`\alpha` of least squared error. Zero has sign 1. Gradient: the identity;
    :math:`\alpha` counts as a constant.

    Args:
        w: weights ``[..., C_out]``, floating point.
        per_channel: a mean for each output channel.
        pow2: round :math:`\alpha` to a power of 2, :math:`2^{\mathrm{round}(\log_2
            \alpha)}`, so that a chip shifts.

    Returns:
        Levels in the shape and dtype of ``w``. A NaN makes all that share its mean NaN.

    Raises:
        ValueError: integer or empty ``w``.

    Source: Rastegari et al., `XNOR-Net <https://arxiv.org/abs/1603.05279>`_, 2016,
    section 3.1; the power of 2 as Wei et al., `Q-SNN
    <https://arxiv.org/abs/2406.13672>`_, 2024. Differs from the papers in: the gradient
    is the identity, also beyond 1; weights are not standardised first.

    >>> binary(jnp.array([[0.5, -1.0], [-1.5, 3.0]]), per_channel=True).tolist()
    [[1.0, -2.0], [-1.0, 2.0]]
    """
    w, wide = _check_weights(w)
    still = jax.lax.stop_gradient(wide)
    size = jnp.abs(still)
    scale = _finish(_mean(size, jnp.ones_like(size), per_channel), pow2)
    # NaN has no sign, and its mean is NaN already.
    return substitute(wide, jnp.where(still < 0, -scale, scale)).astype(w.dtype)


def ternary(w: ArrayLike, *, per_channel: bool = False, pow2: bool = False) -> Array:
    r"""Quantize weights to their sign, or 0 where they are small, times a magnitude.

    .. math::
        \hat w = \begin{cases} \alpha\, \mathrm{sign}(w) & |w| > \Delta \\
        0 & \text{else} \end{cases}, \quad \Delta = 0.7 \langle |w| \rangle, \quad
        \alpha = \langle |w| \rangle_{|w| > \Delta}

    which is close to least squared error for normal weights. Gradient: the identity;
    :math:`\alpha` and :math:`\Delta` count as constants. Three levels, in 2 bits.

    Args:
        w: weights ``[..., C_out]``, floating point.
        per_channel: means for each output channel.
        pow2: round :math:`\alpha` to a power of 2, as `binary`.

    Returns:
        Levels in the shape and dtype of ``w``. A NaN makes all that share its mean NaN.

    Raises:
        ValueError: integer or empty ``w``.

    Source: Li et al., `Ternary Weight Networks <https://arxiv.org/abs/1605.04711>`_,
    2016, eqs. 5 and 6.

    >>> ternary(jnp.array([0.9, -0.1, -1.1, 0.2])).tolist()
    [1.0, 0.0, -1.0, 0.0]
    """
    w, wide = _check_weights(w)
    still = jax.lax.stop_gradient(wide)
    size = jnp.abs(still)
    bound = _ZERO_BELOW * _mean(size, jnp.ones_like(size), per_channel)
    keeps = jnp.where(size > bound, 1, 0).astype(size.dtype)
    scale = _finish(_mean(size, keeps, per_channel), pow2)
    signed = jnp.where(still < 0, -scale, scale)
    level = jnp.where((keeps > 0) | jnp.isnan(scale), signed, 0.0)  # no -0
    return substitute(wide, level).astype(w.dtype)


def _check_weights(w: Any) -> tuple[Array, Array]:
    w = _checks.require_floating("w", w)
    checks.require_nonempty("w", w)
    return w, _arrays.widen(w)


def _mean(size: Array, keeps: Array, per_channel: bool) -> Array:
    """Average the magnitudes that are kept, in a shape that broadcasts to them."""
    axes = tuple(range(size.ndim - 1)) if per_channel else None
    # From the largest down: the mean of equal magnitudes is that magnitude, exactly.
    largest = jnp.max(size, axes, keepdims=True)
    below = jnp.sum((size - largest) * keeps, axes, keepdims=True)
    return largest + below / jnp.maximum(jnp.sum(keeps, axes, keepdims=True), 1)


def _finish(scale: Array, pow2: bool) -> Array:
    # Weights that are all 0 get levels that are 0 to rounding.
    scale = jnp.maximum(scale, jnp.asarray(smallest_scale(scale.dtype), scale.dtype))
    if not pow2:
        return scale
    mantissa, exponent = jnp.frexp(scale)
    exponent = jnp.where(mantissa < 0.5**0.5, exponent - 1, exponent)
    power = jnp.ldexp(jnp.ones_like(scale), exponent)
    return jnp.where(jnp.isnan(scale), scale, power)
