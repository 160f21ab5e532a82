"""The dynamics of a step and of a sequence: charge, fire, reset."""

from collections.abc import Callable

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
# four times as fast as the loop at T = 4. Longer sequences keep the program small.
_UNROLL = 8


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
        if name in ("v_threshold", "alpha"):
            _checks.require_values(value, lambda x: x > 0, f"{name} must be positive")


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


def _bind_quantizer(
    quantizer: Quantizer | None,
    site: str,
    tau: ArrayLike | None,
    w: ArrayLike | None = None,
) -> Quantizer | None:
    """Bind a quantizer that offers it to this neuron; leave other functions as is."""
    if not hasattr(quantizer, "bind_membrane"):
        return quantizer
    return quantizer.bind_membrane(site=site, leak=leak_factor(tau, w))


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

    The order is that of a body of `jax.lax.scan`, (carry, output); `lif` returns
    (spikes, v). The equations are those of `lif` and `if_`, which scan this function
    over time. For people who write their own loop.

    Raises:
        ValueError: as `lif`; an integer ``v``.
    """
    numbers = dict(tau=tau, v_threshold=v_threshold, v_reset=v_reset, alpha=alpha)
    check_numbers(numbers)
    v, x = _checks.require_floating("v", v), _checks.require_floating("x", x)
    _checks.require_broadcast("x", x, "v", v.shape)
    _check_parts(numbers, surrogate, membrane_quantizer, "v", v.shape)
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
        membrane_quantizer=_bind_quantizer(membrane_quantizer, membrane_site, tau),
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
    x_seq = _checks.as_array("x_seq", x_seq)
    if x_seq.ndim == 0 or x_seq.shape[0] == 0:
        raise ValueError(
            f"x_seq must be [T, ...] with T at least 1, got shape {x_seq.shape}"
        )
    _checks.require_floating("x_seq", x_seq)
    check_site("membrane_site", static["membrane_site"])
    parts = (numbers, static["surrogate"], membrane_quantizer)
    _check_parts(*parts, "one step of x_seq", x_seq.shape[1:])
    # A float32 flip at the threshold cascades through a deep net: never below it.
    dtype = np.promote_types(x_seq.dtype, np.float32)
    numbers = {
        name: None if value is None else jnp.asarray(value, dtype)
        for name, value in numbers.items()
    }
    if v_init is None:
        rest = numbers["v_reset"]
        v = jnp.full(x_seq.shape[1:], 0 if rest is None else rest, dtype)
    else:
        v = jnp.asarray(_checks.require_real("v_init", v_init), dtype)
        if v.shape != x_seq.shape[1:]:
            raise ValueError(
                f"v_init must have the shape of one step of x_seq, {x_seq.shape[1:]}, "
                f"got {v.shape}"
            )
    tau, w = numbers.get("tau"), numbers.get("w")
    site = static["membrane_site"]
    quantizer = _bind_quantizer(membrane_quantizer, site, tau, w)
    x_seq, v, *varied = match_varying_axes(x_seq, v, *jax.tree.leaves(numbers))
    numbers = jax.tree.unflatten(jax.tree.structure(numbers), varied)
    if "w" in numbers:
        numbers["decay"] = jax.nn.sigmoid(numbers.pop("w"))
    else:
        tau = numbers.pop("tau")
        numbers["decay"] = None if tau is None else 1 / tau

    def body(v, x):
        v, spike = _step(
            v,
            x.astype(v.dtype),
            membrane_quantizer=quantizer,
            **numbers,
            **static,
        )
        return v, spike.astype(x.dtype)

    if x_seq.shape[0] > _UNROLL:
        v, spikes = jax.lax.scan(body, v, x_seq)
        return spikes, v
    spikes = []
    # Split, not indexed: the gradient of a split is one concatenation, that of indexing
    # a sum of padded arrays.
    for x in jax.lax.split(x_seq, [1] * x_seq.shape[0]):
        v, spike = body(v, x[0])
        spikes.append(spike)
    return jnp.stack(spikes), v
