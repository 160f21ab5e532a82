"""The data sets that can be loaded by name: digits, and CIFAR as TFDS prepares it."""

import io
import json
import os
from typing import Any

import numpy as np

from snnjax import _checks
from snnjax._paths import AnyPath, as_path, is_remote
from snnjax.data.dataset import Dataset, channel_statistics
from snnjax.data.order import permutation

DATASETS = ("digits", "cifar10", "cifar100")
SPLITS = ("train", "test")

# Classes, and the training set's mean and standard deviation per channel.
_CIFAR = {
    "cifar10": (10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": (100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
_DIGITS_SEED = 1797  # draws the test digits; every result on digits depends on it


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
    statistics = channel_statistics(images[train])
    return Dataset(images[chosen], labels[chosen], 10, "digits", *statistics)


def _load_cifar(name, split, data_dir, limit) -> Dataset:
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = as_path("data_dir", root)
    root = root if is_remote(root) else root.expanduser().absolute()
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


def _prepared_version(name: str, root: AnyPath) -> str:
    """The newest version of a data set that lies under ``root`` as array_record."""
    got = "no such data"
    # One digit each: an unfinished 3.0.2.incompleteABC is passed over.
    versions = (root / name).glob("[0-9].[0-9].[0-9]/dataset_info.json")
    for info in sorted(versions, reverse=True):
        got = json.loads(info.read_text(encoding="utf-8")).get("fileFormat", "tfrecord")
        if got == "array_record":
            return info.parent.name
        got += f" in {info.parent} (delete that, or choose another data_dir)"
    raise ValueError(
        f"{name}: expected TFDS data in the format array_record in {root / name}, got "
        f"{got}. Pass another data_dir, or prepare it once, which needs "
        "TensorFlow (pip install tensorflow), with:\n"
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', data_dir={str(root)!r}, file_format='array_record')"
        '.download_and_prepare()"'
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
