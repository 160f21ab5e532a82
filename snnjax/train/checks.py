"""What training and evaluation are asked for, checked before anything is compiled."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import _checks, _pytree, data
from snnjax.data import Dataset


def check_whole(least: int = 1, **values: Any) -> None:
    """Raise ValueError unless all are whole numbers from ``least``."""
    for name, value in values.items():
        if not _checks.is_whole(value):
            raise ValueError(f"{name} must be a whole number, got {value!r}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


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


def nan_in(state: Any) -> list[str]:
    """Names of the arrays that have a NaN."""
    return [
        _pytree.leaf_name(path[1:])
        for (path, _), bad in zip(
            jax.tree_util.tree_leaves_with_path(state), _nans(state), strict=True
        )
        if bad
    ]


@jax.jit
def _nans(state):
    def has_nan(x):
        return jnp.any(jnp.isnan(x)) if jnp.issubdtype(x.dtype, jnp.inexact) else False

    return [jnp.asarray(has_nan(x)) for x in jax.tree.leaves(state)]


def check_seed(seed: Any) -> None:
    """Raise ValueError unless it makes a random key."""
    check_whole(0, seed=seed)
    if seed >= 2**63:
        raise ValueError(f"seed must be below 2**63, got {seed}")


def check_dataset(dataset: Any) -> None:
    """Raise ValueError unless it is one of `snnjax.data`'s."""
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"dataset must be a snnjax.data.Dataset, got {type(dataset).__name__}; "
            "data.from_arrays(images, labels) makes one"
        )


def check_batch(dataset: Any, batch_size: Any) -> None:
    """Raise ValueError unless an epoch has a whole batch."""
    check_dataset(dataset)
    check_whole(batch_size=batch_size)
    if batch_size > len(dataset):
        raise ValueError(
            f"batch_size: expected 1 to {len(dataset)}, the number of training images, "
            f"got {batch_size}; take a smaller batch"
        )


def check_model(model: Any, name: str = "model") -> None:
    """Raise ValueError unless it is a flax.nnx network."""
    if not isinstance(model, nnx.Module):
        raise ValueError(
            f"{name} must be a flax.nnx.Module, got {type(model).__name__}; make one, "
            "say with snnjax.models.sew_resnet8"
        )


def check_rates(learning_rates: Any) -> None:
    """Raise ValueError unless there is a finite learning rate from 0 for each step."""
    rates = np.asarray(learning_rates)
    if rates.ndim != 1 or not rates.size or rates.dtype.kind not in "fiu":
        raise ValueError(
            "learning_rates must be numbers [steps], at least one, got "
            f"{rates.dtype} {list(rates.shape)}; one_cycle and cosine make them"
        )
    bad = ~((rates >= 0) & (rates <= np.finfo(np.float32).max))
    if bad.any():
        step = int(np.argmax(bad))
        raise ValueError(
            f"learning_rates must be finite and not below 0, got {rates[step]} for "
            f"step {step + 1}; one_cycle and cosine make them"
        )


@functools.cache
def _logits_of(graphdef: nnx.GraphDef, timesteps: int) -> Callable[..., Any]:
    """The network's logits, to be traced; kept, so that JAX traces them once."""

    def logits(params, rest, x):
        model = nnx.merge(graphdef, params, rest, copy=True)
        return model(x, timesteps=timesteps, record=lambda spikes: ())[0]

    return logits


def batch_of(dataset: Dataset, size: int) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a batch as a network takes it."""
    images = jax.ShapeDtypeStruct((size, *dataset.images.shape[1:]), np.uint8)
    return jax.eval_shape(data.network_input, images, dataset.mean, dataset.std)


def check_outputs(
    parts: tuple[nnx.GraphDef, nnx.State, nnx.State], dataset: Dataset, timesteps: int
) -> None:
    """Raise ValueError unless the network has an output for every label.

    A label beyond the outputs makes the loss NaN, and an accuracy of it means nothing.

    Args:
        parts: of the network, as `steps.split` makes them.
        dataset: whose labels.
        timesteps: T.
    """
    graphdef, params, rest = parts
    x = batch_of(dataset, 1)
    shape = jax.eval_shape(_logits_of(graphdef, timesteps), params, rest, x).shape
    if len(shape) != 3 or shape[:2] != (timesteps, 1):
        raise ValueError(
            f"the network must return logits [T, B, classes], for an image and T = "
            f"{timesteps} [{timesteps}, 1, classes], got {list(shape)}"
        )
    top = int(dataset.labels.max())
    if top >= shape[-1]:
        raise ValueError(
            f"the labels go up to {top} and the network has {shape[-1]} outputs; make "
            f"it with num_classes={max(top + 1, dataset.num_classes)}"
        )


def form(*trees: Any) -> tuple:
    """Structure, shapes and dtypes: trees of one form go through one program."""
    leaves, structure = jax.tree.flatten(trees)
    return structure, [(np.shape(x), getattr(x, "dtype", None)) for x in leaves]


def check_starts(starts: Sequence[Any], like: Any) -> None:
    """Raise ValueError unless all have the structure and the shapes of ``like``."""
    for start in starts:
        if not all(hasattr(start, name) for name in like._fields):
            raise ValueError(
                f"start must be a train.TrainState, got {type(start).__name__}; "
                "progress.state is one, and train.init makes one"
            )
        if form(start.params, start.rest) != form(like.params, like.rest):
            raise ValueError(
                "start is the state of another network; train the network that it was "
                "made from (train.init), with the same layers and quantizers"
            )
        if form(start.opt_state) != form(like.opt_state):
            raise ValueError(
                "start is the state of another optimizer; give the one that it was "
                "made with (train.init)"
            )
