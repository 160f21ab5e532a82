"""The training step: a pure function under ``jax.jit``, compiled once a structure."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snnjax import data
from snnjax.layers import synchronize
from snnjax.train import checks, devices, guards

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
        skipped: how many of them were skipped, int32.
    """

    params: nnx.State
    rest: nnx.State
    opt_state: optax.OptState
    step: Array
    skipped: Array


class Metrics(NamedTuple):
    """Of one training step.

    Attributes:
        loss: mean over its batch.
        accuracy: of its batch.
        finite: bool ``[1 + parameters]``: whether the loss is finite, and the gradient
            of each parameter, in the order of ``jax.tree.leaves(state.params)``.
        dead: ``{layer: fraction}`` of neurons whose rate in the batch is below 0.05;
            ``{}`` unless it was asked for.
    """

    loss: Array
    accuracy: Array
    finite: Array
    dead: dict[str, Array]


def sgd(weight_decay: float, momentum: float = 0.9) -> optax.GradientTransformation:
    """SGD with Nesterov momentum and weight decay, for a learning rate of 1.

    The step multiplies by the learning rate, which is traced. Kernels decay; biases,
    BatchNorm and the steps of quantizers do not.

    Raises:
        ValueError: one of the two is no finite number from 0.
    """
    checks.check_number(weight_decay=weight_decay, momentum=momentum)
    return _sgd(float(weight_decay), float(momentum))


# Of equal numbers one and the same, for which a step is compiled once.
@functools.cache
def _sgd(weight_decay, momentum):
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_kernels),
        optax.trace(momentum, nesterov=True),
    )


