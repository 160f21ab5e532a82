"""The training step: a pure function under ``jax.jit``, compiled once a structure."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from snnjax import data
from snnjax.data import Dataset

Tree = TypeVar("Tree")
Model = TypeVar("Model", bound=nnx.Module)
Penalty = Callable[[Mapping[str, Array], Any], Array]


class TrainState(NamedTuple):
    """Everything a step changes.

    Attributes:
        params: what the gradient moves.
        rest: BatchNorm statistics, quantizers and their state, neuron constants.
        opt_state: optax's.
        step: steps done, int32.
    """

    params: nnx.State
    rest: nnx.State
    opt_state: optax.OptState
    step: Array


class Metrics(NamedTuple):
    """Of one training step: mean loss and accuracy of its batch."""

    loss: Array
    accuracy: Array


@functools.cache
def sgd(weight_decay: float, momentum: float = 0.9) -> optax.GradientTransformation:
    """SGD with Nesterov momentum and weight decay, for a learning rate of 1.

    The step multiplies by the learning rate, which is traced. Kernels decay; biases
    and BatchNorm do not.
    """
    kernels = functools.partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=kernels),
        optax.trace(momentum, nesterov=True),
    )


def split(model: nnx.Module) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """The structure (static), the parameters, and the rest of ``model``."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    return graphdef, params, rest


def init(model: nnx.Module, tx: optax.GradientTransformation) -> TrainState:
    """The state of ``model`` before its first step."""
    _, params, rest = split(model)
    # A copy: steps donate their state, and the model's arrays are not ours to free.
    params, rest = copied((params, rest))
    return TrainState(params, rest, tx.init(params), jnp.zeros((), jnp.int32))


def copied(tree: Tree) -> Tree:
    """The same with arrays of its own, which a step may take."""
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


@functools.cache
def make_train_step(
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    *,
    timesteps: int,
    augment: bool,
    penalty: Penalty | None = None,
) -> jax.stages.Wrapped:
    """The training step of one network structure, compiled once and kept.

    Args:
        graphdef: the structure.
        tx: the optimizer, for a learning rate of 1.
        timesteps: T.
        augment: crop and flip, see `data.augment`.
        penalty: ``penalty(rates, target)``, a scalar that is added to the loss, of the
            batch's firing rates ``{layer: [neurons...]}``, differentiable through the
            surrogates, and of a ``target`` that is traced. A distance to another
            network's firing, say: see `emd.soft_cdf_distance`. Each function is
            compiled and kept: make one, and sweep what it takes by ``target``.

    Returns:
        ``train_step(state, images, labels, mean, std, indices, learning_rate, key,
        target)`` to the next state and its `Metrics`. ``images`` uint8 and ``labels``
        are the whole data set; ``indices [B]`` choose the batch on the device. The loss
        is cross-entropy of the logits' mean over time, and the penalty. The state is
        donated.
    """

    def record(spikes):
        # Nothing of the trains is kept but what the backward pass needs.
        if penalty is None:
            return ()
        return jnp.mean(spikes, axis=(0, 1), dtype=jnp.float32)

    def train_step(
        state, images, labels, mean, std, indices, learning_rate, key, target=None
    ):
        batch, correct = images[indices], labels[indices]
        if augment:
            batch = data.augment(jax.random.fold_in(key, state.step), batch)
        batch = data.normalize(batch, mean, std)

        def loss_fn(params):
            model = nnx.merge(graphdef, params, state.rest, copy=True)
            logits, rates = model(batch, timesteps=timesteps, train=True, record=record)
            logits = jnp.mean(logits.astype(jnp.float32), axis=0)
            loss = jnp.mean(
                optax.softmax_cross_entropy_with_integer_labels(logits, correct)
            )
            if penalty is not None:
                added = jnp.asarray(penalty(rates, target))
                if added.ndim:
                    raise ValueError(
                        f"penalty must return a scalar, got shape {added.shape}"
                    )
                loss = loss + added
            right = jnp.argmax(logits, axis=-1) == correct
            return loss, (jnp.mean(right), split(model)[2])

        gradient = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (accuracy, rest)), grads = gradient(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = jax.tree.map(
            lambda p, u: p - learning_rate.astype(p.dtype) * u, state.params, updates
        )
        state = TrainState(params, rest, opt_state, state.step + 1)
        return state, Metrics(loss, accuracy)

    return jax.jit(train_step, donate_argnums=0)


def trained(model: Model, state: TrainState) -> Model:
    """The network of ``state``, with ``model``'s structure."""
    return nnx.merge(split(model)[0], state.params, state.rest, copy=True)


def on_device(dataset: Dataset) -> tuple[Array, Array, Array, Array]:
    """Images, labels, mean and deviation as the steps take them."""
    images, labels = jnp.asarray(dataset.images), jnp.asarray(dataset.labels)
    return images, labels, jnp.asarray(dataset.mean), jnp.asarray(dataset.std)
