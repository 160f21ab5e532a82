"""The dynamics of a step and of a sequence: charge, fire, reset."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax import surrogate as surrogates
from snnjax._axes import match_varying_axes
from snnjax.surrogate import Surrogate

Quantizer = Callable[[Array], Array]
SITES = ("post_reset", "pre_fire")

# Up to here time is unrolled in Python, which XLA fuses into one pass over memory:
# four times as fast as the loop at T = 4. Longer sequences go in chunks of so many
# steps, whose states are made again in the backward pass.
UNROLLED, CHUNK = 8, 4


_TAU_HINT = (
    "; tau counts time steps, 1 / (1 - beta) of a decay beta a step. At 1 nothing is "
    "left of the past, and the spikes are surrogate.atan(x_seq - v_threshold)"
)


def check_numbers(numbers: dict) -> None:
    """Check what is not JAX's, and may be traced: inside jit nothing can be raised."""
    for name, value in numbers.items():
        if value is None:
            continue
        _checks.require_finite(name, value)
        if name == "tau":
            _checks.require_values(
                value, lambda x: x > 1, "tau must be above 1 step", _TAU_HINT
            )
        if name == "tau_syn":
            hint = "; lif is the neuron without a synaptic current"
            _checks.require_values(
                value, lambda x: x > 1, "tau_syn must be above 1 step", hint
            )
        if name in ("v_threshold", "alpha"):
            _checks.require_values(value, lambda x: x > 0, f"{name} must be positive")
    _check_bound(**{name: numbers.get(name) for name in _BOUND})


_BOUND = ("v_min", "v_reset")


def _check_bound(v_min, v_reset) -> None:
    """Check that a neuron at rest is above its lower bound."""
    values = [x for x in (v_min, v_reset) if x is not None]
    if v_min is None or any(isinstance(x, jax.core.Tracer) for x in values):
        return
    rest = 0.0 if v_reset is None else v_reset
    if np.any(np.asarray(v_min) > np.asarray(rest)):
        raise ValueError(
            "v_min must be at most the potential at rest, v_reset or 0, got v_min "
            f"{_checks.format_value(v_min)} and v_reset {_checks.format_value(v_reset)}"
        )


def check_site(name: str, site: str) -> None:
    """Raise ValueError, by the argument's name, unless it is one of `SITES`."""
    if site not in SITES:
        raise ValueError(f"{name} must be one of {SITES}, got {site!r}")


def _check_parts(
    numbers: dict,
    surrogate: Surrogate,
    membrane_quantizer: Quantizer | None,
    what: str,
    shape: tuple[int, ...],
) -> None:
    """Check what `step` and `run` take beside a current; ``what`` has this shape."""
    _checks.require_callable("surrogate", surrogate, "such as surrogate.atan")
    if membrane_quantizer is not None:
        like = "membrane to levels, such as a QuantSpec"
        _checks.require_callable("membrane_quantizer", membrane_quantizer, like)
    for name, value in numbers.items():
        if value is not None:
            _checks.require_broadcast(name, value, what, shape)


def leak_factor(tau: ArrayLike | None, w: ArrayLike | None = None) -> Array | None:
    """Return the share of a membrane that a step leaves, by LIF's tau or PLIF's w.

    None without leak.
    """
    if w is not None:
        return jax.nn.sigmoid(-jnp.asarray(w))
    return None if tau is None else 1 - 1 / jnp.asarray(tau)


def bind_quantizer(
    quantizer: Quantizer | None,
    site: str,
    tau: ArrayLike | None,
    w: ArrayLike | None = None,
) -> Quantizer | None:
    """Bind a quantizer that offers it to this neuron; leave other functions as is."""
    if not hasattr(quantizer, "bind_membrane"):
        return quantizer
    return quantizer.bind_membrane(site=site, leak=leak_factor(tau, w))


