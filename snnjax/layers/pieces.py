"""State that carries on: a sequence in pieces, or a step at a time."""

import inspect
from collections.abc import Mapping
from typing import Any

from flax import nnx
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax.layers.inspect import check_model
from snnjax.layers.state import CarriedState, Ends, Stateful

State = dict[str, Any]


def run_piece(
    model: nnx.Module, x: ArrayLike, state: State | None, **options: Any
) -> tuple[Any, State]:
    """Run the next piece of a sequence through a network: its result and state.

    Under `jax.jit`, pieces give what the whole sequence gives in one piece, and a step
    at a time takes memory that does not grow with the sequence::

        @jax.jit
        def advance(weights, x, state):
            return layers.run_piece(nnx.merge(graphdef, weights), x, state)

        state = None  # at rest
        for x in stream:  # [T, B, ...], T = 1 for a step at a time
            (logits, spikes), state = advance(weights, x, state)

    A gradient flows back through the state; truncate it with
    ``jax.lax.stop_gradient(state)``. Training moves the statistics of ``model`` as a
    call of it does, by those of each piece.

    Args:
        model: any network of `layers`, which is called once; a layer that calls
            `neurons` itself must take part as `layers.Spiking` with its neuron.
        x: the piece ``[T, B, ...]``, time first, also of one step.
        state: as the last piece returned it; None at the beginning. There is no
            default, so that a piece begins at rest only where that is written.
        options: of the call: ``record``, ``train`` and such; ``timesteps`` is T.

    Returns:
        What the network returns, and ``{layer: state}`` after the piece.

    Raises:
        ValueError: a network without layers that have a state, or that calls one of
            them twice, inside a loop of JAX's own or with a ``v_init`` of its own; a
            state of other layers or another batch size.
    """
    check_model(model)
    # A copy: inside jit a network that is closed over cannot be changed.
    copy = nnx.clone(model)
    flat = nnx.to_flat_state(nnx.state(copy))
    values = {path: x.get_value() for path, x in flat}
    layers = {
        ".".join(map(str, path)): module
        for path, module in nnx.iter_modules(copy)
        if isinstance(module, Stateful)
    }
    if not layers:
        raise ValueError(
            "model has no layer with a state to carry on; build it of layers.Spiking, "
            "layers.Recurrent or layers.Readout"
        )
    if state is not None and not (
        isinstance(state, Mapping) and layers.keys() >= state.keys()
    ):
        raise ValueError(
            "state must be None, at rest, or what run_piece of this network returned, "
            f"a state of {sorted(layers)}; got {_checks.format_value(state)}"
        )
    x = _checks.as_array("x", x)
    if x.ndim < 3:
        raise ValueError(
            f"x must be a piece [T, B, ...], time first, got shape {x.shape}; a single "
            "step is x[None]"
        )
    if "timesteps" in inspect.signature(model.__call__).parameters:  # pyrefly: ignore
        options = {"timesteps": x.shape[0]} | options
    given = {} if state is None else state
    for name, layer in layers.items():
        layer.carried = nnx.data(CarriedState(Ends(given.get(name), None)))
    result = copy(x, **options)  # pyrefly: ignore[not-callable]
    ends = {}
    for name, layer in layers.items():
        ends[name] = layer.carried.get_value().end  # pyrefly: ignore
        layer.carried = nnx.data(None)
    _update_changed(model, copy, values)
    ends = {name: end for name, end in ends.items() if end is not None}
    if not ends:
        raise ValueError(
            "no layer with a state took part as it carries on: call layers.Spiking "
            "without v_init on the whole piece [T, B, ...], and not inside a "
            "jax.lax.scan of the network's own"
        )
    if state is not None and ends.keys() != given.keys():
        raise ValueError(
            f"the network called the layers {sorted(ends)}, and state is of "
            f"{sorted(given)}; give the state of the last piece of this network"
        )
    return result, ends


def _update_changed(model: nnx.Module, copy: nnx.Module, values: dict) -> None:
    """Give the model the variables of its copy that the call changed."""
    found = dict(nnx.to_flat_state(nnx.state(copy)))
    changed = {
        path: x for path, x in found.items() if x.get_value() is not values.get(path)
    }
    if changed:
        nnx.update(model, nnx.from_flat_state(changed))
