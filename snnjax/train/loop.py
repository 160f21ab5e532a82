"""Training loops: an iterator over steps that resumes, and a function over epochs."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypedDict, TypeVar, Unpack, overload

import jax
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snnjax import distill as distillation
from snnjax import process
from snnjax.data import Batches, Dataset, as_batches
from snnjax.train import checks, guards, sharding
from snnjax.train.evaluate import Evaluation, evaluate
from snnjax.train.feeding import make_feed
from snnjax.train.losses import Loss, check_mask_argument, cross_entropy
from snnjax.train.optimizers import check_schedules
from snnjax.train.state import (
    TrainState,
    copy_arrays,
    init,
    model_from_state,
    split,
    unstack,
)
from snnjax.train.step import (
    Augment,
    Metrics,
    Penalty,
    check_functions,
    make_train_step,
)

Model = TypeVar("Model", bound=nnx.Module)
Models = nnx.Module | Sequence[nnx.Module]
Data = Dataset | Batches | Iterable[Any]
Optimizers = optax.GradientTransformation | Sequence[optax.GradientTransformation]


class Progress(NamedTuple):
    """Progress of `steps`, after a step.

    Attributes:
        state: to resume from. The next step takes its arrays: copy what is to be kept,
            as `model_from_state` does.
        step: steps done.
        steps: of all; None where they end with the last pass over batches.
        metrics: of this step, NumPy arrays.
        silent: for each network, the layers that fell silent in this step.
        validation: for each network its evaluation, after the last step of an epoch or
            of the run, where a validation set is given; else None.
        position: in the batches behind this step, a dict to resume from beside the
            state; None where their iterator has no ``get_state``.
    """

    state: TrainState
    step: int
    steps: int | None
    metrics: Metrics
    silent: tuple[tuple[str, ...], ...]
    validation: tuple[Evaluation, ...] | None = None
    position: Any = None


class StepsOptions(TypedDict, total=False):
    """Options of `steps` that `fit` passes on."""

    epochs: int | None
    steps: int | None
    timesteps: int
    loss: Loss | None
    augment: Augment | None
    penalty: Penalty | None
    target: Any
    teacher: nnx.Module | None
    distill: Any
    validation: Data | None
    start: TrainState | None
    position: Any
    on_nonfinite: str
    silent_above: float | None
    mesh: Mesh | None


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Return the number of whole batches in an epoch.

    Raises:
        ValueError: not even one.
    """
    checks.check_batch(dataset, batch_size)
    return len(dataset) // batch_size


@overload
def fit(
    model: Model,
    dataset: Data,
    *,
    optimizer: optax.GradientTransformation,
    batch_size: int | None = None,
    seed: int,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    keep_best: bool = False,
    **options: Unpack[StepsOptions],
) -> Model: ...
@overload
def fit(
    model: Sequence[Model],
    dataset: Data,
    *,
    optimizer: Optimizers,
    batch_size: int | None = None,
    seed: int,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    keep_best: bool = False,
    **options: Unpack[StepsOptions],
) -> list[Model]: ...
@overload
def fit(
    model: Models,
    dataset: Data,
    *,
    optimizer: Optimizers,
    batch_size: int | None = None,
    seed: int,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    keep_best: bool = False,
    **options: Unpack[StepsOptions],
) -> Any: ...
def fit(
    model: Any,
    dataset: Data,
    *,
    optimizer: Optimizers,
    batch_size: int | None = None,
    seed: int,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    keep_best: bool = False,
    **options: Unpack[StepsOptions],
) -> Any:
    """Train a network, or several of one structure side by side, and return it.

    Args:
        model: a network or a sequence of networks; they stay as they are.
        dataset: training images, or batches of them, as of `steps`.
        optimizer: any optax transformation, such as ``optax.adam(3e-3)``.
        batch_size: images a step; of batches it is theirs.
        seed: of the order of batches and of the augmentation.
        callbacks: functions of `Progress`, called after each step.
        keep_best: return each network as it was at its best accuracy on the validation
            set (the first of equal ones); a resumed run knows its own epochs alone.
        options: those of `steps`; ``epochs`` or ``steps`` among them.

    Returns:
        The trained network in evaluation mode; a list where a sequence was given.

    Raises:
        NonFiniteError: a loss or gradient is not finite; a FloatingPointError.
        ValueError: as `steps`; callbacks that are no functions, or ``keep_best``
            without a validation set.
    """
    checks.check_callbacks(callbacks)
    checks.check_bool(keep_best=keep_best)
    if keep_best and options.get("validation") is None:
        raise ValueError("keep_best needs a validation set; give validation=dataset")
    networks = checks.as_list(model)
    state = None
    best: list[tuple[float, nnx.Module | None]] = [(-1.0, None)] * len(networks)
    every = steps(
        networks,
        dataset,
        optimizer=optimizer,
        batch_size=batch_size,
        seed=seed,
        **options,
    )
    for progress in every:
        state = progress.state
        for callback in callbacks:
            callback(progress)
        if keep_best and progress.validation is not None:
            for i, evaluation in enumerate(progress.validation):
                if evaluation.accuracy > best[i][0]:
                    found = model_from_state(networks[i], state, i)
                    best[i] = evaluation.accuracy, found
    if state is None:
        state = options.get("start")
        assert state is not None, "only a run that had ended takes no step"
    trained = [
        kept if kept is not None else model_from_state(network, state, i)
        for i, (network, (_, kept)) in enumerate(zip(networks, best, strict=True))
    ]
    return trained[0] if isinstance(model, nnx.Module) else trained


