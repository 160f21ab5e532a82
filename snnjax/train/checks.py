"""Checks of the arguments of training and evaluation, before anything is compiled."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from snnjax import _checks, _pytree, data
from snnjax.data import Batch, Batches, Dataset
from snnjax.layers import Hyperparameter
from snnjax.layers.inspect import check_model, check_ranges
from snnjax.models.protocol import call_checked
from snnjax.train import sharding


def check_whole(least: int = 1, **values: Any) -> None:
    """Raise ValueError unless all are whole numbers from ``least``."""
    for name, value in values.items():
        _checks.require_whole(name, value, least)


def check_number(**values: Any) -> None:
    """Raise ValueError unless all are finite numbers from 0."""
    for name, value in values.items():
        number = isinstance(value, int | float | np.number | np.ndarray | jax.Array)
        if not number or np.ndim(value) or not 0 <= value < np.inf:
            raise ValueError(f"{name} must be a finite number from 0, got {value!r}")


def check_fraction(**values: Any) -> None:
    """Raise ValueError unless all are None or within (0, 1]."""
    for name, value in values.items():
        number = isinstance(value, int | float | np.number)
        if value is not None and not (number and 0 < value <= 1):
            raise ValueError(
                f"{name} must be a fraction within (0, 1], or None, got {value!r}"
            )


def check_bool(**values: Any) -> None:
    """Raise ValueError unless all are True or False."""
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} must be True or False, got {value!r}")


def find_nonfinite(state: Any) -> list[str]:
    """Return the names of the arrays that have a NaN or an infinite number."""
    return [
        _pytree.format_path(path[1:])
        for (path, _), bad in zip(
            jax.tree_util.tree_leaves_with_path(state), _nonfinite(state), strict=True
        )
        if bad
    ]


@jax.jit
def _nonfinite(state):
    def is_bad(x):
        floats = jnp.issubdtype(x.dtype, jnp.inexact)
        return ~jnp.all(jnp.isfinite(x)) if floats else False

    return [jnp.asarray(is_bad(x)) for x in jax.tree.leaves(state)]


def check_seed(seed: Any) -> None:
    """Raise ValueError unless it makes a random key."""
    check_whole(0, seed=seed)
    if seed >= 2**63:
        raise ValueError(f"seed must be below 2**63, got {seed}")


def check_dataset(dataset: Any, name: str = "dataset") -> None:
    """Raise ValueError unless it is one of `snnjax.data`'s."""
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"{name} must be a snnjax.data.Dataset, got {type(dataset).__name__}; "
            "data.from_arrays(images, labels) makes one"
        )


def check_evaluated(dataset: Any, name: str = "dataset") -> None:
    """Raise ValueError unless firing can be measured on it, with its noise."""
    if isinstance(dataset, Batches):
        return
    check_dataset(dataset, name)
    if len(dataset) < 2:
        raise ValueError(f"{name} must have at least two images, to compare halves")


def check_batch(dataset: Any, batch_size: Any) -> None:
    """Raise ValueError unless an epoch has a whole batch."""
    check_dataset(dataset)
    check_whole(batch_size=batch_size)
    if batch_size > len(dataset):
        raise ValueError(
            f"batch_size: expected 1 to {len(dataset)}, the number of training images, "
            f"got {batch_size}; take a smaller batch"
        )


def as_list(models: Any) -> list[nnx.Module]:
    """Return a network, or a sequence of networks, as a list; else ValueError.

    In evaluation mode, copied for that where they are not: the mode is a part of a
    network's structure, for which programs are compiled.
    """
    if isinstance(models, nnx.Module):
        models = [models]
    if not isinstance(models, Sequence) or isinstance(models, str):
        check_model(models)
    networks = list(models)
    if not networks:
        raise ValueError("model must be at least one network, got none")
    for model in networks:
        check_model(model)
        check_ranges(model)
        _check_in_shape(model)
    return [_in_evaluation(model) for model in networks]


