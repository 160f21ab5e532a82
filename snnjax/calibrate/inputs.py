"""The calibration set: a few hundred inputs, labels unused, in batches of one shape."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks, data

Inputs = data.Dataset | Iterable[ArrayLike]


def make_masked_batches(
    dataset: Inputs,
    *,
    images: int,
    batch_size: int,
    augment: Callable[..., Any] | None = None,
    seed: int = 0,
) -> Iterable[tuple[ArrayLike, Array | None]]:
    """Return the batches of a calibration set as a network takes them, and masks.

    A mask ``[T, B]`` is False in the steps after the end of a sequence; None where all
    sequences have one length.

    Args:
        dataset: a `data.Dataset`, of which the first images are taken; or batches of
            normalised images ``[B, H, W, C]`` or sequences ``[T, B, ...]``.
        images: how many images of a `data.Dataset`, in full batches.
        batch_size: images of each batch of a `data.Dataset`.
        augment: ``augment(key, images, *, part) -> images`` for a `data.Dataset`.
        seed: of the augmentation: a batch that starts with image i has the key
            ``fold_in(key(seed), i)``.

    Raises:
        ValueError: no data set and no batches; ``augment`` with batches that are
            prepared already.
    """
    if isinstance(dataset, data.Dataset):
        _checks.require_whole("images", images, 1)
        _checks.require_whole("batch_size", batch_size, 1)
        if augment is not None:
            _checks.require_callable("augment", augment, "such as data.augment")
        return _network_inputs(dataset, images, batch_size, augment, seed)
    if isinstance(dataset, str) or not isinstance(dataset, Iterable):
        raise ValueError(
            "dataset must be a data.Dataset or arrays of images, got "
            f"{_checks.format_value(dataset)}"
        )
    if augment is not None:
        raise ValueError(
            "augment needs a data.Dataset; augment prepared batches yourself"
        )
    return ((batch, None) for batch in dataset)


def _network_inputs(dataset, images, batch_size, augment, seed):
    size = min(batch_size, images, len(dataset))
    for first in range(0, min(images, len(dataset)) - size + 1, size):
        batch = dataset.images[first : first + size]
        if augment is not None:
            key = jax.random.fold_in(jax.random.key(seed), first)
            batch = augment(key, batch, part=(0, 1))
        mask = None
        if dataset.lengths is not None:
            steps = np.arange(dataset.images.shape[1])[:, None]
            mask = jnp.asarray(steps < dataset.lengths[None, first : first + size])
        yield data.network_input(batch, dataset.mean, dataset.std), mask


def load_batches(
    dataset: Inputs, images: int, batch_size: int, augment: Any = None, seed: int = 0
) -> list[Array]:
    """Return the batches of `make_masked_batches` as arrays of one shape.

    Raises:
        ValueError: as `make_masked_batches`; no batch, batches of different shapes, or
            sequences of different lengths, whose ends calibration would count.
    """
    made = make_masked_batches(
        dataset, images=images, batch_size=batch_size, augment=augment, seed=seed
    )
    batches = []
    for batch, mask in made:
        if mask is not None:
            raise ValueError(
                "dataset must have sequences of one length to calibrate by, got "
                "lengths; leave them out, or give batches of equally long sequences"
            )
        batches.append(_checks.require_floating("dataset", batch))
    if not batches:
        raise ValueError("dataset must have at least one batch, got none")
    shapes = list(dict.fromkeys(np.shape(batch) for batch in batches))
    if len(shapes) > 1:
        raise ValueError(
            f"batches must all have one shape, got {shapes[0]} and then {shapes[1]}; "
            "leave out a last one that is not full"
        )
    return batches
