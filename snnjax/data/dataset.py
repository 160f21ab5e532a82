"""Labelled images and sequences in memory, and how to make a data set of your own."""

import dataclasses
import os
import zipfile
import zlib

import numpy as np

from snnjax import _checks
from snnjax._paths import require_local_path


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled images or sequences of one split, with their normalisation.

    Attributes:
        images: pixels 0 to 255, uint8 ``[N, H, W, C]``; or event frames
            ``[N, T, H, W, C]``, counts of the events of each time step, a channel a
            polarity; or trains ``[N, T, F]``: spikes, counts or other numbers of F
            inputs. Sequences are uint8 or float32.
        labels: classes from 0, int32 ``[N]``; made of any integer dtype.
        num_classes: how many classes there are; not all need occur.
        name: what the data set is called in results.
        mean: of each channel, float32 ``[C]``; of images where 0 is black and 1 is
            white, of frames in events.
        std: standard deviation of each channel, in that unit, float32 ``[C]``.
        lengths: steps of each sequence, int32 ``[N]``, behind which is padding that
            counts nowhere; None where all have T steps.

    Raises:
        ValueError: if shapes, dtypes or values are not such, or there is no image.
    """

    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    name: str
    mean: np.ndarray
    std: np.ndarray
    lengths: np.ndarray | None = None

    def __post_init__(self):
        def convert(field, dtype=None):
            value = np.asarray(_checks.require_real(field, getattr(self, field)), dtype)
            object.__setattr__(self, field, value)

        convert("images")
        convert("labels")
        _check(self.images, self.labels, self.num_classes)
        convert("labels", np.int32)
        if self.lengths is not None:
            convert("lengths")
            check_lengths(self.images, self.lengths)
            convert("lengths", np.int32)
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

    def __repr__(self) -> str:
        return f"Dataset({self.describe()})"

    def subset(self, part) -> "Dataset":
        """Return a part of the images, with their labels, lengths and normalisation.

        Args:
            part: a slice, indices in any order, or a mask ``[N]``.

        Raises:
            ValueError: an index beyond the images, a mask of another size, neither
                integers nor a mask, or nothing is left.

        >>> dataset = from_arrays(np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 1, 0])
        >>> dataset.subset(slice(3)).labels.tolist()
        [0, 1, 1]
        >>> dataset.subset(dataset.labels == 0).labels.tolist()
        [0, 0]
        """
        if not isinstance(part, slice):
            part = _as_indices(part, len(self))
        chosen = {
            name: value[part]
            for name in ("images", "labels", "lengths")
            if (value := getattr(self, name)) is not None
        }
        if not len(chosen["labels"]):
            raise ValueError(
                f"part must leave an image, and leaves none of {len(self)}"
            )
        return dataclasses.replace(self, **chosen)

    @property
    def is_sequence(self) -> bool:
        """True for event frames and trains, which have a time axis."""
        return self.images.ndim != 4

    def describe(self) -> str:
        """Describe the arrays in a line: what they are taken for, sizes and values."""
        n, *shape = self.images.shape
        kind = {3: "trains", 4: "images", 5: "event frames"}[self.images.ndim]
        axes = {3: "T, F", 4: "H, W, C", 5: "T, H, W, C"}[self.images.ndim]
        parts = [
            f"{self.name}: {n} {kind} [{axes}] = {shape}",
            f"{self.images.dtype} {self.images.min():g} to {self.images.max():g}",
            f"mean {self.mean.round(4).tolist()}" if len(self.mean) <= 4 else "",
            f"{self.num_classes} classes",
        ]
        if self.lengths is not None:
            parts.append(f"{self.lengths.min()} to {self.lengths.max()} steps")
        return ", ".join(part for part in parts if part)


def _as_indices(part, number: int) -> np.ndarray:
    """Return the indices that choose a part of so many images."""
    found = np.asarray(_checks.require_real("part", part))
    found = found.astype(int) if found.shape == (0,) else found
    if found.dtype == bool and found.shape == (number,):
        return np.flatnonzero(found)
    whole = np.issubdtype(found.dtype, np.integer) and found.ndim == 1
    if not whole or not ((-number <= found) & (found < number)).all():
        raise ValueError(
            f"part must be a slice, a mask of {number} images, or a list of indices "
            f"below {number}, got {_checks.format_value(part)}"
        )
    return found


def from_arrays(
    images,
    labels,
    *,
    num_classes: int | None = None,
    name: str = "arrays",
    lengths=None,
) -> Dataset:
    """Make a data set of images or sequences and integer labels ``[N]``.

    `Dataset.describe`, which is also its repr, tells what became of the arrays.

    Images are uint8 ``[N, H, W, C]``.

    Mean and std are those of the images, with 1 as the std of a constant channel. Give
    a test set those of its training set:
    ``dataclasses.replace(test, mean=train.mean, std=train.std)``.

    Event frames ``[N, T, H, W, C]`` and trains ``[N, T, F]`` have mean 0 and std 1: a
    network sees the counts, as in SpikingJelly, whose frames become these by
    ``np.moveaxis(frames, 2, -1)``. Of any dtype: whole numbers from 0 to 255 become
    uint8, all others float32, which must hold them exactly where they are integers.

    ``lengths`` are the steps of each sequence ``[N]``, behind which the array is
    padded, see `pad_sequences`.

    Without ``num_classes`` there are as many as the largest label plus 1.

    Raises:
        ValueError: if the arrays are not such.

    >>> from_arrays(np.zeros((2, 8, 8, 3), np.uint8), [0, 4]).num_classes
    5
    """
    _check_ragged(images)
    images = np.asarray(_checks.require_real("images", images))
    labels = np.asarray(_checks.require_real("labels", labels))
    if images.ndim in (3, 5):
        images = as_sequences(images)
    _check(images, labels, num_classes)
    if num_classes is None:
        num_classes = int(labels.max()) + 1
    if images.ndim != 4:
        statistics = np.zeros(images.shape[-1]), np.ones(images.shape[-1])
    else:
        statistics = channel_statistics(images)
    return Dataset(images, labels, num_classes, name, *statistics, lengths)


def _check_ragged(images) -> None:
    """Raise ValueError for sequences of different lengths."""
    if isinstance(images, np.ndarray) and images.dtype != object:
        return
    if not isinstance(images, list | tuple | np.ndarray):
        return
    shapes = [np.shape(x) for x in images if hasattr(x, "shape")]
    steps = sorted({shape[0] for shape in shapes if shape})
    if len(shapes) == len(images) and len(steps) > 1:
        raise ValueError(
            f"images must be of one shape, got sequences of {steps[0]} to {steps[-1]} "
            "steps; padded, lengths = data.pad_sequences(images), and then "
            "data.from_arrays(padded, labels, lengths=lengths), in which padding "
            "counts nowhere; or frames by number, data.frames_from_events(events, "
            "size=(H, W), timesteps=T)"
        )


def as_sequences(frames: np.ndarray) -> np.ndarray:
    """Return sequences as uint8 where that holds them, else as float32."""
    if frames.dtype == np.uint8 or not frames.size:
        return frames
    if not np.isfinite(frames.astype(np.float32)).all():
        raise ValueError(
            "images: event frames and trains must be finite in float32, got NaN, "
            "infinity or numbers beyond it"
        )
    whole = frames.dtype.kind in "biu" or (frames == np.floor(frames)).all()
    if whole and frames.min() >= 0 and frames.max() <= 255:
        return frames.astype(np.uint8)
    if frames.dtype.kind in "iu" and np.abs(frames.astype(np.int64)).max() > 2**24:
        raise ValueError(
            "images: integer counts must be at most 2**24, which float32 holds "
            f"exactly, got {frames.min()} to {frames.max()}"
        )
    return frames.astype(np.float32)


def check_lengths(images: np.ndarray, lengths: np.ndarray) -> None:
    """Raise ValueError unless they are the steps of each sequence."""
    if images.ndim == 4:
        raise ValueError("lengths are of sequences, got images [N, H, W, C]")
    n, steps = images.shape[:2]
    whole = np.issubdtype(lengths.dtype, np.integer) and lengths.shape == (n,)
    if not whole or lengths.min() < 1 or lengths.max() > steps:
        raise ValueError(
            f"lengths must be whole numbers from 1 to {steps}, one for each of {n} "
            f"sequences, got {_checks.format_value(lengths)}"
        )


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
    kind = images.dtype
    if kind != np.uint8 and not (images.ndim in (3, 5) and kind == np.float32):
        raise ValueError(f"images: expected uint8, got {kind}; {_advice(images)}")
    if images.ndim not in (3, 4, 5) or 0 in images.shape:
        raise ValueError(
            "images: expected [N, H, W, C], event frames [N, T, H, W, C] or trains "
            f"[N, T, F], none of them 0, got {list(images.shape)}; flat vectors are "
            "images of one pixel, images[:, None, None]"
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


def _advice(images: np.ndarray) -> str:
    """Return the conversion that is right for these values."""
    if images.ndim in (3, 5):
        return "from_arrays makes uint8 or float32 of counts in event frames and trains"
    finite = images.size and np.isfinite(images.astype(np.float64)).all()
    whole = finite and (images == np.floor(images)).all()
    if whole and images.min() >= 0 and images.max() > 1 and images.max() <= 255:
        return "these are whole numbers up to 255: images.astype(np.uint8)"
    if finite and images.min() >= 0 and images.max() <= 1:
        return "of pixels in [0, 1], np.round(images * 255).astype(np.uint8)"
    return (
        "give pixels from 0 to 255, before they are normalised; event counts over time "
        "are [N, T, H, W, C]"
    )


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel, from exact counts of the 256 levels."""
    channels = np.moveaxis(images, 3, 0)
    counts = np.stack([np.bincount(c.ravel(), minlength=256) for c in channels])
    share, level = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = share @ level
    std = np.sqrt((share * np.square(level - mean[:, None])).sum(1))
    return mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)