def _check_in_shape(model: nnx.Module) -> None:
    """Raise ValueError for inputs that no batch of `data` is: of one axis."""
    shape = getattr(model, "in_shape", ())
    if len(shape) == 2:
        length, channels = shape
        raise ValueError(
            f"model takes signals (length, channels) = {shape}, and data sets have "
            "images [B, H, W, C], event frames [B, T, H, W, C] or trains [B, T, F]; "
            f"give signals a height of 1: in_shape=(1, {length}, {channels}), "
            f"kernel_size=(1, k), frames [B, T, 1, {length}, {channels}]"
        )


def _in_evaluation(model: nnx.Module) -> nnx.Module:
    modes = {"use_running_average": False, "deterministic": False}
    trains = any(
        getattr(module, name, None) is mode
        for _, module in nnx.iter_modules(model)
        for name, mode in modes.items()
    )
    if trains:
        model = nnx.clone(model)
        model.eval()
    return model


OTHER_OPTIMIZERS = (
    "optimizer: those of several networks must differ in the numbers of their states "
    "alone; train.sgd and train.adamw do, with other rates or schedules of one kind"
)


def as_optimizers(optimizer: Any, number: int) -> list[optax.GradientTransformation]:
    """Return the optimizer of each network; ValueError unless they share a step."""
    if isinstance(optimizer, optax.GradientTransformation):
        return [optimizer] * number
    if isinstance(optimizer, list | tuple):
        for each in optimizer:
            check_optimizer(each)
        if len(optimizer) != number:
            raise ValueError(
                f"optimizer must be one for each of the {number} networks, got "
                f"{len(optimizer)}"
            )
        if len({each.update for each in optimizer}) > 1:
            raise ValueError(OTHER_OPTIMIZERS)
        return list(optimizer)
    check_optimizer(optimizer)
    return []


def check_optimizer(optimizer: Any) -> None:
    """Raise ValueError unless it is an optax transformation."""
    if not isinstance(optimizer, optax.GradientTransformation):
        raise ValueError(
            "optimizer must be an optax transformation, such as optax.adam(3e-3) or "
            f"train.sgd(0.1), got {optimizer!r}"
        )


def check_callbacks(callbacks: Any) -> None:
    """Raise ValueError unless they are a sequence of functions."""
    if isinstance(callbacks, list | tuple) and all(map(callable, callbacks)):
        return
    raise ValueError(
        f"callbacks must be a list of functions of train.Progress, got {callbacks!r}"
    )


@functools.cache
def _logits_function(graphdef: nnx.GraphDef, timesteps: int) -> Callable[..., Any]:
    """Return the function to the logits; kept, so that JAX traces it once."""

    def logits(params, rest, x):
        model = nnx.merge(graphdef, params, rest, copy=True)
        model.eval()
        return call_checked(model, x, timesteps=timesteps)

    return logits


def batch_shape(dataset: Dataset | Batch, size: int) -> jax.ShapeDtypeStruct:
    """Return shape and dtype of a batch as a network takes it."""
    images = jax.ShapeDtypeStruct(
        (size, *dataset.images.shape[1:]), dataset.images.dtype
    )
    convert = data.batch_input if isinstance(dataset, Batch) else data.network_input
    return jax.eval_shape(convert, images, dataset.mean, dataset.std)


def check_outputs(
    parts: tuple[nnx.GraphDef, nnx.State, nnx.State],
    dataset: Dataset | Batch,
    timesteps: int,
) -> int:
    """Return the number of outputs; ValueError without one for every label.

    A label beyond the outputs makes the loss NaN, and an accuracy of it means nothing.

    Args:
        parts: of the network, see `split`.
        dataset: with the labels, or a batch.
        timesteps: T.
    """
    graphdef, params, rest = parts
    x = batch_shape(dataset, 1)
    shape = jax.eval_shape(_logits_function(graphdef, timesteps), params, rest, x).shape
    if shape[1] != 1:
        raise ValueError(
            f"the network must return logits [T, B, classes], for an image and T = "
            f"{timesteps} [{timesteps}, 1, classes], got {list(shape)}"
        )
    check_labels(dataset, shape[-1])
    return shape[-1]


def check_labels(dataset: Dataset | Batch, outputs: int) -> None:
    """Raise ValueError unless there is an output for every label."""
    top = int(dataset.labels.max())
    if top >= outputs:
        raise ValueError(
            f"the labels go up to {top} and the network has {outputs} outputs; make "
            f"it with num_classes={max(top + 1, dataset.num_classes)}"
        )


