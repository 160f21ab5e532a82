"""Leaky integrate-and-fire neuron with a synaptic current (CuBa-LIF)."""

from typing import NamedTuple

from jax import Array
from jax.typing import ArrayLike

from snnjax import surrogate as surrogates
from snnjax._axes import match_varying_axes
from snnjax.neurons.step import (
    Quantizer,
    check_numbers,
    make_body,
    prepare,
    scan_steps,
    start_state,
)
from snnjax.surrogate import Surrogate


class CubaState(NamedTuple):
    """State of `cuba_lif`, each ``[...]`` as one step of the currents.

    Attributes:
        v: membrane potential.
        i: synaptic current.
    """

    v: Array
    i: Array


def cuba_lif(
    x_seq: ArrayLike,
    *,
    tau: ArrayLike = 2.0,
    tau_syn: ArrayLike = 2.0,
    v_threshold: ArrayLike = 1.0,
    v_reset: ArrayLike | None = 0.0,
    decay_input: bool = True,
    detach_reset: bool = True,
    surrogate: Surrogate = surrogates.atan,
    alpha: ArrayLike | None = None,
    v_min: ArrayLike | None = None,
    v_init: CubaState | tuple[ArrayLike, ArrayLike] | None = None,
    membrane_quantizer: Quantizer | None = None,
    membrane_site: str = "post_reset",
) -> tuple[Array, CubaState]:
    r"""Leaky integrate-and-fire neuron whose input passes a leaky synaptic current.

    .. math::
        I_t = (1 - 1 / \tau_{syn}) I_{t-1} + X_t

    and then `lif` with :math:`I_t` in place of :math:`X_t`. The quantizer sees the
    membrane alone; a spike resets it and leaves the current.

    Others in these terms, with ``detach_reset=False``: snnTorch's ``Synaptic(alpha,
    beta, reset_delay=False)`` has ``tau_syn=1 / (1 - alpha)``, ``tau=1 / (1 - beta)``,
    ``decay_input=False``; Norse's ``LIF`` has ``tau=1 / (dt * tau_mem_inv)``, ``tau_syn
    = 1 / (dt * tau_syn_inv)`` and fires a step later, because its membrane charges
    before the current takes the input.

    Args:
        x_seq: inputs ``[T, ...]``, floating point.
        tau: membrane time constant in steps, above 1.
        tau_syn: time constant of the current in steps, above 1.
        v_threshold: and all that follow to ``v_min``: see `lif`.
        v_reset: see `lif`.
        decay_input: see `lif`.
        detach_reset: see `lif`.
        surrogate: see `lif`.
        alpha: see `lif`.
        v_min: see `lif`.
        v_init: potential and current before the first step; None is at rest, with no
            current.
        membrane_quantizer: see `lif`.
        membrane_site: see `lif`.

    Returns:
        Spikes ``[T, ...]`` and the `CubaState` after the last step.

    Raises:
        ValueError: as `lif`; a state that is no pair.

    Source: Neftci et al., `Surrogate Gradient Learning
    <https://arxiv.org/abs/1901.09948>`_, 2019, equations 1 and 2.
    """
    numbers = dict(tau=tau, v_threshold=v_threshold, v_reset=v_reset, alpha=alpha)
    numbers |= dict(v_min=v_min, tau_syn=tau_syn)
    check_numbers(numbers)
    static = dict(
        decay_input=decay_input,
        detach_reset=detach_reset,
        surrogate=surrogate,
        membrane_site=membrane_site,
    )
    x_seq, numbers = prepare(x_seq, numbers, membrane_quantizer, **static)
    if v_init is not None and not (isinstance(v_init, tuple) and len(v_init) == 2):
        raise ValueError(
            "v_init must be a CubaState(v, i) of potential and current, as the neuron "
            f"returns it, got {type(v_init).__name__}"
        )
    v, i = (None, None) if v_init is None else v_init
    rest = numbers["v_reset"]
    v = start_state("v_init.v", v, 0 if rest is None else rest, x_seq)
    i = start_state("v_init.i", i, 0, x_seq)
    left = 1 - 1 / numbers.pop("tau_syn")
    x_seq, v, i, left = match_varying_axes(x_seq, v, i, left)
    fire, x_seq, v = make_body(x_seq, v, numbers, membrane_quantizer, **static)

    def body(state, x):
        i = left * state.i + x.astype(state.i.dtype)
        v, spikes = fire(state.v, i)
        return CubaState(v, i), spikes

    return scan_steps(body, CubaState(v, i), x_seq)
