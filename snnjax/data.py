"""Image data sets as uint8 arrays in memory, and augmentation on the device.

Wherever it comes from, a data set is two arrays: digits out of scikit-learn's wheel,
CIFAR through TensorFlow Datasets (TFDS) but without TensorFlow, or your own. Pixels
stay uint8 until the step that needs them. Augmentation is a pure function of its key.
"""

import dataclasses
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float32, Shaped

from snnjax import _checks
from snnjax.batches import permutation

DATASETS = ("digits", "cifar10", "cifar100")
SPLITS = ("train", "test")

# Classes, and the training set's mean and standard deviation per channel.
_CIFAR = {
    "cifar10": (10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": (100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
_DIGITS_SEED = 1797  # draws the test digits; every result on digits depends on it


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images of one split, with the normalisation that goes with them.

    Attributes:
        images: pixels 0 to 255, uint8 ``[N, H, W, C]``.
        labels: classes from 0, int32 ``[N]``; made of any integer dtype.
        num_classes: how many classes there are; not all need occur.
        name: what the data set is called in results.
        mean: of each channel, where 0 is black and 1 is white, float32 ``[C]``.
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
            value = np.asarray(_checks.real(field, getattr(self, field)), dtype)
            object.__setattr__(self, field, value)

        convert("images")
        convert("labels")
        _check(self.images, self.labels, self.num_classes)
        convert("labels", np.int32)
        convert("mean", np.float32)
        convert("std", np.float32)
        channels = self.images.shape[3:]
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


def load(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike | None = None,
    limit: int | None = None,
) -> Dataset:
    """Load the split ``"train"`` or ``"test"`` of a data set.

    - ``digits``: 1,797 scanned digits, 8 x 8 x 1, their 17 grey levels spread over 0 to
      255; nothing to download. A fifth of each class, drawn once for all, is for test.
    - ``cifar10``, ``cifar100`` (fine labels): 32 x 32 x 3, as TFDS prepares them in its
      format array_record. Reading needs neither TensorFlow nor a network.

    Both splits carry mean and standard deviation of the whole training split.

    Args:
        name: the data set.
        split: the split.
        data_dir: TFDS's data directory; by default ``$TFDS_DATA_DIR``, or where that is
            not set ``~/tensorflow_datasets``. Digits need none.
        limit: read only the first so many images. The order is a fixed random one, so
            they are a fair sample.

    Raises:
        ValueError: if name or split is unknown, the split has fewer images than
            ``limit``, or CIFAR is not there; this names the command that prepares it.
        ImportError: if digits are asked for and scikit-learn is not installed.

    >>> train, test = load("digits", "train"), load("digits", "test")
    >>> train.images.shape, test.images.shape, train.num_classes
    ((1438, 8, 8, 1), (359, 8, 8, 1), 10)
    """
    if name not in DATASETS:
        raise ValueError(
            f"data set: expected one of {', '.join(DATASETS)}, got {name!r}; load data "
            "of your own with from_arrays or from_npz"
        )
    if split not in SPLITS:
        raise ValueError(f"split: expected {' or '.join(SPLITS)}, got {split!r}")
    if name == "digits":
        return _load_digits(split, limit)
    return _load_cifar(name, split, data_dir, limit)


def _load_digits(split, limit) -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "digits come with scikit-learn; run: pip install 'snnjax[experiments]'"
        ) from error
    digits: Any = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target
    order = permutation(len(labels), np.random.SeedSequence(_DIGITS_SEED))
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        members = order[labels[order] == digit]
        test[members[: round(len(members) / 5)]] = True
    train = order[~test[order]]
    chosen = train if split == "train" else order[test[order]]
    chosen = chosen[: _count(limit, len(chosen), f"digits {split}")]
    statistics = _channel_statistics(images[train])
    return Dataset(images[chosen], labels[chosen], 10, "digits", *statistics)


def _load_cifar(name, split, data_dir, limit) -> Dataset:
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = Path(root).expanduser().absolute()
    version = _prepared_version(name, root)  # before TFDS, whose import takes longer

    import tensorflow_datasets as tfds
    from PIL import Image

    # TFDS's own decoder makes Pillow guess among all its formats: half as fast.
    source: Any = tfds.data_source(
        f"{name}:{version}",
        split=split,
        data_dir=root,
        download=False,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    n = _count(limit, len(source), f"{name} {split}")
    images, labels = np.empty((n, 32, 32, 3), np.uint8), np.empty(n, np.int32)
    for start in range(0, n, 1000):
        index = range(start, min(start + 1000, n))
        for i, record in zip(index, source.__getitems__(list(index)), strict=True):
            encoded = io.BytesIO(record["image"])
            with Image.open(encoded, formats=("PNG", "WEBP")) as image:
                images[i] = np.asarray(image)
            labels[i] = record["label"]
    num_classes, mean, std = _CIFAR[name]
    return Dataset(images, labels, num_classes, name, np.array(mean), np.array(std))


def _prepared_version(name: str, root: Path) -> str:
    """The newest version of a data set that lies under ``root`` as array_record."""
    got = "no such data"
    # One digit each: an unfinished 3.0.2.incompleteABC is passed over.
    versions = (root / name).glob("[0-9].[0-9].[0-9]/dataset_info.json")
    for info in sorted(versions, reverse=True):
        got = json.loads(info.read_text()).get("fileFormat", "tfrecord")
        if got == "array_record":
            return info.parent.name
        got += f" in {info.parent} (delete that, or choose another data_dir)"
    raise ValueError(
        f"{name}: expected TFDS data in the format array_record in {root / name}, got "
        f"{got}. Pass the data_dir that has it, or prepare it once, which needs "
        "TensorFlow (pip install tensorflow), with:\n"
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', data_dir={str(root)!r}, file_format='array_record')"
        '.download_and_prepare()"'
    )


def from_arrays(
    images, labels, *, num_classes: int | None = None, name: str = "arrays"
) -> Dataset:
    """Make a data set of uint8 images ``[N, H, W, C]`` and integer labels ``[N]``.

    Mean and std are those of the images, with 1 as the std of a constant channel. Give
    a test set those of its training set:
    ``dataclasses.replace(test, mean=train.mean, std=train.std)``.

    Without ``num_classes`` there are as many as the largest label plus 1.

    Raises:
        ValueError: if the arrays are not such.

    >>> from_arrays(np.zeros((2, 8, 8, 3), np.uint8), [0, 4]).num_classes
    5
    """
    images = np.asarray(_checks.real("images", images))
    labels = np.asarray(_checks.real("labels", labels))
    _check(images, labels, num_classes)
    if num_classes is None:
        num_classes = int(labels.max()) + 1
    return Dataset(images, labels, num_classes, name, *_channel_statistics(images))


def from_npz(path: str | os.PathLike) -> Dataset:
    """Make a data set of the arrays ``images`` and ``labels`` in an .npz file.

    See :func:`from_arrays` for what they are to be. Nothing is unpickled.

    Raises:
        ValueError: if there is no such file or key, or the arrays do not fit.
    """
    arrays, path = {}, Path(path)
    if zipfile.is_zipfile(path):
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
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
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"images: expected [N, H, W, C], none of them 0, got {list(images.shape)}; "
            "add the channel axis of grey images with images[..., None]"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels: expected integers [{len(images)}], one an image, got "
            f"{labels.dtype} {list(labels.shape)}; convert floats with "
            "labels.astype(np.int32), one-hot labels with labels.argmax(-1)"
        )
    if num_classes is not None:
        _checks.whole("num_classes", num_classes, 1)
    top = np.iinfo(np.int32).max if num_classes is None else num_classes - 1
    if labels.min() < 0 or labels.max() > top:
        raise ValueError(
            f"labels: expected 0..{top}, got {labels.min()}..{labels.max()}; count "
            "classes from 0, and check num_classes"
        )


def _count(limit: int | None, available: int, name: str) -> int:
    if limit is None:
        return available
    if not _checks.is_whole(limit) or not 1 <= limit <= available:
        raise ValueError(
            f"limit: expected 1 to {available}, the images in {name}, got {limit!r}; "
            "leave it out to take all"
        )
    return limit


def _channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel, from exact counts of the 256 levels."""
    channels = np.moveaxis(images, 3, 0)
    counts = np.stack([np.bincount(c.ravel(), minlength=256) for c in channels])
    share, level = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = share @ level
    std = np.sqrt((share * np.square(level - mean[:, None])).sum(1))
    return mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)


def normalize(images, mean, std) -> Float32[Array, "..."]:
    """Scale uint8 images ``[..., C]`` to ``(images / 255 - mean) / std``, float32.

    Raises:
        ValueError: if images are not uint8, or mean and std are not of shape ``[C]``.
    """
    images = jnp.asarray(_checks.real("images", images))
    _checks.finite("mean", mean)
    _checks.positive("std", std)
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    fits = images.shape[-1:] == mean.shape == std.shape
    if images.dtype != jnp.uint8 or not fits:
        raise ValueError(
            "expected uint8 images [..., C] with mean and std [C], got "
            f"{images.dtype} {images.shape}, {mean.shape}, {std.shape}; pass pixels 0 "
            "to 255, and normalize them once"
        )
    return (images.astype(jnp.float32) / 255 - mean) / std


def augment(
    key: Array,
    images,
    *,
    pad: int = 4,
    flip: bool = True,
    part: tuple[ArrayLike, int] = (0, 1),
) -> Shaped[Array, "b h w c"]:
    """Crop each image at random out of its zero-padded self, and mirror half of them.

    The defaults are CIFAR's; digits are small and not symmetric: ``pad=1, flip=False``.
    Comes before :func:`normalize`, so that the border is black.

    Args:
        key: the result is a pure function of it and the images.
        images: uint8 or float, ``[B, H, W, C]``.
        pad: how many pixels an image moves at most, in each direction; static.
        flip: whether an image is mirrored left to right with probability 1/2; static.
        part: (i, n): the images are the i-th of n equal parts of a batch, and each
            moves as it does where the batch is whole; i may be traced.

    Returns:
        Shape and dtype of ``images``.

    Raises:
        ValueError: if images are not of rank 4, or pad is negative.
    """
    images = jnp.asarray(_checks.real("images", images))
    _checks.key(key)
    if images.ndim != 4 or not _checks.is_whole(pad) or pad < 0:
        raise ValueError(
            "expected images [B, H, W, C] and pad from 0, got "
            f"{list(images.shape)} and {pad!r}; add an axis to a single image"
        )
    crop_key, flip_key = jax.random.split(key)
    index, parts = part
    total = len(images) * parts

    def own(drawn):
        start = jnp.asarray(index) * len(images)
        return jax.lax.dynamic_slice_in_dim(drawn, start, len(images))

    corners = own(jax.random.randint(crop_key, (total, 2), 0, 2 * pad + 1))
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

    def crop(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, 0), images.shape[1:])

    images = jax.vmap(crop)(padded, corners)
    if flip:
        mirror = own(jax.random.bernoulli(flip_key, shape=(total, 1, 1, 1)))
        images = jnp.where(mirror, images[:, :, ::-1], images)
    return images
