"""Training and evaluation: pure steps under ``jax.jit``, and the loop around them.

A step is compiled once for each structure of the network. What a study sweeps is
traced: bits, clips and neuron constants lie in the state, the learning rate is an
argument. Batches and random keys are functions of (seed, step), so a run that is
resumed from a `TrainState` is the run that was never stopped.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from snnjax import data, firing
from snnjax.batches import epoch_order, eval_batches, train_batches
from snnjax.data import Dataset
from snnjax.firing import FiringCounts

Tree = TypeVar("Tree")

Model = TypeVar("Model", bound=nnx.Module)


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
    params, rest = _copy((params, rest))
    return TrainState(params, rest, tx.init(params), jnp.zeros((), jnp.int32))


def _copy(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


@functools.cache
def make_train_step(
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    *,
    timesteps: int,
    augment: bool,
) -> jax.stages.Wrapped:
    """The training step of one network structure, compiled once and kept.

    Returns:
        ``train_step(state, images, labels, mean, std, indices, learning_rate, key)``
        to the next state and its `Metrics`. ``images`` uint8 and ``labels`` are the
        whole data set; ``indices [B]`` choose the batch on the device. The loss is
        cross-entropy of the logits' mean over time. The state is donated.
    """

    def train_step(state, images, labels, mean, std, indices, learning_rate, key):
        batch, target = images[indices], labels[indices]
        if augment:
            batch = data.augment(jax.random.fold_in(key, state.step), batch)
        batch = data.normalize(batch, mean, std)

        def loss_fn(params):
            model = nnx.merge(graphdef, params, state.rest, copy=True)
            # Nothing of the trains is kept but what the backward pass needs.
            record = lambda spikes: ()  # noqa: E731
            logits, _ = model(batch, timesteps=timesteps, train=True, record=record)
            logits = jnp.mean(logits.astype(jnp.float32), axis=0)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, target)
            correct = jnp.argmax(logits, axis=-1) == target
            return jnp.mean(loss), (jnp.mean(correct), split(model)[2])

        gradient = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (accuracy, rest)), grads = gradient(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = jax.tree.map(
            lambda p, u: p - learning_rate.astype(p.dtype) * u, state.params, updates
        )
        state = TrainState(params, rest, opt_state, state.step + 1)
        return state, Metrics(loss, accuracy)

    return jax.jit(train_step, donate_argnums=0)


@functools.cache
def make_eval_step(graphdef: nnx.GraphDef, *, timesteps: int) -> jax.stages.Wrapped:
    """The evaluation step of one network structure, compiled once and kept.

    Returns:
        ``eval_step(params, rest, images, labels, mean, std, indices, mask)`` to the
        number of correct predictions and, for the images at even and at odd places of
        the data set, the spike counts ``{layer: int32 [2, neurons...]}``. Images whose
        ``mask`` is 0 only fill the batch up.
    """

    def eval_step(params, rest, images, labels, mean, std, indices, mask):
        model = nnx.merge(graphdef, params, rest, copy=True)
        batch = data.normalize(images[indices], mean, std)
        halves = [mask & (indices % 2 == half) for half in range(2)]

        def record(spikes):
            return jnp.stack([firing.total(spikes, half) for half in halves])

        logits, counts = model(batch, timesteps=timesteps, record=record)
        predicted = jnp.argmax(jnp.mean(logits.astype(jnp.float32), axis=0), axis=-1)
        return jnp.sum((predicted == labels[indices]) & mask), counts

    return jax.jit(eval_step)


class Evaluation(NamedTuple):
    """What `evaluate` finds.

    Attributes:
        accuracy: share of correct predictions.
        halves: spike counts over the images at even and at odd places.
    """

    accuracy: float
    halves: tuple[FiringCounts, FiringCounts]

    @property
    def counts(self) -> FiringCounts:
        """Spike counts over all images."""
        return self.halves[0] + self.halves[1]


def evaluate(
    model: nnx.Module,
    dataset: Dataset,
    *,
    timesteps: int = 4,
    batch_size: int = 128,
    on_step: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Accuracy and firing of ``model`` on every image, in whole batches.

    Raises:
        ValueError: fewer than two images: there are no halves then.
    """
    if len(dataset) < 2:
        raise ValueError("evaluation needs at least two images, to compare halves")
    graphdef, params, rest = split(model)
    eval_step = make_eval_step(graphdef, timesteps=timesteps)
    arrays = on_device(dataset)
    correct, counts = 0, {}
    for indices, mask in eval_batches(len(dataset), batch_size):
        right, new = eval_step(params, rest, *arrays, indices, mask)
        correct += int(right)
        counts = {name: counts.get(name, 0) + spikes for name, spikes in new.items()}
        on_step()

    def half(i: int) -> FiringCounts:
        images = (len(dataset) + 1 - i) // 2
        spikes = {name: np.asarray(both[i]) for name, both in counts.items()}
        return FiringCounts(spikes, timesteps * images)

    return Evaluation(correct / len(dataset), (half(0), half(1)))


