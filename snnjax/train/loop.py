"""The loop: batches and learning rates by step, so that a run can be resumed."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from snnjax.batches import epoch_order, train_batches
from snnjax.data import Dataset
from snnjax.train.steps import (
    Metrics,
    Penalty,
    TrainState,
    copied,
    init,
    make_train_step,
    on_device,
    sgd,
    split,
)


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
    penalty: Penalty | None = None,
    target: Any = None,
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
        penalty: added to the loss, see `make_train_step`.
        target: what ``penalty`` takes beside the rates; arrays.
        start: resume from this state of the same run; it is not changed.

    Yields:
        `Progress` after each step. The next step donates its state: copy what is to
        be kept.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: not one whole batch, ``start`` is past the last step, a target
            without a penalty, or a penalty that is no scalar.
    """
    if target is not None and penalty is None:
        raise ValueError("target is what a penalty takes; give penalty as well")
    graphdef, *_ = split(model)
    tx = sgd(weight_decay)
    train_step = make_train_step(
        graphdef, tx, timesteps=timesteps, augment=augment, penalty=penalty
    )
    state = init(model, tx) if start is None else copied(start)
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
        state, metrics = train_step(state, *arrays, batches[place], rate, key, target)
        if not np.isfinite(metrics.loss):
            raise FloatingPointError(
                f"the loss is {float(metrics.loss)} at step {step + 1} of "
                f"{len(learning_rates)}; try a lower learning rate, and check that "
                "the network has an output for every class and that the penalty, if "
                "there is one, is finite"
            )
        yield Progress(state, step + 1, len(learning_rates), metrics)
