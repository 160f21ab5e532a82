"""The calibration set: a few hundred inputs, labels unused, in batches of one shape."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks, data

Inputs = data.Dataset | data.Batches | Iterable[Any]


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
        dataset: a `data.Dataset`, of which the first images are taken; labelled batches
            as of `data.Batches`, of which the first are taken; or arrays of normalised
            images ``[B, H, W, C]`` or sequences ``[T, B, ...]``, which are all taken.
        images: how many images of labelled data, in full batches.
        batch_size: images of each batch of a `data.Dataset`.
        augment: ``augment(key, images, *, part) -> images`` for labelled data.
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
        slices = _slice(dataset, images, batch_size)
        return _network_inputs(slices, augment, seed)
    if isinstance(dataset, str) or not isinstance(dataset, Iterable):
        raise ValueError(
            "dataset must be a data.Dataset or arrays of images, got "
            f"{_checks.format_value(dataset)}"
        )
    batches = dataset if isinstance(dataset, data.Batches) else data.Batches([])
    iterator = iter(batches.source if batches is dataset else dataset)
    found = list(itertools.islice(iterator, 1))
    everything = itertools.chain(found, iterator)
    if batches is dataset or (found and _has_labels(found[0])):
        _checks.require_whole("images", images, 1)
        labelled = _take(map(batches.make, everything), images)
        return _network_inputs(labelled, augment, seed)
    if augment is not None:
        raise ValueError(
            "augment needs labelled data; augment prepared batches yourself"
        )
    return ((batch, None) for batch in everything)


def _has_labels(found: Any) -> bool:
    if isinstance(found, list):  # else an array
        return all(hasattr(x, "shape") for x in found)
    return isinstance(found, data.Batch | Mapping | tuple)


def _slice(dataset: data.Dataset, images: int, batch_size: int) -> Iterator[data.Batch]:
    size = min(batch_size, images, len(dataset))
    for first in range(0, min(images, len(dataset)) - size + 1, size):
        rows = slice(first, first + size)
        lengths = None if dataset.lengths is None else dataset.lengths[rows]
        yield data.Batch(
            *(dataset.images[rows], dataset.labels[rows], dataset.mean, dataset.std),
            lengths,
        )


def _take(batches: Iterable[data.Batch], images: int) -> Iterator[data.Batch]:
    """Yield full batches until there are so many images; one at least."""
    size, done = 0, 0
    for batch in batches:
        size = size or len(batch)
        if len(batch) != size or (done and done + size > images):
            return
        yield batch
        done += size


def _network_inputs(batches: Iterator[data.Batch], augment, seed):
    first = 0
    for batch in batches:
        images = batch.images
        if augment is not None:
            key = jax.random.fold_in(jax.random.key(seed), first)
            images = augment(key, images, part=(0, 1))
        mask = None
        if batch.lengths is not None:
            steps = np.arange(images.shape[1])[:, None]
            mask = jnp.asarray(steps < batch.lengths[None])
        yield data.batch_input(images, batch.mean, batch.std), mask
        first += len(batch)


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


def augment_batches(
    batches: list[Array],
    dataset: Inputs,
    images: int,
    batch_size: int,
    augment: Callable[..., Any] | None,
    batchnorm: bool = True,
) -> list[Array]:
    """Return the batches of `load_batches` again, augmented; themselves without.

    BatchNorm alone sees them; ``batchnorm`` is False where it is left as it is.

    Raises:
        ValueError: as `load_batches`, a source that can be read once, or ``augment``
            without ``batchnorm``.
    """
    if augment is None:
        return batches
    if not batchnorm:
        raise ValueError("augment is for batchnorm=True; leave it out")
    if isinstance(dataset, Iterator):
        raise ValueError(
            "dataset is read twice with augment, and an iterator is used up after "
            "one: give a data.Dataset or a list of batches"
        )
    return load_batches(dataset, images, batch_size, augment)
