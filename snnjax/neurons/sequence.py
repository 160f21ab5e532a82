"""Neurons as functions of a sequence of input currents."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import surrogate as surrogates
from snnjax.neurons.step import Quantizer, check_numbers, run
from snnjax.surrogate import Surrogate


def lif(
    x_seq: ArrayLike,
    *,
    tau: ArrayLike = 2.0,
    v_threshold: ArrayLike = 1.0,
    v_reset: ArrayLike | None = 0.0,
    decay_input: bool = True,
    detach_reset: bool = True,
    surrogate: Surrogate = surrogates.atan,
    alpha: ArrayLike | None = None,
    v_min: ArrayLike | None = None,
    v_init: ArrayLike | None = None,
    membrane_quantizer: Quantizer | None = None,
    membrane_site: str = "post_reset",
) -> tuple[Array, Array]:
    r"""Leaky integrate-and-fire neuron.

    Returns (spikes, v); `step` returns (v, spikes), as a body of `jax.lax.scan` does.
    Nothing is compiled here: call it under ``jax.jit``, as a network is. Outside, JAX
    runs an operation at a time, slower, and rounds products that a compiled step fuses:
    the last bits may differ, and a membrane within them of the threshold may fire in
    one and not in the other.

    .. math::
        H_t &= V_{t-1} + (X_t - (V_{t-1} - V_r)) / \tau
            && \text{charge, \texttt{decay\_input}} \\
        H_t &= V_{t-1} - (V_{t-1} - V_r) / \tau + X_t
            && \text{charge, not \texttt{decay\_input}} \\
        S_t &= 1[H_t \ge V_{th}] && \text{fire} \\
        V_t &= S_t V_r + (1 - S_t) H_t && \text{hard reset} \\
        V_t &= H_t - S_t V_{th} && \text{soft reset, with } V_r = 0 \text{ above}

    Args:
        x_seq: input currents ``[T, ...]``, floating point.
        tau: membrane time constant in steps, above 1.
        v_threshold: firing threshold.
        v_reset: potential after a spike and at rest; None is soft reset.
        decay_input: whether the leak scales the input too. Without it the same input
            drives the neuron ``tau`` times as hard.
        detach_reset: whether the reset is a constant to the gradient.
        surrogate: spike function, called as ``surrogate(H - v_threshold, alpha)``.
        alpha: slope of the surrogate; None is the surrogate's own default.
        v_min: lower bound of H, at most the potential at rest; None is none.
        v_init: potential before the first step ``[...]``; None is at rest.
        membrane_quantizer: applied to the membrane at every step: a function, or a
            `quantize.QuantSpec` of a method for membranes (LSQ and MINT by the scale
            that learning starts from; `layers.Spiking` learns it).
        membrane_site: where: ``"post_reset"``, the stored state, leaves the comparison
            with the threshold exact; ``"pre_fire"``, the potential compared, moves it.

    Returns:
        Spikes ``[T, ...]`` (0 or 1, of ``x_seq``'s dtype) and the potential after the
        last step ``[...]``, float32 at least.

    Raises:
        ValueError: no time step, integer input, a state of another shape; tau up to 1,
            a threshold or slope that is not positive, a number that is not finite or
            does not broadcast to a step; an unknown site; a surrogate or quantizer
            that is no function, a spec of weights only.

    Source: Fang et al., `SpikingJelly <https://arxiv.org/abs/2310.16620>`_, 2023,
    ``LIFNode``. Differs from it in: ATan and ``detach_reset=True`` are the defaults, as
    in the SEW-ResNet paper.

    >>> spikes, v = lif(jnp.full((3, 1), 1.4))  # charges to 0.7, then 1.05: fires
    >>> spikes[:, 0].tolist()
    [0.0, 1.0, 0.0]
    """
    numbers = dict(tau=tau, v_threshold=v_threshold, v_reset=v_reset, alpha=alpha)
    numbers["v_min"] = v_min
    check_numbers(numbers)
    return run(
        x_seq,
        v_init,
        numbers,
        membrane_quantizer,
        decay_input=decay_input,
        detach_reset=detach_reset,
        surrogate=surrogate,
        membrane_site=membrane_site,
    )


def if_(
    x_seq: ArrayLike,
    *,
    v_threshold: ArrayLike = 1.0,
    v_reset: ArrayLike | None = 0.0,
    detach_reset: bool = True,
    surrogate: Surrogate = surrogates.atan,
    alpha: ArrayLike | None = None,
    v_min: ArrayLike | None = None,
    v_init: ArrayLike | None = None,
    membrane_quantizer: Quantizer | None = None,
    membrane_site: str = "post_reset",
) -> tuple[Array, Array]:
    """Integrate-and-fire neuron: `lif` without the leak, ``H = V + X``.

    Args:
        x_seq: input currents ``[T, ...]``, floating point.
        v_threshold: firing threshold.
        v_reset: potential after a spike; None is soft reset.
        detach_reset: whether the reset is a constant to the gradient.
        surrogate: spike function, called as ``surrogate(H - v_threshold, alpha)``.
        alpha: slope of the surrogate; None is the surrogate's own default.
        v_min: lower bound of H, at most the potential at rest; None is none.
        v_init: potential before the first step ``[...]``; None is ``v_reset`` or 0.
        membrane_quantizer: applied to the membrane at every step.
        membrane_site: ``"post_reset"`` or ``"pre_fire"``.

    Returns:
        Spikes ``[T, ...]`` and the potential after the last step ``[...]``.

    Raises:
        ValueError: no time step, integer input, a state of another shape; a
            threshold or slope that is not positive, a number that is not finite or
            does not broadcast to a step; an unknown site; a surrogate or quantizer
            that is no function.

    >>> if_(jnp.full((3, 1), 0.5))[0][:, 0].tolist()
    [0.0, 1.0, 0.0]
    """
    numbers = dict(v_threshold=v_threshold, v_reset=v_reset, alpha=alpha)
    numbers["v_min"] = v_min
    check_numbers(numbers)
    return run(
        x_seq,
        v_init,
        dict(numbers, tau=None),
        membrane_quantizer,
        decay_input=False,
        detach_reset=detach_reset,
        surrogate=surrogate,
        membrane_site=membrane_site,
    )


def plif(
    x_seq: ArrayLike,
    *,
    tau: ArrayLike = 2.0,
    w: ArrayLike | None = None,
    v_threshold: ArrayLike = 1.0,
    v_reset: ArrayLike | None = 0.0,
    decay_input: bool = True,
    detach_reset: bool = True,
    surrogate: Surrogate = surrogates.atan,
    alpha: ArrayLike | None = None,
    v_min: ArrayLike | None = None,
    v_init: ArrayLike | None = None,
    membrane_quantizer: Quantizer | None = None,
    membrane_site: str = "post_reset",
) -> tuple[Array, Array]:
    r"""Parametric leaky integrate-and-fire neuron: `lif` whose leak is learned.

    .. math:: 1 / \tau = \sigma(w), \quad \tau = 1 + e^{-w}

    so that every real :math:`w` is a time constant above 1.

    Args:
        x_seq: input currents ``[T, ...]``, floating point.
        tau: time constant that ``w`` starts from; not used where ``w`` is given.
        w: the learned number, or one for each neuron; None is ``-log(tau - 1)``.
        v_threshold: and all that follow: see `lif`.
        v_reset: see `lif`.
        decay_input: see `lif`.
        detach_reset: see `lif`.
        surrogate: see `lif`.
        alpha: see `lif`.
        v_min: see `lif`.
        v_init: see `lif`.
        membrane_quantizer: see `lif`.
        membrane_site: see `lif`.

    Returns:
        Spikes ``[T, ...]`` and the potential after the last step ``[...]``.

    Raises:
        ValueError: as `lif`.

    Source: Fang et al., `Incorporating Learnable Membrane Time Constant
    <https://arxiv.org/abs/2007.05785>`_, 2021; SpikingJelly's ``ParametricLIFNode``.

    >>> import jax
    >>> bool(jax.grad(lambda w: plif(jnp.full((3, 1), 0.9), w=w)[1].sum())(0.0) > 0)
    True
    """
    check_numbers(dict(tau=tau, w=w))
    numbers = dict(v_threshold=v_threshold, v_reset=v_reset, alpha=alpha)
    numbers["v_min"] = v_min
    check_numbers(numbers)
    return run(
        x_seq,
        v_init,
        dict(numbers, w=w_from_tau(tau) if w is None else w),
        membrane_quantizer,
        decay_input=decay_input,
        detach_reset=detach_reset,
        surrogate=surrogate,
        membrane_site=membrane_site,
    )


def w_from_tau(tau: ArrayLike) -> ArrayLike:
    """Return `plif`'s learned number that makes this time constant."""
    # By numpy where it can: making a default neuron must not start a JAX backend.
    xp = np if isinstance(tau, (int, float, np.number, np.ndarray)) else jnp
    return -xp.log(xp.asarray(tau) - 1.0)
