"""Spikes with surrogate gradients.

Every function computes the Heaviside step ``1[x >= 0]`` forward (a tie fires, as in
SpikingJelly; snnTorch, Norse and NIR fire on ``x > 0``) and the derivative of a smooth
relaxation backward. ``x`` is the membrane potential minus the threshold, of any
shape and floating point; the spikes are 0 or 1, of its shape and dtype. Slopes are
traced: they may be scheduled, swept, mapped or given per neuron without recompiling.
Their own gradient is zero because they do not affect the forward pass. There is no
forward mode: `jax.jvp` and `jax.jacfwd` raise JAX's TypeError for a custom VJP.

All raise ValueError for an ``x`` that is not floating point and for a slope that is not
finite (and positive, where it sets a width) or does not broadcast to ``x``.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from snnjax import _axes, _checks

Surrogate = Callable[..., Array]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _spike(x: Array, slopes: tuple[Array, ...], derivative: Callable[..., Array]):
    return (x >= 0).astype(x.dtype)


def _spike_fwd(x, slopes, derivative):
    return _spike(x, slopes, derivative), (x, slopes)


def _spike_bwd(derivative, residuals, cotangent):
    x, slopes = residuals
    return cotangent * derivative(x, *slopes), jax.tree.map(jnp.zeros_like, slopes)


_spike.defvjp(_spike_fwd, _spike_bwd)


def _apply(
    derivative: Callable[..., Array], x: ArrayLike, **slopes: ArrayLike
) -> Array:
    x = _checks.require_floating("x", x)
    for name, slope in slopes.items():
        if name in ("alpha", "slope", "k"):
            _checks.require_positive(name, slope)
        else:
            _checks.require_finite(name, slope)
        _checks.require_broadcast(name, slope, "x", x.shape)
    given = (jnp.asarray(slope, x.dtype) for slope in slopes.values())
    x, *given = _axes.match_varying_axes(x, *given)
    return _spike(x, tuple(given), derivative)


def atan(x: ArrayLike, alpha: ArrayLike = 2.0) -> Array:
    r"""Spike with the derivative of a scaled arctangent.

    .. math:: g(x) = \frac{\alpha/2}{1 + (\frac{\pi}{2} \alpha x)^2}, \quad
        \text{the slope of } \tfrac1\pi \arctan(\tfrac\pi2 \alpha x) + \tfrac12

    Args:
        x: membrane potential minus threshold.
        alpha: slope; the peak at the threshold is ``alpha / 2``.

    Source: Fang et al., `Incorporating Learnable Membrane Time Constant
    <https://arxiv.org/abs/2007.05785>`_, 2021; SpikingJelly's and snnTorch's ``ATan``.

    >>> atan(jnp.array([-1.0, 0.0, 1.0])).tolist()
    [0.0, 1.0, 1.0]
    """
    return _apply(_atan, x, alpha=alpha)


def _atan(x, alpha):
    return alpha / 2 / (1 + jnp.square(jnp.pi / 2 * alpha * x))


def sigmoid(x: ArrayLike, alpha: ArrayLike = 4.0) -> Array:
    r"""Spike with the derivative of a sigmoid.

    .. math:: g(x) = \alpha \sigma(\alpha x) (1 - \sigma(\alpha x))

    Args:
        x: membrane potential minus threshold.
        alpha: slope; the peak at the threshold is ``alpha / 4``.

    Source: SpikingJelly's ``Sigmoid``, whose default slope is 4 as well.
    """
    return _apply(_sigmoid, x, alpha=alpha)


def _sigmoid(x, alpha):
    # sigmoid(-z) and not 1 - sigmoid(z), which cancels in bfloat16.
    return alpha * jax.nn.sigmoid(alpha * x) * jax.nn.sigmoid(-alpha * x)


def fast_sigmoid(x: ArrayLike, slope: ArrayLike = 25.0) -> Array:
    r"""Spike with the derivative of :math:`x / (1 + k|x|)`.

    .. math:: g(x) = \frac{1}{(1 + k |x|)^2}

    Args:
        x: membrane potential minus threshold.
        slope: :math:`k`; the peak at the threshold is always 1.

    Source: Zenke and Ganguli, `SuperSpike <https://arxiv.org/abs/1705.11146>`_, 2018;
    snnTorch's ``fast_sigmoid``, spyx's ``superspike``.
    """
    return _apply(_fast_sigmoid, x, slope=slope)


def _fast_sigmoid(x, slope):
    return 1 / jnp.square(1 + slope * jnp.abs(x))


def triangular(x: ArrayLike, alpha: ArrayLike = 1.0) -> Array:
    r"""Spike with a triangular derivative.

    .. math:: g(x) = \max(0, \alpha - \alpha^2 |x|)

    Args:
        x: membrane potential minus threshold.
        alpha: peak at the threshold; the base reaches from ``-1/alpha`` to
            ``1/alpha``, the area is 1.

    Source: Bellec et al., `Long short-term memory and learning-to-learn in networks of
    spiking neurons <https://arxiv.org/abs/1803.09574>`_, 2018; SpikingJelly's
    ``PiecewiseQuadratic``. Differs from snnTorch's ``triangular``, which is not a
    triangle: it returns minus the threshold above it.
    """
    return _apply(_triangular, x, alpha=alpha)


def _triangular(x, alpha):
    # alpha * (1 - |alpha x|) and not the sum above: infinite x gives 0, not NaN.
    return alpha * jnp.maximum(0, 1 - jnp.abs(alpha * x))


def superspike(x: ArrayLike, alpha: ArrayLike = 1.0) -> Array:
    r"""Spike with the derivative of :math:`\alpha x / (1 + |x|)`.

    .. math:: g(x) = \frac{\alpha}{(1 + |x|)^2}

    Args:
        x: membrane potential minus threshold.
        alpha: peak at the threshold; it does not change the width.

    Source: SpikingJelly's ``SuperSpike``. Differs from the paper of that name and from
    spyx in: there the slope scales ``x``, which is `fast_sigmoid` here.
    """
    return _apply(_superspike, x, alpha=alpha)


def _superspike(x, alpha):
    return alpha / jnp.square(1 + jnp.abs(x))


def piecewise_exp(x: ArrayLike, alpha: ArrayLike = 1.0) -> Array:
    r"""Spike with an exponential derivative on both sides.

    .. math:: g(x) = \frac{\alpha}{2} e^{-\alpha |x|}

    Args:
        x: membrane potential minus threshold.
        alpha: slope; the peak at the threshold is ``alpha / 2``, the area is 1.

    Source: Shrestha and Orchard, `SLAYER <https://arxiv.org/abs/1810.08646>`_, 2018;
    SpikingJelly's ``PiecewiseExp``.
    """
    return _apply(_piecewise_exp, x, alpha=alpha)


def _piecewise_exp(x, alpha):
    return alpha / 2 * jnp.exp(-alpha * jnp.abs(x))


def rectangular(x: ArrayLike, alpha: ArrayLike = 1.0) -> Array:
    r"""Spike with a constant derivative near the threshold.

    .. math:: g(x) = \alpha \, 1[|x| < 1 / (2 \alpha)]

    Args:
        x: membrane potential minus threshold.
        alpha: height; the width is ``1 / alpha``, the area is 1.

    Source: Wu et al., `Spatio-Temporal Backpropagation
    <https://arxiv.org/abs/1706.02609>`_, 2018; SpikingJelly's ``Rect``.
    """
    return _apply(_rectangular, x, alpha=alpha)


def _rectangular(x, alpha):
    return jnp.where(jnp.abs(x) < 0.5 / alpha, alpha, 0).astype(x.dtype)


def erf(x: ArrayLike, alpha: ArrayLike = 2.0) -> Array:
    r"""Spike with a Gaussian derivative, that of the error function.

    .. math:: g(x) = \frac{\alpha}{\sqrt\pi} e^{-\alpha^2 x^2}, \quad
        \text{the slope of } \tfrac12 \mathrm{erfc}(-\alpha x)

    Args:
        x: membrane potential minus threshold.
        alpha: slope; the standard deviation is ``1 / (sqrt(2) alpha)``, the area is 1.

    Source: Yin et al., `Effective and Efficient Computation with Multiple-timescale
    Spiking Recurrent Neural Networks <https://arxiv.org/abs/2005.11633>`_, 2020;
    SpikingJelly's ``Erf``.
    """
    return _apply(_erf, x, alpha=alpha)


def _erf(x, alpha):
    return alpha * jnp.pi**-0.5 * jnp.exp(-jnp.square(alpha * x))


def soft_sign(x: ArrayLike, alpha: ArrayLike = 2.0) -> Array:
    r"""Spike with the derivative of a soft sign.

    .. math:: g(x) = \frac{\alpha / 2}{(1 + \alpha |x|)^2}, \quad
        \text{the slope of } \tfrac12 \frac{\alpha x}{1 + \alpha |x|} + \tfrac12

    Args:
        x: membrane potential minus threshold.
        alpha: slope; the peak at the threshold is ``alpha / 2``, the area is 1.

    Source: SpikingJelly's ``SoftSign``.
    """
    return _apply(_soft_sign, x, alpha=alpha)


def _soft_sign(x, alpha):
    return alpha / 2 / jnp.square(1 + alpha * jnp.abs(x))


def leaky_k_relu(x: ArrayLike, k: ArrayLike = 1.0, leak: ArrayLike = 0.0) -> Array:
    r"""Spike with the derivative of a leaky ReLU.

    .. math:: g(x) = k \text{ for } x \ge 0, \quad \lambda \text{ for } x < 0

    Args:
        x: membrane potential minus threshold.
        k: slope at and above the threshold.
        leak: slope :math:`\lambda` below it; with 0 a silent neuron gets no gradient.

    Source: SpikingJelly's ``LeakyKReLU``, which names ``leak`` first.
    """
    return _apply(_leaky_k_relu, x, k=k, leak=leak)


def _leaky_k_relu(x, k, leak):
    return jnp.where(x >= 0, k, leak).astype(x.dtype)


def straight_through(x: ArrayLike, alpha: ArrayLike = 1.0) -> Array:
    r"""Spike with the derivative of a line.

    .. math:: g(x) = \alpha

    Args:
        x: membrane potential minus threshold.
        alpha: slope.

    Source: Bengio et al., 2013, `arXiv 1308.3432 <https://arxiv.org/abs/1308.3432>`_;
    snnTorch's ``straight_through_estimator``, with slope 1.
    """
    return _apply(_straight_through, x, alpha=alpha)


def _straight_through(x, alpha):
    return alpha


@dataclasses.dataclass(frozen=True)
class _Custom:
    relaxation: Callable[..., Array]

    def __call__(self, x: ArrayLike, *slopes: ArrayLike) -> Array:
        named = {f"slope {i}": slope for i, slope in enumerate(slopes, start=1)}
        return _apply(self._derivative, x, **named)

    def _derivative(self, x, *slopes):
        def relaxation(x):
            return self.relaxation(x, *slopes)

        y, dy = jax.jvp(relaxation, (x,), (jnp.ones_like(x),))
        if y.shape != x.shape:
            raise ValueError(
                "the relaxation must act on each element of x alone, but it turned "
                f"shape {x.shape} into {y.shape}"
            )
        return dy.astype(x.dtype)


def custom(relaxation: Callable[..., Array]) -> Surrogate:
    """Make a surrogate: the step forward, the slope of ``relaxation`` backward.

    Args:
        relaxation: ``relaxation(x, *slopes)``, smooth, acting on each element of ``x``
            alone, written in ``jax.numpy``. Pass slopes without a default at each call,
            as ``alpha`` in the neurons.

    Returns:
        ``surrogate(x, *slopes)``. Two surrogates of one function are equal and share
        compiled programs; two equal-looking lambdas are different functions.

    >>> hard_tanh = custom(lambda x, a: jnp.clip(a * x, -1, 1))
    >>> jax.grad(hard_tanh)(0.1, 3.0).item()
    3.0
    """
    _checks.require_callable("relaxation", relaxation, "relaxation(x, *slopes)")
    return _Custom(relaxation)