def adamw(
    weight_decay: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay, for a learning rate of 1.

    The step multiplies by the learning rate, which is traced: decay is
    ``learning_rate * weight_decay * kernel``, as in Loshchilov and Hutter, 2019,
    algorithm 2, and optax.adamw. Kernels decay as with `sgd`.

    Raises:
        ValueError: one of them is no finite number from 0, or b1 or b2 is not below 1.
    """
    checks.check_number(weight_decay=weight_decay, b1=b1, b2=b2, eps=eps)
    if max(b1, b2) >= 1:
        raise ValueError(f"b1 and b2 must be below 1, got {b1} and {b2}")
    return _adamw(*map(float, (weight_decay, b1, b2, eps)))


@functools.cache
def _adamw(weight_decay, b1, b2, eps):
    return optax.chain(
        optax.scale_by_adam(b1, b2, eps),
        optax.add_decayed_weights(weight_decay, mask=_kernels),
    )


OPTIMIZERS = {"sgd": sgd, "adamw": adamw}


def _kernels(params):
    """What decays: not BatchNorm, biases, neurons' constants and quantizers' steps.

    By name, since neurons may have a constant for each of them: `[H, W, C]`.
    """

    def is_kernel(path, leaf):
        return "kernel" in (getattr(part, "key", None) for part in path)

    return jax.tree_util.tree_map_with_path(is_kernel, params)


def split(model: nnx.Module) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """The structure (static), the parameters, and the rest of ``model``."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    return graphdef, params, rest


def init(model: nnx.Module, tx: optax.GradientTransformation) -> TrainState:
    """The state of ``model`` before its first step.

    Raises:
        ValueError: it is no flax.nnx.Module.
    """
    checks.check_model(model)
    _, params, rest = split(model)
    # A copy: steps donate their state, and the model's arrays are not ours to free.
    params, rest = copied((params, rest))
    zero = jnp.zeros((), jnp.int32)
    return TrainState(params, rest, tx.init(params), zero, jnp.copy(zero))


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
    label_smoothing: float = 0.0,
    penalty: Penalty | None = None,
    on_nonfinite: str = "stop",
    dead: bool = False,
    mesh: Mesh | None = None,
    sweep: bool = False,
) -> jax.stages.Wrapped:
    """The training step of one network structure, compiled once and kept.

    Args:
        graphdef: the structure.
        tx: the optimizer, for a learning rate of 1.
        timesteps: T.
        augment: crop and flip, see `data.augment`.
        label_smoothing: share s in [0, 1) of each label that is spread evenly over all
            classes: ``(1 - s) * onehot + s / classes`` (Szegedy et al., 2016).
        penalty: ``penalty(rates, target)``, a scalar that is added to the loss, of the
            batch's firing rates ``{layer: [neurons...]}``, differentiable through the
            surrogates, and of a ``target`` that is traced. A distance to another
            network's firing, say: see `emd.soft_cdf_distance`. Each function is
            compiled and kept: make one, and sweep what it takes by ``target``.
        on_nonfinite: with ``"skip"`` a step whose loss or gradient is not finite
            changes nothing but ``step`` and ``skipped``; with ``"stop"`` it is for the
            caller to look at ``Metrics.finite``.
        dead: whether to measure ``Metrics.dead``.
        mesh: of `make_mesh`: each device takes its part of the batch along ``data``.
            BatchNorm, loss and gradients are those of the whole batch, whose size the
            devices along ``data`` must divide. ``indices`` are sharded along ``data``,
            all else is on every device.
        sweep: the state and the metrics have an axis of networks in front, sharded
            along ``config``; a device with several runs them one after another.

    Returns:
        ``train_step(state, images, labels, mean, std, indices, learning_rate, key,
        target)`` to the next state and its `Metrics`. ``images`` and ``labels``, as
        `on_device` gives them, are the whole data set; ``indices [B]`` choose the batch
        on the device. The loss is cross-entropy of the logits' mean over time, and the
        penalty. The state is donated.

    Raises:
        ValueError: timesteps below 1, label smoothing outside [0, 1), or another
            ``on_nonfinite``.
    """
    checks.check_whole(timesteps=timesteps)
    checks.check_number(label_smoothing=label_smoothing)
    if label_smoothing >= 1:
        raise ValueError(f"label_smoothing must be below 1, got {label_smoothing}")
    guards.check_on_nonfinite(on_nonfinite)

    axis, parts = devices.data_axis(mesh), devices.data_devices(mesh)

    def record(spikes):
        # Nothing of the trains is kept but what the backward pass needs.
        if penalty is None and not dead:
            return ()
        return jnp.mean(spikes, axis=(0, 1), dtype=jnp.float32)

    def train_step(
        state, images, labels, mean, std, indices, learning_rate, key, target=None
    ):
        batch, correct = images[indices], labels[indices]
        if augment:
            key = jax.random.fold_in(key, state.step)
            part = 0 if axis is None else jax.lax.axis_index(axis)
            batch = data.augment(key, batch, part=(part, parts))
        batch = data.network_input(batch, mean, std)

        def loss_fn(params):
            model = nnx.merge(graphdef, params, state.rest, copy=True)
            synchronize(model, axis)
            logits, rates = model(batch, timesteps=timesteps, train=True, record=record)
            wide = jnp.promote_types(logits.dtype, jnp.float32)
            logits = jnp.mean(logits.astype(wide), axis=0)
            loss = jnp.mean(_cross_entropy(logits, correct, label_smoothing))
            if penalty is not None:
                whole = rates if axis is None else jax.lax.pmean(rates, axis)
                added = jnp.asarray(penalty(whole, target))
                if added.ndim:
                    raise ValueError(
                        f"penalty must return a scalar, got shape {added.shape}"
                    )
                loss = loss + added
            accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == correct)
            return loss, (accuracy, split(model)[2], rates if dead else {})

        gradient = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (accuracy, rest, rates)), grads = gradient(state.params)
        if axis is not None:
            # All at once: one all-reduce. The rest is the same on all devices already.
            found = loss, accuracy, rates, grads
            loss, accuracy, rates, grads = jax.lax.pmean(found, axis)
        silent = {}
        if dead:
            silent = guards.dead_fractions(rates, timesteps * len(indices) * parts)
        finite = guards.finite(loss, grads)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = jax.tree.map(
            lambda p, u: p - learning_rate.astype(p.dtype) * u, state.params, updates
        )
        moved, skipped = (params, rest, opt_state), state.skipped
        if on_nonfinite == "skip":
            accept = jnp.all(finite)
            moved = guards.chosen(accept, moved, state[:3])
            skipped = skipped + (1 - accept.astype(jnp.int32))
        state = TrainState(*moved, state.step + 1, skipped)
        return state, Metrics(loss, accuracy, finite, silent)

    own = P(devices.CONFIG) if sweep else P()
    arrays, batch = (P(),) * 4, P(devices.DATA)
    program = devices.each(train_step, 1) if sweep else train_step
    program = devices.on_mesh(
        program, mesh, in_specs=(own, *arrays, batch, P(), P(), P()), out_specs=own
    )
    options = devices.compiler_options(mesh)
    return jax.jit(program, donate_argnums=0, compiler_options=options)


def _cross_entropy(logits, labels, smoothing):
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    onehot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(onehot, smoothing))


def trained(model: Model, state: TrainState) -> Model:
    """The network of ``state``, with ``model``'s structure and arrays of its own.

    It stays as it is while training goes on, whose next step takes the state's arrays.
    """
    params, rest = copied(devices.here((state.params, state.rest)))
    return nnx.merge(split(model)[0], params, rest, copy=True)
