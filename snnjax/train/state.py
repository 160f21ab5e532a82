"""The state of a training run: what a step changes, for one network or several."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from snnjax.train import checks, sharding

Tree = TypeVar("Tree")
Model = TypeVar("Model", bound=nnx.Module)


class TrainState(NamedTuple):
    """Everything that a step changes; every array has the axis of networks in front.

    Attributes:
        params: what the gradient moves.
        model_state: BatchNorm statistics, quantizers and their state, neuron constants.
        opt_state: optax's.
        step: steps done, int32 ``[networks]``.
        skipped: how many of them were skipped, int32 ``[networks]``.
    """

    params: nnx.State
    model_state: nnx.State
    opt_state: optax.OptState
    step: Array
    skipped: Array


def split(model: nnx.Module) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """Split ``model`` into structure (static), parameters, and everything else."""
    graphdef, params, model_state = nnx.split(model, nnx.Param, ...)
    return graphdef, params, model_state


def init(
    model: nnx.Module | Sequence[nnx.Module],
    optimizer: optax.GradientTransformation | Sequence[optax.GradientTransformation],
) -> TrainState:
    """Return the state of ``model`` before its first step.

    Args:
        model: a network, or several of one structure; they stay as they are.
        optimizer: one for all, or one for each network.

    Raises:
        ValueError: a model is no flax.nnx.Module, or an optimizer is not optax's.
    """
    networks = checks.as_list(model)
    optimizers = checks.as_optimizers(optimizer, len(networks))
    states = [_init(m, tx) for m, tx in zip(networks, optimizers, strict=True)]
    if any(
        checks.form(s.opt_state) != checks.form(states[0].opt_state) for s in states
    ):
        checks.check_alike(networks, None)
        raise ValueError(checks.OTHER_OPTIMIZERS)
    return stack(states)


def _init(model: nnx.Module, tx: optax.GradientTransformation) -> TrainState:
    _, params, model_state = split(model)
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(params, model_state, tx.init(params), zero, zero)
    return jax.tree.map(lambda x: jnp.asarray(x)[None], state)


def stack(states: Sequence[Tree]) -> Tree:
    """Join states of one network each, or of several, to a state of all of them."""
    states = list(states)
    if len(states) == 1:
        # A copy: steps donate their state, and the arrays are not ours to free.
        return copy_arrays(states[0])
    return jax.tree.map(lambda *x: jnp.concatenate(x), *states)


def unstack(state: Tree) -> list[Tree]:
    """Return the states of each network, on the host; `stack` joins them again.

    Each keeps the axis of networks, of length one. Devices of other processes are read
    too, so all processes must call it.
    """
    whole = sharding.to_host(state)
    number = len(jax.tree.leaves(whole)[0])
    return [jax.tree.map(lambda x: x[i : i + 1], whole) for i in range(number)]  # noqa: B023


def copy_arrays(tree: Tree) -> Tree:
    """Return ``tree`` with arrays of its own, which a step may take."""
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


def model_from_state(model: Model, state: TrainState, index: int = 0) -> Model:
    """Return the network of ``state``: the structure of ``model``, arrays of its own.

    It stays as it is while training continues, whose next step takes the state's
    arrays. Like every network that a function returns it is in evaluation mode.

    Args:
        model: any network of that structure; it stays as it is.
        state: of a training run.
        index: place among the networks of the state.

    Raises:
        ValueError: the state has no such network, or is that of another structure.
    """
    [like_model] = checks.as_list(model)
    graphdef, *like = split(like_model)
    number = len(state.step)
    if not -number <= index < number:
        raise ValueError(f"index must be below the {number} networks, got {index}")
    whole = sharding.to_host((state.params, state.model_state))
    mine = jax.tree.map(lambda x: x[index], whole)
    if checks.form(*mine) != checks.form(*like):
        raise ValueError(
            "state is of another network than model: layers, sizes, dtypes, neurons "
            "and quantizers must be the same; give the model that was trained"
        )
    new = nnx.merge(graphdef, *copy_arrays(mine), copy=True)
    new.eval()
    return new
