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
from snnjax.train import checks, guards
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
    """Where `fit` is, after a step.

    Attributes:
        state: to resume from.
        step: steps done.
        steps: of how many.
        metrics: of this step.
        silent: layers that fell silent in this step, see `fit`.
    """

    state: TrainState
    step: int
    steps: int
    metrics: Metrics
    silent: tuple[str, ...] = ()


def one_cycle(steps: int, peak: float) -> np.ndarray:
    """Learning rates: along half a cosine up to ``peak``, along another down to 0.

    The way up starts at ``peak / 25`` and takes 30 % of the steps.

    Raises:
        ValueError: no steps, or a peak that is no finite number from 0.
    """
    checks.check_whole(steps=steps)
    checks.check_number(peak=peak)
    schedule = optax.cosine_onecycle_schedule(steps, peak)
    return np.asarray(jax.vmap(schedule)(jnp.arange(steps)))


def cosine(steps: int, start: float) -> np.ndarray:
    """Learning rates: from ``start`` down to 0 along half a cosine.

    Raises:
        ValueError: no steps, or a start that is no finite number from 0.
    """
    checks.check_whole(steps=steps)
    checks.check_number(start=start)
    schedule = optax.cosine_decay_schedule(start, steps)
    return np.asarray(jax.vmap(schedule)(jnp.arange(steps)))


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Whole batches in an epoch.

    Raises:
        ValueError: not even one.
    """
    checks.check_batch(dataset, batch_size)
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
    on_nonfinite: str = "stop",
    silent_above: float | None = None,
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
        on_nonfinite: what to do at a loss or gradient that is not finite: ``"stop"``
            raises; ``"skip"`` goes on with the next batch, parameters, statistics and
            momentum left as they were, counts that in ``TrainState.skipped``, and
            raises after 100 such steps in a row.
        silent_above: watch the layers: ``Progress.silent`` names each in whose batch
            more than this fraction of the neurons fired at a rate below 0.05, at the
            step when it happens (and once more where a resumed run finds it so).

    Yields:
        `Progress` after each step. The next step donates its state: copy what is to
        be kept.

    Raises:
        NonFinite: a loss or gradient is not finite; a FloatingPointError.
        ValueError: learning rates, seed or sizes that cannot be, labels beyond the
            network's outputs, ``start`` past the last step, a target without a penalty,
            a penalty that is no scalar.
    """
    checks.check_model(model)
    checks.check_rates(learning_rates)
    checks.check_seed(seed)
    checks.check_whole(timesteps=timesteps)
    checks.check_batch(dataset, batch_size)
    checks.check_fraction(silent_above=silent_above)
    if target is not None and penalty is None:
        raise ValueError("target is what a penalty takes; give penalty as well")
    parts = split(model)
    checks.check_outputs(parts, dataset, timesteps)
    tx = sgd(weight_decay)
    train_step = make_train_step(
        parts[0],
        tx,
        timesteps=timesteps,
        augment=augment,
        penalty=penalty,
        on_nonfinite=on_nonfinite,
        dead=silent_above is not None,
    )
    state = init(model, tx) if start is None else copied(start)
    if state.step > len(learning_rates):
        raise ValueError(
            f"start has done {int(state.step)} steps, more than the "
            f"{len(learning_rates)} of learning_rates; it is of another run"
        )
    arrays, per_epoch = on_device(dataset), steps_per_epoch(dataset, batch_size)
    key = jax.random.key(seed)
    batches, in_a_row = None, 0
    above = guards.Silent(silent_above)
    for step in range(int(state.step), len(learning_rates)):
        epoch, place = divmod(step, per_epoch)
        if batches is None or place == 0:
            order = epoch_order(seed, epoch, len(dataset))
            batches = train_batches(order, batch_size)
        rate = np.float32(learning_rates[step])
        state, metrics = train_step(state, *arrays, batches[place], rate, key, target)
        finite = np.asarray(metrics.finite)
        in_a_row = 0 if finite.all() else in_a_row + 1
        if in_a_row and (on_nonfinite == "stop" or in_a_row == guards.MOST_SKIPPED):
            raise guards.nonfinite(
                model,
                state.params,
                finite,
                step=step + 1,
                steps=len(learning_rates),
                loss=float(metrics.loss),
                skipped=in_a_row if on_nonfinite == "skip" else 0,
            )
        silent = above.update(metrics.dead)
        yield Progress(state, step + 1, len(learning_rates), metrics, silent)