def steps(
    model: Models,
    dataset: Data,
    *,
    optimizer: Optimizers,
    batch_size: int | None = None,
    seed: int,
    epochs: int | None = None,
    steps: int | None = None,
    timesteps: int = 4,
    loss: Loss | None = None,
    augment: Augment | None = None,
    penalty: Penalty | None = None,
    target: Any = None,
    teacher: nnx.Module | None = None,
    distill: Any = None,
    validation: Data | None = None,
    start: TrainState | None = None,
    position: Any = None,
    on_nonfinite: str = "stop",
    silent_above: float | None = None,
    mesh: Mesh | None = None,
) -> Iterator[Progress]:
    """Return an iterator that trains a network, or several of one structure.

    Several networks differ in numbers only (weights, bits, clips, slopes, learning
    rates) and share one compiled step; the run of each is that of itself alone. Batches
    and random keys are functions of (seed, step), so a run that is resumed from a state
    is the run that was never stopped.

    Args:
        model: a network, or a sequence of networks: as many as the devices along
            ``config``, or a multiple; they stay as they are.
        dataset: training images, or sequences of ``timesteps`` steps, in memory; or any
            iterable of batches that can be read in each pass again, see `data.Batches`:
            its order is its own, and with several processes each reads its share.
        optimizer: any optax transformation, with its learning rate or schedule inside:
            ``optax.adam(3e-3)``, ``optax.chain(optax.clip_by_global_norm(1.0), ...)``.
            With `sgd` and `adamw` other rates do not compile again. Or a sequence, one
            for each network, that differ in the numbers of their states only.
        batch_size: images a step, of each network; what is left of an epoch is dropped.
            Of batches it is theirs, and may be left out.
        seed: of the order of batches and of the augmentation, one for all networks.
        epochs: passes over the data set; or
        steps: number of batches. One of the two.
        timesteps: T.
        loss: ``loss(logits [T, B, classes], labels [B])``, the mean over the batch;
            None is `cross_entropy`.
        augment: ``augment(key, images, part=(i, n))``, such as `data.augment`.
        penalty: added to the loss, see `make_train_step`.
        target: arrays that ``penalty`` takes beside the rates.
        teacher: a network whose firing on the same batch ``distill`` compares with; it
            stays as it is, and runs in evaluation mode.
        distill: added to the loss: ``distill(student, teacher)`` of their recordings,
            see `snnjax.distill`; None with a teacher is `distill.firing` at its
            defaults.
        validation: evaluated after each epoch and after the last step, see
            `Progress.validation`; a data set or batches, as of `evaluate`.
        start: resume from this state of the same run; it is not changed.
        position: with ``start``, where batches continue: that of the `Progress` whose
            state it is. Without it, the batches of the steps that were done are read
            once more and left out.
        on_nonfinite: at a loss or gradient that is not finite ``"stop"`` raises;
            ``"skip"`` continues with the next batch, parameters, statistics and
            momentum left as they were, counts that in ``TrainState.skipped``, and
            raises after 100 such steps in a row.
        silent_above: watch the layers: ``Progress.silent`` names each in whose batch
            more than this fraction of the neurons fired at a rate below 0.05, at the
            step when it happens (and once more where a resumed run finds it so).
        mesh: of `make_mesh`: devices along ``data``, those of other processes too, each
            take their part of every batch, and networks are divided along ``config``.
            The run is that of one device but for the order in which sums are made.

    Yields:
        `Progress` after each step.

    Raises:
        NonFiniteError: a loss or gradient is not finite; a FloatingPointError.
        ValueError: at the call, if sizes, seed, epochs or steps cannot be; labels
            beyond the network's outputs; a start past the last step or of another
            network or optimizer; a network that is called otherwise than
            `models.SpikingModel`, or whose recorded values are no spikes, where rates
            are taken; a target without a penalty; a batch or networks that
            the devices cannot share; networks of several structures.
    """
    networks = checks.as_list(model)
    optimizers = checks.as_optimizers(optimizer, len(networks))
    if steps is not None:
        checks.check_whole(steps=steps)
    if epochs is not None:
        checks.check_whole(epochs=epochs)
    if (epochs is None) == (steps is None):
        raise ValueError(
            "give epochs or steps, one of the two, got "
            f"epochs={epochs} and steps={steps}"
        )
    checks.check_seed(seed)
    checks.check_whole(timesteps=timesteps)
    checks.check_fraction(silent_above=silent_above)
    loss = cross_entropy if loss is None else loss
    check_functions(loss, augment, penalty)
    guards.check_on_nonfinite(on_nonfinite)
    if target is not None and penalty is None:
        raise ValueError("target is what a penalty takes; give penalty as well")
    lesson = distillation.make_lesson(teacher, distill)
    checks.check_alike(networks, mesh)
    feed = make_feed(
        as_batches(dataset),
        batch_size=batch_size,
        seed=seed,
        epochs=epochs,
        steps=steps,
        mesh=mesh,
    )
    check_mask_argument(loss, feed.has_lengths)
    number, parts = feed.steps, split(networks[0])
    feed.outputs = checks.check_outputs(parts, feed.example, timesteps)
    if validation is not None:
        validation = as_batches(validation, "validation")
        checks.check_evaluated(validation, "validation")
        if isinstance(validation, Dataset):
            checks.check_outputs(parts, validation, timesteps)
            checks.check_statistics(feed.example, validation)
    if mesh is not None or len(networks) > 1:
        sharding.check_no_keys(parts[1:])
    like = jax.eval_shape(lambda: init(networks, optimizers))
    if start is not None:
        checks.check_start(start, like, number)
        checks.check_numbers(start, networks)
        check_schedules(start, lambda: init(networks, optimizers))
    elif position is not None:
        raise ValueError("position goes with start; give start=progress.state as well")
    train_step = make_train_step(
        parts[0],
        optimizers[0],
        timesteps=timesteps,
        loss=loss,
        augment=augment,
        penalty=penalty,
        on_nonfinite=on_nonfinite,
        dead=silent_above is not None,
        mesh=mesh,
    )
    done = 0 if start is None else int(np.asarray(sharding.to_host(start.step))[0])
    batches = feed.run(done, position)
    given = sharding.shard((make_key(seed), target, lesson), mesh)
    # Traced at the call, and not once more: what functions return is found out now.
    jits = not jax.config.jax_disable_jit  # pyrefly: ignore
    if jits and (ahead := next(batches, None)) is not None:
        shapes = sharding.place_shapes(like, mesh, P(sharding.CONFIG))
        jax.eval_shape(train_step, shapes, ahead.arrays, ahead.indices, *given)
        batches = itertools.chain(iter([ahead]), batches)  # which keeps no list of it

    def run() -> Iterator[Progress]:
        # On a mesh the state may lie on other devices than those of this run.
        first = init(networks, optimizers) if start is None else sharding.to_host(start)
        state = sharding.shard(copy_arrays(first), mesh, P(sharding.CONFIG))
        del first
        monitors = [guards.SilenceMonitor(silent_above) for _ in networks]
        in_a_row = np.zeros(len(networks), int)
        for step, fed in enumerate(batches, start=done):
            arrays, indices = fed.arrays, fed.indices
            state, metrics = train_step(state, arrays, indices, *given)
            metrics = sharding.to_host(metrics)
            if step == done + 1:
                process.release_freed_memory()
            guards.check_graded({k: bool(x.any()) for k, x in metrics.graded.items()})
            finite = metrics.finite.all(axis=1)
            in_a_row = np.where(finite, 0, in_a_row + 1)
            skip = on_nonfinite == "skip" and in_a_row.max() < guards.MOST_SKIPPED
            if not finite.all() and not skip:
                i = int(in_a_row.argmax())
                raise guards.nonfinite_error(
                    networks[i],
                    unstack(state.params)[i],
                    metrics.finite[i],
                    step=step + 1,
                    steps=number,
                    loss=float(metrics.loss[i]),
                    skipped=int(in_a_row[i]) if on_nonfinite == "skip" else 0,
                    index=i,
                )
            silent = tuple(
                monitor.update({name: x[i] for name, x in metrics.dead.items()})
                for i, monitor in enumerate(monitors)
            )
            found = None
            last = fed.ends_epoch or step + 1 == number
            if validation is not None and last:
                found = _validate(networks, state, validation, timesteps, mesh)
            yield Progress(
                *(state, step + 1, number, metrics, silent, found), fed.position
            )

    return run()


def make_key(seed: int) -> Array:
    """Make another key for each seed: JAX takes the lowest 32 bits, without x64."""
    low, high = int(seed) % 2**32, int(seed) // 2**32
    key = jax.random.key(low)
    return jax.random.fold_in(key, high) if high else key


def _validate(networks, state, validation, timesteps, mesh) -> tuple[Evaluation, ...]:
    models = [model_from_state(m, state, i) for i, m in enumerate(networks)]
    return tuple(evaluate(models, validation, timesteps=timesteps, mesh=mesh))
