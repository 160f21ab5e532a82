"""Leaky integrator: a membrane that never fires, to read a network out."""

from jax import Array
from jax.typing import ArrayLike

from snnjax.neurons.step import (
    Quantizer,
    bind_quantizer,
    check_numbers,
    check_site,
    prepare,
    scan_steps,
    start_state,
)
from snnjax.surrogate import atan


def li(
    x_seq: ArrayLike,
    *,
    tau: ArrayLike = 2.0,
    decay_input: bool = True,
    v_init: ArrayLike | None = None,
    membrane_quantizer: Quantizer | None = None,
    membrane_site: str = "post_reset",
) -> tuple[Array, Array]:
    r"""Leaky integrator, which returns its membrane potential at every step.

    .. math::
        V_t &= V_{t-1} + (X_t - V_{t-1}) / \tau && \text{\texttt{decay\_input}} \\
        V_t &= (1 - 1 / \tau) V_{t-1} + X_t && \text{not \texttt{decay\_input}}

    Args:
        x_seq: input currents ``[T, ...]``, floating point.
        tau: membrane time constant in steps, above 1.
        decay_input: whether the leak scales the input too.
        v_init: potential before the first step ``[...]``; None is 0.
        membrane_quantizer: applied to the potential at every step, see `lif`.
        membrane_site: accepted for likeness to `lif`: both sites are one here.

    Returns:
        Potentials ``[T, ...]`` of x's dtype, and the one after the last step.

    Raises:
        ValueError: as `lif`.

    Source: Norse's ``LI``, without a synaptic current.

    >>> import jax.numpy as jnp
    >>> li(jnp.full((3, 1), 2.0))[0][:, 0].tolist()
    [1.0, 1.5, 1.75]
    """
    check_numbers(dict(tau=tau))
    check_site("membrane_site", membrane_site)
    static = dict(surrogate=atan, membrane_site=membrane_site)
    x_seq, numbers = prepare(x_seq, dict(tau=tau), membrane_quantizer, **static)
    v = start_state("v_init", v_init, 0, x_seq)
    quantizer = bind_quantizer(membrane_quantizer, membrane_site, numbers["tau"])
    decay = 1 / numbers["tau"]

    def body(v, x):
        x = x.astype(v.dtype)
        v = v + (x - v) * decay if decay_input else v - v * decay + x
        v = v if quantizer is None else quantizer(v)
        return v, v

    return scan_steps(body, v, x_seq)