def check_reach(quantizer: Any, site: str, v_threshold: Any) -> None:
    """Raise ValueError where a membrane is quantized to below the threshold.

    Neurons call ``check_reach`` of any quantizer that defines it.
    """
    is_checked = hasattr(quantizer, "check_reach") and v_threshold is not None
    if site == "pre_fire" and is_checked:
        quantizer.check_reach(v_threshold)


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
    v_min: ArrayLike | None = None,
    membrane_quantizer: Quantizer | None = None,
    membrane_site: str = "post_reset",
) -> tuple[Array, Array]:
    """One time step: (v, x) -> (v, spikes). ``tau=None`` is a neuron without leak.

    The order is that of a body of `jax.lax.scan`, (carry, output); `lif` returns
    (spikes, v). The equations are those of `lif` and `if_`, which scan this function
    over time. For people who write their own loop.

    Raises:
        ValueError: as `lif`; an integer ``v``.
    """
    numbers = dict(tau=tau, v_threshold=v_threshold, v_reset=v_reset, alpha=alpha)
    numbers["v_min"] = v_min
    check_numbers(numbers)
    v, x = _checks.require_floating("v", v), _checks.require_floating("x", x)
    _checks.require_broadcast("x", x, "v", v.shape)
    _check_parts(numbers, surrogate, membrane_quantizer, "v", v.shape)
    check_reach(membrane_quantizer, membrane_site, v_threshold)
    return _step(
        v,
        x,
        decay=None if tau is None else 1 / jnp.asarray(tau, jnp.result_type(v)),
        v_threshold=v_threshold,
        v_reset=v_reset,
        decay_input=decay_input,
        detach_reset=detach_reset,
        surrogate=surrogate,
        alpha=alpha,
        v_min=v_min,
        membrane_quantizer=bind_quantizer(membrane_quantizer, membrane_site, tau),
        membrane_site=membrane_site,
    )


def _step(
    v,
    x,
    *,
    decay,
    v_threshold,
    v_reset,
    decay_input,
    detach_reset,
    surrogate,
    alpha,
    membrane_quantizer,
    membrane_site,
    v_min=None,
):
    check_site("membrane_site", membrane_site)
    rest = 0.0 if v_reset is None else v_reset
    # A product, since XLA makes one of a division by tau in some programs and not in
    # others, and then a sequence run in pieces differs in its last bits.
    if decay is None:
        h = v + x
    elif decay_input:
        h = v + (x - (v - rest)) * decay
    else:
        h = v - (v - rest) * decay + x
    if v_min is not None:
        # Not jnp.maximum, which halves the gradient of a potential at the bound.
        h = jnp.where(h < v_min, v_min, h)
    if membrane_quantizer is not None and membrane_site == "pre_fire":
        h = membrane_quantizer(h)
    spike = surrogate(h - v_threshold, *(() if alpha is None else (alpha,)))
    s = jax.lax.stop_gradient(spike) if detach_reset else spike
    if v_reset is None:
        v = h - s * v_threshold
    else:
        # An infinite potential is reset too; where there is a spike, 1 - s is 0 anyway,
        # but for the gradient of s.
        spent = s == 1 if detach_reset else (s == 1) & jnp.isinf(h)
        left = jnp.where(spent, 0, h)
        v = s * v_reset + (1 - s) * left
    if membrane_quantizer is not None and membrane_site == "post_reset":
        v = membrane_quantizer(v)
    return v, spike


def run(
    x_seq: ArrayLike,
    v_init: ArrayLike | None,
    numbers: dict,
    membrane_quantizer: Quantizer | None,
    **static,
) -> tuple[Array, Array]:
    """Check a sequence, and return its spikes and the last potential."""
    x_seq, numbers = prepare(x_seq, numbers, membrane_quantizer, **static)
    rest = numbers["v_reset"]
    v = start_state("v_init", v_init, 0 if rest is None else rest, x_seq)
    body, x_seq, v = make_body(x_seq, v, numbers, membrane_quantizer, **static)
    return scan_steps(body, v, x_seq)


def prepare(
    x_seq: ArrayLike, numbers: dict, membrane_quantizer: Quantizer | None, **static
) -> tuple[Array, dict]:
    """Check a sequence and numbers; return them as arrays of the state's dtype."""
    x_seq = require_sequence(x_seq)
    check_site("membrane_site", static["membrane_site"])
    site, threshold = static["membrane_site"], numbers.get("v_threshold")
    check_reach(membrane_quantizer, site, threshold)
    parts = (numbers, static["surrogate"], membrane_quantizer)
    _check_parts(*parts, "one step of x_seq", x_seq.shape[1:])
    dtype = state_dtype(x_seq)
    return x_seq, {
        name: None if value is None else _as_leading(value, dtype, x_seq.ndim - 1)
        for name, value in numbers.items()
    }


