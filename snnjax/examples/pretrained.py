"""The trained network and the digits that ship in the wheel."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from snnjax import checkpoint
from snnjax.data import Dataset
from snnjax.data.dataset import channel_statistics
from snnjax.models import SEWResNet

_FOLDER = Path(__file__).parent
NETWORK, IMAGES = _FOLDER / "digits.safetensors", _FOLDER / "digits.npz"


class Example(NamedTuple):
    """A trained network and the data that it was trained and is tested on.

    Attributes:
        model: SEW-ResNet8 of width 8 in full precision, in evaluation mode.
        train: 1,438 scanned digits, 8 x 8 x 1.
        test: 359 others.
    """

    model: SEWResNet
    train: Dataset
    test: Dataset


def digits() -> Example:
    """Load a network trained on scanned digits, with these digits.

    19,810 parameters, T = 4, 96.9 % of the test digits right; the data are equal to
    ``data.load("digits", ...)`` and need no scikit-learn. Made by ``python -m
    experiments.example_network`` in a clone of the repository.

    Source of the digits: Alpaydin and Kaynak, `Optical Recognition of Handwritten
    Digits <https://archive.ics.uci.edu/dataset/80>`_, 1998 (CC BY 4.0), as scikit-learn
    ships them.

    >>> model, train, test = digits()
    >>> len(train), len(test), train.num_classes
    (1438, 359, 10)
    """
    with np.load(IMAGES) as arrays:
        splits = {name: arrays[name] for name in arrays.files}
    statistics = channel_statistics(splits["train_images"])
    train, test = (
        Dataset(
            splits[f"{split}_images"],
            splits[f"{split}_labels"],
            10,
            "digits",
            *statistics,
        )
        for split in ("train", "test")
    )
    return Example(checkpoint.load(NETWORK), train, test)
