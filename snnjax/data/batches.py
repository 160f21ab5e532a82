"""Batches of a data set that need not fit into memory, as any loader makes them."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks, _pytree
from snnjax.data.dataset import Dataset, as_sequences, check_lengths
from snnjax.data.transforms import network_input

# Keys of batches that are mappings; TensorFlow Datasets' are in the singular.
_KEYS = {"images": ("images", "image"), "labels": ("labels", "label")}


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Labelled images or sequences, the batch in front, on the host.

    Attributes:
        images: uint8 ``[B, H, W, C]``, or float32 as the network takes them; or event
            frames ``[B, T, H, W, C]`` or trains ``[B, T, F]``, uint8 or float32.
        labels: int32 ``[B]``.
        mean: of each channel, as of `Dataset`.
        std: of each channel, as of `Dataset`.
        lengths: steps of each sequence, int32 ``[B]``, or None.
    """

    images: np.ndarray
    labels: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    lengths: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """The fewest classes that there can be."""
        return int(self.labels.max()) + 1

    def fill(self, size: int) -> "Batch":
        """Return a batch of this size, filled with copies of the first row."""
        rows = np.minimum(np.arange(size), len(self) - 1)
        rows[len(self) :] = 0
        lengths = None if self.lengths is None else self.lengths[rows]
        return dataclasses.replace(
            self, images=self.images[rows], labels=self.labels[rows], lengths=lengths
        )


@dataclasses.dataclass(frozen=True)
class DeviceBatch:
    """A `Batch` as a step takes it, in the place of a `DeviceDataset`.

    A tree: of arrays on the device, of the host's before that, or of placements.

    Attributes:
        pixels: as `Batch.images`.
        labels: int32 ``[B]``.
        mean: float32 ``[C]``.
        std: float32 ``[C]``.
        lengths: int32 ``[B]``, or None.
    """

    pixels: Any
    labels: Any
    mean: Any
    std: Any
    lengths: Any = None

    def mask(self, indices: Array) -> Array | None:
        """Return True for the steps of the sequences, bool ``[T, B]``, or None."""
        if self.lengths is None:
            return None
        return jnp.arange(self.pixels.shape[1])[:, None] < self.lengths[None]

    def images(self, indices: Array) -> Array:
        """Return all images; the places in the data set are not looked up."""
        return self.pixels

    def classes(self, indices: Array) -> Array:
        """Return all labels ``[B]``."""
        return self.labels

    def network_input(self, images: Array) -> Array:
        """Return ``images`` as a network takes them, see `batch_input`."""
        return batch_input(images, self.mean, self.std)


_pytree.register(DeviceBatch)


def as_device_batch(batch: Batch) -> DeviceBatch:
    """Return a batch as a step takes it; its arrays are still on the host."""
    return DeviceBatch(batch.images, batch.labels, batch.mean, batch.std, batch.lengths)


def batch_input(images: ArrayLike, mean: ArrayLike, std: ArrayLike) -> Array:
    """Return images of a `Batch` as a network takes them: floats as they are.

    All else as `network_input`.
    """
    images = jnp.asarray(images)
    if images.ndim == 4 and images.dtype == jnp.float32:
        return images
    return network_input(images, mean, std)


class Batches:
    """Batches of labelled images or sequences, read again in each pass.

    For data larger than memory: grain's data sets and loaders, tf.data's, torch's, a
    list, or any class of your own with ``__iter__``. `train.fit`, `train.evaluate` and
    `calibrate` take such a source as it is; this adds the statistics to normalise by.

    A batch is ``(images, labels)``, ``(images, labels, lengths)``, or a mapping with
    the keys images and labels (image and label), perhaps lengths. The batch axis is in
    front, in sequences too:

    - uint8 images ``[B, H, W, C]``, normalised by ``mean`` and ``std`` on the device;
    - floating-point images ``[B, H, W, C]``, which the network takes as they are;
    - event frames ``[B, T, H, W, C]`` and trains ``[B, T, F]``, of any dtype.

    All batches but the last of a pass have one size. With several processes each reads
    its own share: a batch of B images in each of n processes is one of n * B.

    Args:
        source: of batches; each ``iter(source)`` begins a new pass.
        mean: of each channel ``[C]``, as of `Dataset`; None is 0: uint8 images become
            numbers from 0 to 1.
        std: of each channel ``[C]``; None is 1.

    Raises:
        ValueError: a source that can be read once, such as a generator; mean or std
            without the other. When it is read: batches that are not such.

    >>> images, labels = np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, int)
    >>> [len(batch) for batch in Batches([(images, labels)] * 2, mean=[0.5], std=[0.2])]
    [4, 4]
    """

    def __init__(
        self,
        source: Any,
        *,
        mean: Any = None,
        std: Any = None,
    ):
        check_source(source)
        if (mean is None) != (std is None):
            raise ValueError(
                f"mean and std must be given together, got mean={mean} and std={std}"
            )
        self.source = source
        self.mean = mean
        self.std = std

    def __iter__(self) -> Iterator[Batch]:
        return (self.make(found) for found in iter(self.source))

    def make(self, found: Any) -> Batch:
        """Check what the source gave, and return it as a `Batch`."""
        images, labels, lengths = _take_apart(found)
        images, labels = _as_images(images), _as_labels(labels, np.shape(images))
        mean, std = self.mean, self.std
        if isinstance(found, Batch):
            if mean is not None:
                raise ValueError(
                    "mean and std are for batches without, got a Batch, which has its "
                    "own; leave mean and std out"
                )
            mean, std = found.mean, found.std
        elif mean is not None and _are_prepared(images):
            raise ValueError(
                "mean and std are for uint8 images and sequences, got images of "
                f"{images.dtype}, which the network takes as they are; leave mean and "
                "std out"
            )
        channels = images.shape[-1]
        mean = np.zeros(channels) if mean is None else mean
        std = np.ones(channels) if std is None else std
        _checks.require_finite("mean", mean)
        _checks.require_positive("std", std)
        mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        if not mean.shape == std.shape == (channels,):
            raise ValueError(
                f"mean and std must be [C] of the {channels} channels of the images, "
                f"got shapes {mean.shape} and {std.shape}"
            )
        if lengths is not None:
            lengths = np.asarray(_checks.require_real("lengths", lengths))
            check_lengths(images, lengths)
            lengths = lengths.astype(np.int32)
        return Batch(images, labels, mean, std, lengths)


