"""The training step: a pure function under ``jax.jit``, compiled once a structure."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snnjax import _checks, distill
from snnjax._arrays import mean_over_first, mean_over_time, sum_over_first
from snnjax.layers import mask_time, project_scales, synchronize
from snnjax.train import checks, guards, sharding
from snnjax.train.eval_step import is_graded
from snnjax.train.losses import Loss, cross_entropy
from snnjax.train.state import TrainState, split

Penalty = Callable[[Mapping[str, Array], Any], Array]
Augment = Callable[..., Array]


class Metrics(NamedTuple):
    """Measures of one training step, each with the axis of networks in front.

    Attributes:
        loss: mean over its batch ``[networks]``.
        accuracy: of its batch ``[networks]``.
        finite: bool ``[networks, 1 + parameters]``, True where the loss and the
            gradient of each parameter are finite, in the order of
            ``jax.tree.leaves(state.params)``.
        dead: ``{layer: fraction [networks]}`` of neurons whose rate in the batch is
            below 0.05; ``{}`` unless it was asked for.
        graded: ``{layer: bool [networks]}``, True where what the layer recorded is no
            whole numbers from 0; ``{}`` where no rates are taken.
    """

    loss: Array
    accuracy: Array
    finite: Array
    dead: dict[str, Array]
    graded: Mapping[str, Array] = {}


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    *,
    timesteps: int,
    loss: Loss = cross_entropy,
    augment: Augment | None = None,
    penalty: Penalty | None = None,
    on_nonfinite: str = "stop",
    dead: bool = False,
    mesh: Mesh | None = None,
) -> jax.stages.Wrapped:
    """Return the training step of one network structure, compiled once and kept.

    Args:
        graphdef: the structure, see `split`.
        optimizer: any optax transformation, with its learning rate. Transformations
            with one ``update`` function share the step.
        timesteps: T.
        loss: ``loss(logits [T, B, classes], labels [B])``, a scalar: the mean over the
            batch. Each function is compiled for.
        augment: ``augment(key, images, part=(i, n))`` of uint8 images, such as
            `data.augment`; None leaves them as they are. On a mesh each device has
            part i of n equal parts of the batch.
        penalty: ``penalty(rates, target)``, a scalar that is added to the loss, of the
            batch's firing rates ``{layer: [neurons...]}``, differentiable through the
            surrogates, and of a ``target`` that is traced: a distance to another
            network's firing, see `emd.soft_cdf_distance`. Each function is compiled
            for; sweep the numbers that it takes by ``target``.
        on_nonfinite: with ``"skip"`` a step whose loss or gradient is not finite
            changes nothing but ``step`` and ``skipped``; with ``"stop"`` the caller
            reads ``Metrics.finite``.
        dead: measure ``Metrics.dead``.
        mesh: of `make_mesh`: each device takes its part of the batch along ``data``.
            BatchNorm, loss and gradients are those of the whole batch, whose size the
            devices along ``data`` must divide. Networks are sharded along ``config``;
            a device with several runs them one after another.

    Returns:
        ``train_step(state, dataset, indices, key, target=None, lesson=None)`` to the
        next state and its `Metrics`. ``lesson``, of `distill.make_lesson`, adds a
        distance to a teacher's firing to the loss. ``dataset`` is `data.on_device`'s,
        or a `data.batches.DeviceBatch`; ``indices [B]`` choose the batch, sharded along
        ``data``. The state is donated.

    Raises:
        ValueError: timesteps below 1, an argument that is no function, or another
            ``on_nonfinite``.
    """
    checks.check_whole(timesteps=timesteps)
    checks.check_optimizer(optimizer)
    check_functions(loss, augment, penalty)
    guards.check_on_nonfinite(on_nonfinite)
    return _make_train_step(
        graphdef,
        optimizer.update,
        isinstance(optimizer, optax.GradientTransformationExtraArgs),
        timesteps=int(timesteps),
        loss=loss,
        augment=augment,
        penalty=penalty,
        on_nonfinite=on_nonfinite,
        dead=dead,
        mesh=mesh,
    )


def check_functions(loss: Any, augment: Any, penalty: Any) -> None:
    """Raise ValueError unless they are functions, or None where that is allowed."""
    _checks.require_callable("loss", loss, "such as train.cross_entropy")
    if augment is not None:
        _checks.require_callable("augment", augment, "such as data.augment, or None")
    if penalty is not None:
        _checks.require_callable("penalty", penalty)


def check_mask_of_lesson(lesson: distill.Lesson, mask: Any) -> None:
    """Raise ValueError for a distance that would count the steps behind the ends."""
    if mask is not None and not lesson.loss.takes_mask:
        raise ValueError(
            "distill must leave out the steps after the ends of sequences of different "
            "lengths, by the mask of the recordings; the losses of snnjax.distill do, "
            "and a function of your own says so by function.takes_mask = True"
        )


# By the update function: how a state begins is no part of the program.
@functools.lru_cache(maxsize=64)
def _make_train_step(
    graphdef,
    update,
    takes_more,
    *,
    timesteps,
    loss,
    augment,
    penalty,
    on_nonfinite,
    dead,
    mesh,
):
    axis, parts = sharding.data_axis(mesh), sharding.data_devices(mesh)

    def record(spikes, mask):
        # Nothing of the trains is kept but what the backward pass needs.
        if penalty is None and not dead:
            return ()
        counted = spikes.astype(jnp.float32)
        if mask is not None:
            each = mask.reshape(*mask.shape, *(1,) * (spikes.ndim - 2))
            counted = jnp.where(each, counted, 0)
        counted = counted.reshape(-1, *spikes.shape[2:])
        if mask is None:
            rates = mean_over_first(counted)
        else:
            total = sum_over_first(counted)
            # The mean over devices is that over all steps, of which each has others.
            rates = total / count_steps(mask).astype(total.dtype) * parts
        return rates, is_graded(spikes)

    def count_steps(mask):
        steps = jnp.sum(mask)
        return steps if axis is None else jax.lax.psum(steps, axis)

    def train_step(state, dataset, indices, key, target=None, lesson=None):
        batch, labels = dataset.images(indices), dataset.classes(indices)
        if augment is not None:
            key = jax.random.fold_in(key, state.step)
            part = 0 if axis is None else jax.lax.axis_index(axis)
            batch = augment(key, batch, part=(part, parts))
        batch = dataset.network_input(batch)
        mask = dataset.mask(indices)
        taught = None
        if lesson is not None:
            check_mask_of_lesson(lesson, mask)
            taught = lesson.teach(batch, timesteps, axis, mask)

        def compute_loss(params):
            model = nnx.merge(graphdef, params, state.model_state, copy=True)
            model.train()
            synchronize(model, axis)
            if mask is not None:
                mask_time(model, mask)
            keep = functools.partial(record, mask=mask)
            seen = None
            if lesson is None:
                logits, kept = model(
                    batch, timesteps=timesteps, train=True, record=keep
                )
            else:
                needs = lesson.loss.needs_membranes
                seen = distill.record(model, batch, timesteps, True, needs, axis, mask)
                logits = seen.logits
                kept = {name: keep(spikes) for name, spikes in seen.spikes.items()}
            if mask is not None:
                mask_time(model, None)
            rates = {k: x[0] for k, x in kept.items() if x}
            graded = {k: x[1] for k, x in kept.items() if x}
            more = {} if mask is None else {"mask": mask}
            total = _scalar("loss", loss(logits, labels, **more))
            if lesson is not None:
                total = total + _scalar(
                    "distill", lesson.loss(seen, taught, state.step)
                )
            if penalty is not None:
                whole = rates if axis is None else jax.lax.pmean(rates, axis)
                total = total + _scalar("penalty", penalty(whole, target))
            correct = jnp.argmax(mean_over_time(logits, mask), axis=-1) == labels
            accuracy = jnp.mean(correct)
            model.eval()
            return total, (
                accuracy,
                split(model)[2],
                rates if dead else {},
                graded,
            )

        gradient = jax.value_and_grad(compute_loss, has_aux=True)
        (value, (accuracy, model_state, rates, graded)), grads = gradient(state.params)
        if axis is not None:
            # One all-reduce for all of them; model_state is equal on all devices.
            flags = {k: x.astype(jnp.float32) for k, x in graded.items()}
            sums = value, accuracy, rates, grads, flags
            value, accuracy, rates, grads, graded = jax.lax.pmean(sums, axis)
        graded = {k: x > 0 for k, x in graded.items()}
        silent = {}
        if dead:
            steps = timesteps * len(indices) * parts
            steps = steps if mask is None else count_steps(mask)
            silent = guards.dead_fractions(rates, steps)
        finite = guards.finite(value, grads)
        more = {"value": value, "grad": grads} if takes_more else {}
        updates, opt_state = update(grads, state.opt_state, state.params, **more)
        params = optax.apply_updates(state.params, updates)
        params = project_scales(state.params, params)
        moved: tuple[Any, Any, Any] = params, model_state, opt_state
        skipped = state.skipped
        if on_nonfinite == "skip":
            accept = jnp.all(finite)
            moved = guards.select(accept, moved, state[:3])
            skipped = skipped + (1 - accept.astype(jnp.int32))
        state = TrainState(*moved, state.step + 1, skipped)
        return state, Metrics(value, accuracy, finite, silent, graded)

    networks = P(sharding.CONFIG)
    mapped = sharding.map_models(train_step, 1)

    def named(state, dataset, indices, key, target=None, lesson=None):
        data = sharding.batch_specs(dataset)
        specs = (networks, data, P(sharding.DATA), P(), P(), P())
        program = sharding.on_mesh(mapped, mesh, specs, networks)
        # On a mesh no argument is left out.
        return program(state, dataset, indices, key, target, lesson)

    named.__name__ = "train_step"  # by which compilations are counted
    options = sharding.compiler_options(mesh)
    return jax.jit(named, donate_argnums=0, compiler_options=options)


def _scalar(name: str, value: Any) -> Array:
    try:
        value = jnp.asarray(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must return a scalar, got {type(value)}") from None
    if value.ndim:
        raise ValueError(f"{name} must return a scalar, got shape {value.shape}")
    return value