def on_device(dataset: Dataset) -> tuple[Array, Array, Array, Array]:
    """Images, labels, mean and deviation as the steps take them."""
    images, labels = jnp.asarray(dataset.images), jnp.asarray(dataset.labels)
    return images, labels, jnp.asarray(dataset.mean), jnp.asarray(dataset.std)


class Progress(NamedTuple):
    """Where `fit` is, after a step: the state to resume from, and its metrics."""

    state: TrainState
    step: int
    steps: int
    metrics: Metrics


def one_cycle(steps: int, peak: float) -> np.ndarray:
    """Learning rates: along half a cosine up to ``peak``, along another down to 0.

    The way up starts at ``peak / 25`` and takes 30 % of the steps.
    """
    schedule = optax.cosine_onecycle_schedule(steps, peak)
    return np.asarray(jax.vmap(schedule)(jnp.arange(steps)))


def cosine(steps: int, start: float) -> np.ndarray:
    """Learning rates: from ``start`` down to 0 along half a cosine."""
    schedule = optax.cosine_decay_schedule(start, steps)
    return np.asarray(jax.vmap(schedule)(jnp.arange(steps)))


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Whole batches in an epoch.

    Raises:
        ValueError: not even one.
    """
    if not 1 <= batch_size <= len(dataset):
        raise ValueError(
            f"batch_size: expected 1 to {len(dataset)}, the number of training images, "
            f"got {batch_size}"
        )
    return len(dataset) // batch_size


def fit(
    model: nnx.Module,
    dataset: Dataset,
    learning_rates: np.ndarray,
    *,
    seed: int,
    batch_size: int,
    timesteps: int = 4,
    weight_decay: float = 5e-4,
    augment: bool = False,
    start: TrainState | None = None,
) -> Iterator[Progress]:
    """Train by SGD; iterating does the steps.

    Args:
        model: where to start; it is not changed. `trained` takes the result out.
        dataset: training images.
        learning_rates: one for each step.
        seed: of the order of batches and of the augmentation.
        batch_size: images a step; what is left of an epoch is dropped.
        timesteps: T.
        weight_decay: on kernels.
        augment: crop and flip, see `data.augment`.
        start: resume from this state of the same run; it is not changed.

    Yields:
        `Progress` after each step. The next step donates its state: copy what is to
        be kept.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: not one whole batch, or ``start`` is past the last step.
    """
    graphdef, *_ = split(model)
    tx = sgd(weight_decay)
    train_step = make_train_step(graphdef, tx, timesteps=timesteps, augment=augment)
    state = init(model, tx) if start is None else _copy(start)
    if state.step > len(learning_rates):
        raise ValueError(
            f"start has done {int(state.step)} steps, more than the "
            f"{len(learning_rates)} of learning_rates; it is of another run"
        )
    arrays = on_device(dataset)
    per_epoch = steps_per_epoch(dataset, batch_size)
    key = jax.random.key(seed)
    batches = None
    for step in range(int(state.step), len(learning_rates)):
        epoch, place = divmod(step, per_epoch)
        if batches is None or place == 0:
            order = epoch_order(seed, epoch, len(dataset))
            batches = train_batches(order, batch_size)
        rate = np.float32(learning_rates[step])
        state, metrics = train_step(state, *arrays, batches[place], rate, key)
        if not np.isfinite(metrics.loss):
            raise FloatingPointError(
                f"the loss is {float(metrics.loss)} at step {step + 1} of "
                f"{len(learning_rates)}; try a lower learning rate, and check that "
                "the network has an output for every class"
            )
        yield Progress(state, step + 1, len(learning_rates), metrics)


def trained(model: Model, state: TrainState) -> Model:
    """The network of ``state``, with ``model``'s structure."""
    return nnx.merge(split(model)[0], state.params, state.rest, copy=True)