def as_batches(dataset: Any, name: str = "dataset") -> Dataset | Batches:
    """Return a data set as it is, and any other source as `Batches`.

    Raises:
        ValueError: something that cannot be read, or once only.
    """
    if isinstance(dataset, Dataset | Batches):
        return dataset
    check_source(dataset, name)
    return Batches(dataset)


def check_source(source: Any, name: str = "source") -> None:
    """Raise ValueError unless it can be read again and again."""
    if isinstance(source, str | bytes | Mapping) or not isinstance(source, Iterable):
        raise ValueError(
            f"{name} must be a data.Dataset, or an iterable of batches (images, "
            f"labels), got {_checks.format_value(source)}; data.from_arrays(images, "
            "labels) makes a data set of arrays"
        )
    if isinstance(source, np.ndarray | Array):
        raise ValueError(
            f"{name} must have labels, got an array of shape {source.shape}; "
            "data.from_arrays(images, labels) makes a data set of arrays"
        )
    if isinstance(source, Iterator):
        raise ValueError(
            f"{name} must be readable again in each pass, got a "
            f"{type(source).__name__}, which is used up after one; give the object "
            "that iter() was called on, such as a list, a loader, or a class whose "
            "__iter__ makes the generator"
        )


def _take_apart(found: Any) -> tuple[Any, Any, Any]:
    """Return images, labels and lengths or None."""
    if isinstance(found, Batch):
        return found.images, found.labels, found.lengths
    if isinstance(found, Mapping):
        images, labels = (
            next((found[key] for key in keys if key in found), None)
            for keys in _KEYS.values()
        )
        if images is not None and labels is not None:
            return images, labels, found.get("lengths")
        got = f"a mapping with the keys {sorted(map(str, found))}"
    elif isinstance(found, tuple | list) and len(found) in (2, 3):
        return (*found, None)[:3]
    else:
        got = _checks.format_value(found)
    raise ValueError(
        "a batch of dataset must be (images, labels), (images, labels, lengths) or a "
        f"mapping with the keys images and labels, got {got}"
    )


def _are_prepared(images: np.ndarray) -> bool:
    return images.ndim == 4 and images.dtype == np.float32


def _as_images(images: Any) -> np.ndarray:
    images = np.asarray(_checks.require_real("images", images))
    if images.ndim not in (3, 4, 5) or 0 in images.shape:
        raise ValueError(
            "images of a batch must be [B, H, W, C], event frames [B, T, H, W, C] or "
            f"trains [B, T, F], none of them 0, got {list(images.shape)}; add the "
            "channel axis of grey images with images[..., None]"
        )
    if images.ndim != 4:
        # One dtype for all batches, whatever their values.
        return images if images.dtype == np.uint8 else _widen(images)
    if np.issubdtype(images.dtype, np.floating) or images.dtype.name == "bfloat16":
        images = images.astype(np.float32)
        if not np.isfinite(images).all():
            raise ValueError(
                "images of a batch must be finite in float32, got NaN, infinity or "
                "numbers beyond it: a membrane of NaN never fires"
            )
        return images
    if images.dtype != np.uint8:
        raise ValueError(
            f"images of a batch must be uint8 or floating point, got {images.dtype}; "
            "of pixels from 0 to 255, images.astype(np.uint8)"
        )
    return images


def _widen(frames: np.ndarray) -> np.ndarray:
    """Return the counts as float32, which holds them."""
    return as_sequences(frames).astype(np.float32)


def _as_labels(labels: Any, shape: tuple[int, ...]) -> np.ndarray:
    labels = np.asarray(_checks.require_real("labels", labels))
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise ValueError(
            f"labels of a batch must be integers [B], got {labels.dtype} "
            f"{list(labels.shape)}; convert floats with labels.astype(np.int32), "
            "one-hot labels with labels.argmax(-1)"
        )
    if len(labels) != shape[0]:
        first = "; the batch axis is in front, np.moveaxis(images, 1, 0) puts it there"
        raise ValueError(
            f"a batch must have a label for each of its {shape[0]} images, got "
            f"{len(labels)}" + first * (len(shape) > 1 and shape[1] == len(labels))
        )
    if labels.min() < 0:
        raise ValueError(f"labels must count classes from 0, got {labels.min()}")
    return labels.astype(np.int32)
