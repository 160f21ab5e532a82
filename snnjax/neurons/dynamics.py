"""Integrate-and-fire neurons: charge, fire, reset, scanned over time.

Each neuron is a function from input currents ``[T, ...]`` to spikes ``[T, ...]`` and
the last membrane potential ``[...]``. The state is an argument and zero by default, so
there is nothing to reset between batches, and a long sequence may be run in pieces by
handing ``v_final`` on as ``v_init``. `LIF` and `IF` bundle a neuron's numbers: those
are traced leaves, so sweeping them does not recompile.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import surrogate as surrogates
from snnjax.surrogate import Surrogate

Quantizer = Callable[[Array], Array]
SITES = ("post_reset", "pre_fire")
Leaf = Any  # a number or an array; JAX rebuilds pytrees with placeholders too

# Up to here time is unrolled in Python, which XLA fuses into one pass over memory:
# four times as fast as the loop at T = 4. Longer sequences keep the program small.
_UNROLL = 8


def step(
    v: Array,
    x: Array,
    *,
    tau: ArrayLike | None,
    v_threshold: ArrayLike = 1.0,
    v_reset: ArrayLike | None = 0.0,
    decay_input: bool = True,
    detach_reset: bool = True,
    surrogate: Surrogate = surrogates.atan,
    alpha: ArrayLike | None = None,
    membrane_quantizer: Quantizer | None = None,
    membrane_site: str = "post_reset",
) -> tuple[Array, Array]:
    """One time step: (v, x) -> (v, spikes). ``tau=None`` is a neuron without leak.

    The equations are those of `lif` and `if_`, which scan this function over time.
    """
    if membrane_site not in SITES:
        raise ValueError(f"membrane_site must be one of {SITES}, got {membrane_site!r}")
    rest = 0.0 if v_reset is None else v_reset
    if tau is None:
        h = v + x
    elif decay_input:
        h = v + (x - (v - rest)) / tau
    else:
        h = v - (v - rest) / tau + x
    if membrane_quantizer is not None and membrane_site == "pre_fire":
        h = membrane_quantizer(h)
    spike = surrogate(h - v_threshold, *(() if alpha is None else (alpha,)))
    s = jax.lax.stop_gradient(spike) if detach_reset else spike
    v = h - s * v_threshold if v_reset is None else s * v_reset + (1 - s) * h
    if membrane_quantizer is not None and membrane_site == "post_reset":
        v = membrane_quantizer(v)
    return v, spike


def _run(x_seq: ArrayLike, v_init: ArrayLike | None, numbers: dict, **static):
    x_seq = jnp.asarray(x_seq)
    if x_seq.ndim == 0 or x_seq.shape[0] == 0:
        raise ValueError(
            f"x_seq must be [T, ...] with T at least 1, got shape {x_seq.shape}"
        )
    if not jnp.issubdtype(x_seq.dtype, jnp.floating):
        raise ValueError(
            f"x_seq must be floating point, got {x_seq.dtype}; convert it with "
            ".astype(jnp.float32)"
        )
    # A float32 flip at the threshold cascades through a deep net: never below it.
    dtype = jnp.promote_types(x_seq.dtype, jnp.float32)
    numbers = {
        name: None if value is None else jnp.asarray(value, dtype)
        for name, value in numbers.items()
    }
    if v_init is None:
        rest = numbers["v_reset"]
        v = jnp.full(x_seq.shape[1:], 0 if rest is None else rest, dtype)
    else:
        v = jnp.asarray(v_init, dtype)
        if v.shape != x_seq.shape[1:]:
            raise ValueError(
                f"v_init must have the shape of one step of x_seq, {x_seq.shape[1:]}, "
                f"got {v.shape}"
            )

    def body(v, x):
        v, spike = step(v, x.astype(dtype), **numbers, **static)
        return v, spike.astype(x.dtype)

    if x_seq.shape[0] > _UNROLL:
        v, spikes = jax.lax.scan(body, v, x_seq)
        return spikes, v
    spikes = []
    for x in x_seq:
        v, spike = body(v, x)
        spikes.append(spike)
    return jnp.stack(spikes), v


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
    v_init: ArrayLike | None = None,
    membrane_quantizer: Quantizer | None = None,
    membrane_site: str = "post_reset",
) -> tuple[Array, Array]:
    r"""Leaky integrate-and-fire neuron.

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
        v_init: potential before the first step ``[...]``; None is at rest.
        membrane_quantizer: applied to the membrane at every step.
        membrane_site: where: ``"post_reset"``, the stored state, leaves the comparison
            with the threshold exact; ``"pre_fire"``, the potential compared, moves it.

    Returns:
        Spikes ``[T, ...]`` (0 or 1, of ``x_seq``'s dtype) and the potential after the
        last step ``[...]``, float32 at least.

    Raises:
        ValueError: no time step, integer input, or a state of another shape.

    Source: Fang et al., `SpikingJelly <https://arxiv.org/abs/2310.16620>`_, 2023,
    ``LIFNode``. Differs from it in: ATan and ``detach_reset=True`` are the defaults, as
    in the SEW-ResNet paper.

    >>> spikes, v = lif(jnp.full((3, 1), 1.4))  # charges to 0.7, then 1.05: fires
    >>> spikes[:, 0].tolist()
    [0.0, 1.0, 0.0]
    """
    numbers = dict(tau=tau, v_threshold=v_threshold, v_reset=v_reset, alpha=alpha)
    _check_numbers(numbers)
    return _run(
        x_seq,
        v_init,
        numbers,
        decay_input=decay_input,
        detach_reset=detach_reset,
        surrogate=surrogate,
        membrane_quantizer=membrane_quantizer,
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
        v_init: potential before the first step ``[...]``; None is ``v_reset`` or 0.
        membrane_quantizer: applied to the membrane at every step.
        membrane_site: ``"post_reset"`` or ``"pre_fire"``.

    Returns:
        Spikes ``[T, ...]`` and the potential after the last step ``[...]``.

    Raises:
        ValueError: no time step, integer input, or a state of another shape.

    >>> if_(jnp.full((3, 1), 0.5))[0][:, 0].tolist()
    [0.0, 1.0, 0.0]
    """
    numbers = dict(v_threshold=v_threshold, v_reset=v_reset, alpha=alpha)
    _check_numbers(numbers)
    return _run(
        x_seq,
        v_init,
        dict(numbers, tau=None),
        decay_input=False,
        detach_reset=detach_reset,
        surrogate=surrogate,
        membrane_quantizer=membrane_quantizer,
        membrane_site=membrane_site,
    )


def _check_numbers(numbers: dict) -> None:
    """Check what is a number and not traced: inside jit nothing can be raised."""
    for name, value in numbers.items():
        if isinstance(value, (int, float, np.number)):
            if not np.isfinite(value):
                raise ValueError(f"{name} must be finite, got {value}")
            if name == "tau" and not value > 1:
                raise ValueError(
                    f"tau must be above 1 step, got {value}; a neuron without memory "
                    "or leak is if_"
                )
            if name in ("v_threshold", "alpha") and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")


def _leaves_from_numbers(neuron, names: tuple[str, ...]) -> None:
    _check_numbers({name: getattr(neuron, name) for name in names})
    for name in names:
        value = getattr(neuron, name)
        if isinstance(value, (int, float, np.number)):
            # A numpy array: making a default neuron must not start a JAX backend.
            object.__setattr__(neuron, name, np.asarray(value, np.float32))


@dataclasses.dataclass(frozen=True)
class LIF:
    """`lif` with its numbers: ``LIF(tau=2.0)(x_seq) -> (spikes, v_final)``.

    A registered dataclass: ``tau``, ``v_threshold``, ``v_reset`` and ``alpha`` are
    float32 leaves, the rest is static. For the meaning of each field see `lif`.
    """

    tau: Leaf = 2.0
    v_threshold: Leaf = 1.0
    v_reset: Leaf = 0.0
    alpha: Leaf = None
    decay_input: bool = dataclasses.field(default=True, metadata={"static": True})
    detach_reset: bool = dataclasses.field(default=True, metadata={"static": True})
    surrogate: Surrogate = dataclasses.field(
        default=surrogates.atan, metadata={"static": True}
    )

    def __post_init__(self):
        _leaves_from_numbers(self, ("tau", "v_threshold", "v_reset", "alpha"))

    def __call__(self, x_seq: ArrayLike, **state) -> tuple[Array, Array]:
        """Run; ``state`` are `lif`'s v_init, membrane_quantizer, membrane_site."""
        return lif(x_seq, **_fields(self), **state)


@dataclasses.dataclass(frozen=True)
class IF:
    """`if_` with its numbers: ``IF()(x_seq) -> (spikes, v_final)``.

    A registered dataclass: ``v_threshold``, ``v_reset`` and ``alpha`` are float32
    leaves, the rest is static. For the meaning of each field see `if_`.
    """

    v_threshold: Leaf = 1.0
    v_reset: Leaf = 0.0
    alpha: Leaf = None
    detach_reset: bool = dataclasses.field(default=True, metadata={"static": True})
    surrogate: Surrogate = dataclasses.field(
        default=surrogates.atan, metadata={"static": True}
    )

    def __post_init__(self):
        _leaves_from_numbers(self, ("v_threshold", "v_reset", "alpha"))

    def __call__(self, x_seq: ArrayLike, **state) -> tuple[Array, Array]:
        """Run; ``state`` are `if_`'s v_init, membrane_quantizer, membrane_site."""
        return if_(x_seq, **_fields(self), **state)


def _fields(neuron) -> dict:
    return {f.name: getattr(neuron, f.name) for f in dataclasses.fields(neuron)}


Neuron = LIF | IF
jax.tree_util.register_dataclass(LIF)
jax.tree_util.register_dataclass(IF)
