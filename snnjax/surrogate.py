"""Spikes with surrogate gradients.

Every function here is the Heaviside step forward, ``1[x >= 0]`` (a tie fires, as in
SpikingJelly; snnTorch, Norse and NIR fire on ``x > 0``), and the derivative of a
smooth relaxation backward. ``x`` is the membrane potential minus the threshold. The
slope is traced: it may be scheduled, swept or mapped without recompiling. Its own
gradient is zero, since it does not act forward.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

Surrogate = Callable[..., Array]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _spike(x: Array, slope: Array, derivative: Callable[[Array, Array], Array]):
    return (x >= 0).astype(x.dtype)


def _spike_fwd(x, slope, derivative):
    return _spike(x, slope, derivative), (x, slope)


def _spike_bwd(derivative, residuals, cotangent):
    x, slope = residuals
    return cotangent * derivative(x, slope), jnp.zeros_like(slope)


_spike.defvjp(_spike_fwd, _spike_bwd)


def _apply(x: ArrayLike, slope: ArrayLike, derivative) -> Array:
    x = jnp.asarray(x)
    return _spike(x, jnp.asarray(slope, x.dtype), derivative)


def atan(x: ArrayLike, alpha: ArrayLike = 2.0) -> Array:
    r"""Spike with the derivative of a scaled arctangent.

    .. math:: g(x) = \frac{\alpha/2}{1 + (\frac{\pi}{2} \alpha x)^2}, \quad
        \text{the slope of } \tfrac1\pi \arctan(\tfrac\pi2 \alpha x) + \tfrac12

    Args:
        x: membrane potential minus threshold, any shape.
        alpha: slope; the peak at the threshold is ``alpha / 2``.

    Returns:
        0 or 1, of ``x``'s shape and dtype.

    Source: Fang et al., `Incorporating Learnable Membrane Time Constant
    <https://arxiv.org/abs/2007.05785>`_, 2021; SpikingJelly's and snnTorch's ``ATan``.

    >>> atan(jnp.array([-1.0, 0.0, 1.0])).tolist()
    [0.0, 1.0, 1.0]
    """
    return _apply(x, alpha, _atan)


def _atan(x, alpha):
    return alpha / 2 / (1 + jnp.square(jnp.pi / 2 * alpha * x))


def sigmoid(x: ArrayLike, alpha: ArrayLike = 4.0) -> Array:
    r"""Spike with the derivative of a sigmoid.

    .. math:: g(x) = \alpha \sigma(\alpha x) (1 - \sigma(\alpha x))

    Args:
        x: membrane potential minus threshold, any shape.
        alpha: slope; the peak at the threshold is ``alpha / 4``.

    Returns:
        0 or 1, of ``x``'s shape and dtype.

    Source: SpikingJelly's ``Sigmoid``, whose default slope is 4 as well.
    """
    return _apply(x, alpha, _sigmoid)


def _sigmoid(x, alpha):
    # sigmoid(-z) and not 1 - sigmoid(z), which cancels in bfloat16.
    return alpha * jax.nn.sigmoid(alpha * x) * jax.nn.sigmoid(-alpha * x)


def fast_sigmoid(x: ArrayLike, slope: ArrayLike = 25.0) -> Array:
    r"""Spike with the derivative of :math:`x / (1 + k|x|)`.

    .. math:: g(x) = \frac{1}{(1 + k |x|)^2}

    Args:
        x: membrane potential minus threshold, any shape.
        slope: :math:`k`; the peak at the threshold is 1 whatever the slope.

    Returns:
        0 or 1, of ``x``'s shape and dtype.

    Source: Zenke and Ganguli, `SuperSpike <https://arxiv.org/abs/1705.11146>`_, 2018;
    snnTorch's ``fast_sigmoid``.
    """
    return _apply(x, slope, _fast_sigmoid)


def _fast_sigmoid(x, slope):
    return 1 / jnp.square(1 + slope * jnp.abs(x))


def triangular(x: ArrayLike, alpha: ArrayLike = 1.0) -> Array:
    r"""Spike with a triangular derivative.

    .. math:: g(x) = \max(0, \alpha - \alpha^2 |x|)

    Args:
        x: membrane potential minus threshold, any shape.
        alpha: peak at the threshold; the base reaches from ``-1/alpha`` to
            ``1/alpha``, the area is 1.

    Returns:
        0 or 1, of ``x``'s shape and dtype.

    Source: Bellec et al., `Long short-term memory and learning-to-learn in networks of
    spiking neurons <https://arxiv.org/abs/1803.09574>`_, 2018; SpikingJelly's
    ``PiecewiseQuadratic``. Differs from snnTorch's ``triangular``, which is not a
    triangle: it returns minus the threshold above it.
    """
    return _apply(x, alpha, _triangular)


def _triangular(x, alpha):
    # alpha * (1 - |alpha x|) and not the sum above: infinite x gives 0, not NaN.
    return alpha * jnp.maximum(0, 1 - jnp.abs(alpha * x))