def check_statistics(batch: Dataset | Batch, validation: Dataset) -> None:
    """Raise ValueError where pixels that are read are normalised by other numbers."""
    pixels = all(
        x.images.ndim == 4 and x.images.dtype == np.uint8 for x in (batch, validation)
    )
    if not isinstance(batch, Batch) or not pixels:
        return
    if not all(
        np.array_equal(getattr(batch, name), getattr(validation, name))
        for name in ("mean", "std")
    ):
        raise ValueError(
            "dataset and validation must be normalised by the same numbers, got mean "
            f"{batch.mean.tolist()}, std {batch.std.tolist()} and mean "
            f"{validation.mean.tolist()}, std {validation.std.tolist()}; train on "
            "data.Batches(source, mean=validation.mean, std=validation.std)"
        )


def form(*trees: Any) -> tuple:
    """Return structure, shapes and dtypes: trees of one form share a program."""
    leaves, structure = jax.tree.flatten(trees)
    return structure, [(np.shape(x), getattr(x, "dtype", None)) for x in leaves]


def check_start(start: Any, like: Any, steps: int | None) -> None:
    """Raise ValueError unless ``start`` can be continued up to so many steps.

    Args:
        start: given by the user.
        like: shapes and dtypes of the run's first state.
        steps: of the run, or None.
    """
    if not all(hasattr(start, name) for name in like._fields):
        raise ValueError(
            f"start must be a train.TrainState, got {type(start).__name__}; "
            "progress.state is one, and train.init makes one"
        )
    if form(start.params, start.model_state) != form(like.params, like.model_state):
        raise ValueError(
            "start is the state of another network, or of another number of them; "
            "train the network that it was made from (train.init), with the same "
            "layers and quantizers"
        )
    if form(start.opt_state) != form(like.opt_state):
        raise ValueError(
            "start is the state of another optimizer; give the one that it was made "
            "with (train.init)"
        )
    done = sorted(set(map(int, np.ravel(start.step))))
    if len(done) > 1:
        raise ValueError(
            f"start must be after one step for all networks, got the steps {done}; "
            "train those of each step by themselves"
        )
    if steps is not None and done[0] > steps:
        raise ValueError(
            f"start has done {done[0]} steps, more than the {steps} of this run; it is "
            "of another run"
        )


def check_numbers(start: Any, models: Sequence[nnx.Module]) -> None:
    """Raise ValueError unless neurons and quantizers have the numbers of ``start``.

    No step changes them: a network of 2 bits would be trained at the state's 8.
    """
    states = [nnx.state(model, Hyperparameter) for model in models]
    here = [jax.tree_util.tree_leaves_with_path(state) for state in states]
    there = jax.tree.leaves(nnx.filter_state(start.model_state, Hyperparameter))
    for place, x in enumerate(there):
        x = sharding.to_host(x)
        for i, leaves in enumerate(here):
            path, mine = leaves[place]
            if not np.array_equal(np.asarray(mine), x[i]):
                name = _pytree.format_path(path)
                raise ValueError(
                    f"start is the state of a network with other numbers: {name} is "
                    f"{x[i]} there and {mine} here; take the network of the state "
                    "(train.model_from_state) or begin without start"
                )


def check_alike(models: Sequence[nnx.Module], mesh: Mesh | None) -> None:
    """Raise ValueError unless the networks can be side by side on the mesh."""
    sharding.check_mesh(mesh)
    share = sharding.config_devices(mesh)
    if len(models) % share:
        raise ValueError(
            f"model must be a multiple of {share} networks, the devices along config, "
            f"got {len(models)}; make_mesh(configs=...) takes a divisor of their number"
        )
    if len(models) == 1:
        return
    structures = [_structure(model) for model in models]
    for i, structure in enumerate(structures):
        if structure != structures[0]:
            raise ValueError(
                f"model must be networks of one structure, and network {i} differs "
                "from the first: layers, sizes, dtypes, neurons, quantizers' methods, "
                "grids and signs, and LQ-Net's bits must be the same, other bits and "
                "bounds may differ"
            )


def _structure(model: nnx.Module) -> tuple:
    graphdef, *state = nnx.split(model)
    return graphdef, form(*state)
