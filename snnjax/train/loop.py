"""The loop: batches and learning rates by step, so that a run can be resumed."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snnjax import _checks
from snnjax.data import Dataset, epoch_order, on_device, train_batches
from snnjax.train import checks, devices, guards
from snnjax.train.steps import (
    OPTIMIZERS,
    Metrics,
    Penalty,
    TrainState,
    copied,
    init,
    make_train_step,
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


def cosine(steps: int, start: float, warmup: int = 0) -> np.ndarray:
    """Learning rates: from ``start`` down to 0 along half a cosine.

    Before it, ``warmup`` of the steps go up in a line: step k has
    ``start * (k + 1) / (warmup + 1)``.

    Raises:
        ValueError: no steps, a start that is no finite number from 0, or a warm-up that
            takes all steps.
    """
    checks.check_whole(steps=steps)
    checks.check_whole(0, warmup=warmup)
    checks.check_number(start=start)
    if warmup >= steps:
        raise ValueError(f"warmup must be below the {steps} steps, got {warmup}")
    schedule = optax.cosine_decay_schedule(start, steps)
    if warmup:
        first = start / (warmup + 1)
        schedule = optax.warmup_cosine_decay_schedule(first, start, warmup, steps)
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
    optimizer: str = "sgd",
    weight_decay: float = 5e-4,
    label_smoothing: float = 0.0,
    augment: bool = False,
    penalty: Penalty | None = None,
    target: Any = None,
    start: TrainState | None = None,
    on_nonfinite: str = "stop",
    silent_above: float | None = None,
    mesh: Mesh | None = None,
) -> Iterator[Progress]:
    """Train; iterating does the steps.

    Args:
        model: where to start; it is not changed. `trained` takes the result out.
        dataset: training images, or event frames of ``timesteps`` steps.
        learning_rates: one for each step.
        seed: of the order of batches and of the augmentation.
        batch_size: images a step; what is left of an epoch is dropped.
        timesteps: T.
        optimizer: ``"sgd"``, with Nesterov momentum 0.9, or ``"adamw"``.
        weight_decay: on parameters named ``kernel``, as Flax's layers and ours do.
        label_smoothing: share of each label spread over all classes.
        augment: crop and flip, see `data.augment`.
        penalty: added to the loss, see `make_train_step`.
        target: what ``penalty`` takes beside the rates; arrays.
        start: resume from this state of the same run; it is not changed. The numbers of
            neurons and quantizers, such as bits, are the state's.
        on_nonfinite: what to do at a loss or gradient that is not finite: ``"stop"``
            raises; ``"skip"`` goes on with the next batch, parameters, statistics and
            momentum left as they were, counts that in ``TrainState.skipped``, and
            raises after 100 such steps in a row.
        silent_above: watch the layers: ``Progress.silent`` names each in whose batch
            more than this fraction of the neurons fired at a rate below 0.05, at the
            step when it happens (and once more where a resumed run finds it so).
        mesh: of `make_mesh`: devices along ``data``, those of other processes too, each
            take their part of every batch, and the states lie on all of them. The run
            is that of one device but for the order in which sums are made.

    Yields:
        `Progress` after each step. The next step donates its state: copy what is to
        be kept.

    Raises:
        NonFinite: a loss or gradient is not finite; a FloatingPointError.
        ValueError: learning rates, seed or sizes that cannot be, labels beyond the
            network's outputs, ``start`` past the last step, a target without a penalty,
            a penalty that is no scalar, a batch that the devices cannot share.
    """
    checks.check_model(model)
    for state, step, metrics, silent in train_steps(
        [model],
        dataset,
        learning_rates,
        seed=seed,
        batch_size=batch_size,
        timesteps=timesteps,
        optimizer=optimizer,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        augment=augment,
        penalty=penalty,
        target=target,
        starts=None if start is None else [start],
        on_nonfinite=on_nonfinite,
        silent_above=silent_above,
        mesh=mesh,
        sweep=False,
    ):
        yield Progress(state, step, len(learning_rates), metrics, silent[0])


def _key(seed: int) -> Array:
    """Another key for each seed: JAX itself takes the lowest 32 bits, without x64."""
    low, high = int(seed) % 2**32, int(seed) // 2**32
    key = jax.random.key(low)
    return jax.random.fold_in(key, high) if high else key


def train_steps(
    models,
    dataset,
    learning_rates,
    *,
    seed,
    batch_size,
    timesteps=4,
    optimizer="sgd",
    weight_decay=5e-4,
    label_smoothing=0.0,
    augment=False,
    penalty=None,
    target=None,
    starts=None,
    on_nonfinite="stop",
    silent_above=None,
    mesh=None,
    sweep,
) -> Iterator[tuple[TrainState, int, Metrics, list[tuple[str, ...]]]]:
    """The loop of `fit` and of `sweep`, whose states have an axis of models."""
    checks.check_rates(learning_rates)
    checks.check_seed(seed)
    checks.check_whole(timesteps=timesteps)
    checks.check_batch(dataset, batch_size)
    checks.check_fraction(silent_above=silent_above)
    checks.check_number(label_smoothing=label_smoothing)
    checks.check_bool(augment=augment)
    guards.check_on_nonfinite(on_nonfinite)
    if penalty is not None:
        _checks.function("penalty", penalty)
    devices.check_mesh(mesh)
    devices.check_share(batch_size, mesh)
    if target is not None and penalty is None:
        raise ValueError("target is what a penalty takes; give penalty as well")
    parts = split(models[0])
    checks.check_outputs(parts, dataset, timesteps)
    if mesh is not None or sweep:
        devices.check_no_keys(parts[1:])
    if not isinstance(optimizer, str) or optimizer not in OPTIMIZERS:
        raise ValueError(
            f"optimizer must be one of {tuple(OPTIMIZERS)}, got {optimizer!r}"
        )
    tx = OPTIMIZERS[optimizer](weight_decay)
    train_step = make_train_step(
        parts[0],
        tx,
        timesteps=timesteps,
        augment=augment,
        # Numbers by which a compiled step is found: an array has no hash.
        label_smoothing=float(label_smoothing),
        penalty=penalty,
        on_nonfinite=on_nonfinite,
        dead=silent_above is not None,
        mesh=mesh,
        sweep=sweep,
    )
    if starts is None:
        states = [init(model, tx) for model in models]
    else:
        checks.check_starts(starts, jax.eval_shape(lambda: init(models[0], tx)))
        # Of a mesh they may lie on more devices than this run is to take.
        states = [copied(devices.here(start)) for start in starts]
    first = int(states[0].step)
    if first > len(learning_rates):
        raise ValueError(
            f"start has done {first} steps, more than the "
            f"{len(learning_rates)} of learning_rates; it is of another run"
        )
    if sweep:
        state = devices.put(devices.stacked(states), mesh, P(devices.CONFIG))
    else:
        state = devices.put(states[0], mesh)
    del states
    arrays = devices.put(on_device(dataset), mesh)
    key, target = devices.put((_key(seed), target), mesh)
    per_epoch = steps_per_epoch(dataset, batch_size)
    above = [guards.Silent(silent_above) for _ in models]
    in_a_row = [0 for _ in models]
    batches = None
    for step in range(first, len(learning_rates)):
        epoch, place = divmod(step, per_epoch)
        if batches is None or place == 0:
            order = epoch_order(seed, epoch, len(dataset))
            batches = train_batches(order, batch_size)
        indices = devices.put(batches[place], mesh, P(devices.DATA))
        rate = np.float32(learning_rates[step])
        state, metrics = train_step(state, *arrays, indices, rate, key, target)
        if sweep:
            metrics = devices.fetched(metrics)
        finite = np.asarray(metrics.finite).reshape(len(models), -1)
        for i in range(len(models)):
            in_a_row[i] = 0 if finite[i].all() else in_a_row[i] + 1
            skip = on_nonfinite == "skip" and in_a_row[i] < guards.MOST_SKIPPED
            if in_a_row[i] == 0 or skip:
                continue
            params = devices.unstacked(state.params)[i] if sweep else state.params
            raise guards.nonfinite(
                models[i],
                params,
                finite[i],
                step=step + 1,
                steps=len(learning_rates),
                loss=float(np.ravel(metrics.loss)[i]),
                skipped=in_a_row[i] if on_nonfinite == "skip" else 0,
                config=i,
            )
        dead: list[Mapping[str, Any]] = [metrics.dead]
        if sweep:
            every = range(len(models))
            dead = [{k: x[i] for k, x in metrics.dead.items()} for i in every]
        silent = [a.update(d) for a, d in zip(above, dead, strict=True)]
        yield state, step + 1, metrics, silent