def require_sequence(x_seq: ArrayLike) -> Array:
    """Convert to an array ``[T, ...]``; ValueError unless it is floating point."""
    x_seq = _checks.as_array("x_seq", x_seq)
    if x_seq.ndim == 0 or x_seq.shape[0] == 0:
        raise ValueError(
            f"x_seq must be [T, ...] with T at least 1, got shape {x_seq.shape}"
        )
    return _checks.require_floating("x_seq", x_seq)


def state_dtype(x_seq: Array) -> np.dtype:
    """Return the dtype of a neuron's state for currents of this dtype."""
    # A float32 flip at the threshold cascades through a deep net: never below it.
    return np.promote_types(x_seq.dtype, np.float32)


def _as_leading(value: ArrayLike, dtype: np.dtype, ndim: int) -> Array:
    """Return an array with ``ndim`` axes, or a scalar."""
    value = jnp.asarray(value, dtype)
    return (
        value.reshape((1,) * (ndim - value.ndim) + value.shape) if value.ndim else value
    )


def start_state(name: str, given: Any, rest: ArrayLike, x_seq: Array) -> Array:
    """Return the state before the first step, of one step's shape."""
    dtype, shape = state_dtype(x_seq), x_seq.shape[1:]
    if given is None:
        return jnp.broadcast_to(jnp.asarray(rest, dtype), shape)
    v = jnp.asarray(_checks.require_real(name, given), dtype)
    if v.shape != shape:
        raise ValueError(
            f"{name} must have the shape of one step of x_seq, {shape}, got {v.shape}"
        )
    return v


def make_body(
    x_seq: Array, v: Array, numbers: dict, membrane_quantizer: Any, **static
) -> tuple[Callable, Array, Array]:
    """Return (v, x) -> (v, spikes) of prepared numbers, and x_seq and v to scan it."""
    tau, w = numbers.get("tau"), numbers.get("w")
    site = static["membrane_site"]
    quantizer = bind_quantizer(membrane_quantizer, site, tau, w)
    x_seq, v, *varied = match_varying_axes(x_seq, v, *jax.tree.leaves(numbers))
    numbers = jax.tree.unflatten(jax.tree.structure(numbers), varied)
    if "w" in numbers:
        numbers["decay"] = jax.nn.sigmoid(numbers.pop("w"))
    else:
        tau = numbers.pop("tau")
        numbers["decay"] = None if tau is None else 1 / tau

    def body(v, x):
        return _step(
            v,
            x.astype(v.dtype),
            membrane_quantizer=quantizer,
            **numbers,
            **static,
        )

    return body, x_seq, v


def scan_steps(body: Callable, state: Any, x_seq: Array) -> tuple[Array, Any]:
    """Scan (state, x) -> (state, output) over time: (outputs in x's dtype, state)."""
    steps = x_seq.shape[0]
    if steps <= UNROLLED:
        return _unroll_steps(body, state, x_seq)
    first = steps % CHUNK
    head = []
    if first:
        outputs, state = _unroll_steps(body, state, x_seq[:first])
        head, x_seq = [outputs], x_seq[first:]

    @partial(jax.checkpoint, prevent_cse=False)
    def run_chunk(state, x_seq):
        outputs, state = _unroll_steps(body, state, x_seq)
        return state, outputs

    number = steps // CHUNK
    chunks = x_seq.reshape(number, CHUNK, *x_seq.shape[1:])
    state, outputs = jax.lax.scan(run_chunk, state, chunks)
    outputs = outputs.reshape(number * CHUNK, *outputs.shape[2:])
    return (jnp.concatenate([*head, outputs]) if head else outputs), state


def _unroll_steps(body, state, x_seq):
    outputs = []
    # Split, not indexed: the gradient of a split is one concatenation, that of indexing
    # a sum of padded arrays.
    for x in jax.lax.split(x_seq, [1] * x_seq.shape[0]):
        state, output = body(state, x[0])
        outputs.append(output.astype(x_seq.dtype))
    return jnp.stack(outputs), state
