"""Labelled images in memory: what a data set is, and how to make one of your own."""

import dataclasses
import os
import zipfile
import zlib

import numpy as np

from snnjax import _checks
from snnjax._paths import require_local_path


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images of one split, with the normalisation that goes with them.

    Attributes:
        images: pixels 0 to 255, uint8 ``[N, H, W, C]``; or event frames, uint8
            ``[N, T, H, W, C]``, counts of the events of each time step, a channel a
            polarity.
        labels: classes from 0, int32 ``[N]``; made of any integer dtype.
        num_classes: how many classes there are; not all need occur.
        name: what the data set is called in results.
        mean: of each channel, float32 ``[C]``; of images where 0 is black and 1 is
            white, of frames in events.
        std: standard deviation of each channel, in that unit, float32 ``[C]``.

    Raises:
        ValueError: if shapes, dtypes or values are not such, or there is no image.
    """

    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    name: str
    mean: np.ndarray
    std: np.ndarray

    def __post_init__(self):
        def convert(field, dtype=None):
            value = np.asarray(_checks.require_real(field, getattr(self, field)), dtype)
            object.__setattr__(self, field, value)

        convert("images")
        convert("labels")
        _check(self.images, self.labels, self.num_classes)
        convert("labels", np.int32)
        convert("mean", np.float32)
        convert("std", np.float32)
        channels = self.images.shape[-1:]
        fits = self.mean.shape == self.std.shape == channels
        std = self.std
        if not (
            fits and np.isfinite(self.mean).all() and ((std > 0) & (std < np.inf)).all()
        ):
            raise ValueError(
                f"mean, std: expected {channels[0]} numbers each, one a channel, std "
                f"above 0, got {self.mean.tolist()}, {self.std.tolist()}; a constant "
                "channel takes 1 as its std"
            )

    def __len__(self) -> int:
        return len(self.images)


def from_arrays(
    images, labels, *, num_classes: int | None = None, name: str = "arrays"
) -> Dataset:
    """Make a data set of uint8 images ``[N, H, W, C]`` and integer labels ``[N]``.

    Mean and std are those of the images, with 1 as the std of a constant channel. Give
    a test set those of its training set:
    ``dataclasses.replace(test, mean=train.mean, std=train.std)``.

    Event frames ``[N, T, H, W, C]`` have mean 0 and std 1: a network sees the counts,
    as in SpikingJelly, whose frames become these by ``np.moveaxis(frames, 2, -1)``.

    Without ``num_classes`` there are as many as the largest label plus 1.

    Raises:
        ValueError: if the arrays are not such.

    >>> from_arrays(np.zeros((2, 8, 8, 3), np.uint8), [0, 4]).num_classes
    5
    """
    images = np.asarray(_checks.require_real("images", images))
    labels = np.asarray(_checks.require_real("labels", labels))
    _check(images, labels, num_classes)
    if num_classes is None:
        num_classes = int(labels.max()) + 1
    if images.ndim == 5:
        statistics = np.zeros(images.shape[-1]), np.ones(images.shape[-1])
    else:
        statistics = channel_statistics(images)
    return Dataset(images, labels, num_classes, name, *statistics)


def from_npz(path: str | os.PathLike) -> Dataset:
    """Make a data set of the arrays ``images`` and ``labels`` in an .npz file.

    See :func:`from_arrays` for what they are to be. Nothing is unpickled.

    Raises:
        ValueError: if there is no such file or key, or the arrays do not fit.
    """
    arrays, path = {}, require_local_path("path", path)
    if zipfile.is_zipfile(path):
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{path}: the file is damaged ({error})") from error
        except ValueError as error:
            raise ValueError(
                f"{path}: images and labels must be arrays of numbers, and pickled "
                f"objects are not read ({error})"
            ) from error
    if not {"images", "labels"} <= set(arrays):
        raise ValueError(
            f"{path}: expected an .npz file with the keys images and labels, got "
            f"{sorted(arrays) or 'no .npz file'}; write it with "
            "np.savez(path, images=images, labels=labels)"
        )
    return from_arrays(arrays["images"], arrays["labels"], name=path.stem)


def _check(images: np.ndarray, labels: np.ndarray, num_classes: int | None) -> None:
    if images.dtype != np.uint8:
        raise ValueError(
            f"images: expected uint8, got {images.dtype}; convert images in [0, 1] "
            "with np.round(images * 255).astype(np.uint8), integers 0 to 255 with "
            "images.astype(np.uint8)"
        )
    if images.ndim not in (4, 5) or 0 in images.shape:
        raise ValueError(
            "images: expected [N, H, W, C], or event frames [N, T, H, W, C], none of "
            f"them 0, got {list(images.shape)}; add the channel axis of grey images "
            "with images[..., None]"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels: expected integers [{len(images)}], one an image, got "
            f"{labels.dtype} {list(labels.shape)}; convert floats with "
            "labels.astype(np.int32), one-hot labels with labels.argmax(-1)"
        )
    if num_classes is not None:
        _checks.require_whole("num_classes", num_classes, 1)
    top = np.iinfo(np.int32).max if num_classes is None else num_classes - 1
    if labels.min() < 0 or labels.max() > top:
        raise ValueError(
            f"labels: expected 0..{top}, got {labels.min()}..{labels.max()}; count "
            "classes from 0, and check num_classes"
        )


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel, from exact counts of the 256 levels."""
    channels = np.moveaxis(images, 3, 0)
    counts = np.stack([np.bincount(c.ravel(), minlength=256) for c in channels])
    share, level = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = share @ level
    std = np.sqrt((share * np.square(level - mean[:, None])).sum(1))
    return mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)
