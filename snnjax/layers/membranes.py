"""Membrane potentials of a network over time."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax.layers.inspect import check_model
from snnjax.layers.pieces import run_piece
from snnjax.layers.spiking import Spiking


def record_membranes(
    model: nnx.Module, x: ArrayLike, *, layers: Sequence[str] | None = None
) -> dict[str, Array]:
    """Run a network in evaluation mode; return each layer's membranes after each step.

    Those that the neurons keep: reset where they fired, and quantized where they are
    quantized after the reset, as SpikingJelly's ``v_seq`` and snnTorch's ``mem``. Of
    every kind of neuron, in recurrent layers too, and of readouts.

    Args:
        model: as `run_piece` takes it; it stays as it is.
        x: a sequence ``[T, B, ...]``, time first; of a still image
            ``encoding.direct(x, timesteps=T)``.
        layers: names of layers of neurons; None is all of them.

    Returns:
        ``{layer: [T, B, neurons...]}``, in the order of the network's layers.

    Raises:
        ValueError: x without a time axis, a name of no layer of neurons, or as
            `run_piece`.

    >>> from snnjax import neurons
    >>> from snnjax.layers import Spiking
    >>> layer = Spiking(neurons.LIF())
    >>> found = record_membranes(layer, jnp.full((4, 1, 1), 1.5))
    >>> found[""][:, 0, 0].tolist()
    [0.75, 0.0, 0.75, 0.0]
    """
    check_model(model)
    x = _checks.require_floating("x", x)
    if x.ndim < 3:
        raise ValueError(
            f"x must be a sequence [T, B, ...], time first, got shape {x.shape}; of a "
            "still image encoding.direct(x, timesteps=T)"
        )
    known = [
        ".".join(map(str, path))
        for path, module in nnx.iter_modules(model)
        if isinstance(module, Spiking)
    ]
    names = tuple(known) if layers is None else tuple(layers)
    if not names or not set(names) <= set(known):
        raise ValueError(
            f"layers must be layers of neurons, of {', '.join(known)}, got {layers!r}"
        )
    copy = nnx.clone(model)
    copy.eval()
    found = _record(*nnx.split(copy), x, names)
    batch = next(iter(found.values())).shape[1]
    if batch != x.shape[1]:
        raise ValueError(
            f"x must be a sequence [T, B, ...], time first, and the network took its "
            f"first step, of shape {x.shape[1:]}, for {batch} still images; of still "
            "images give encoding.direct(x, timesteps=T)"
        )
    return found


@functools.partial(jax.jit, static_argnums=(0, 3))
def _record(graphdef, weights, x, names):
    def step(state, x):
        _, state = run_piece(nnx.merge(graphdef, weights), x[None], state)
        return state, {name: _membrane(state[name]) for name in names}

    # The first step by itself: it makes the state.
    state, first = step(None, x[0])
    _, rest = jax.lax.scan(step, state, x[1:])
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)


def _membrane(state: Any) -> Array:
    """Return the membrane of a neuron's state, which may hold more than that."""
    if isinstance(state, Mapping):
        return state["v"]
    return getattr(state, "v", state)
