"""The images of a study: all, the first few, or some held out to test on."""

from experiments.study.config import StudyConfig
from snnjax import data, train
from snnjax.data import Dataset


def load_images(config: StudyConfig) -> tuple[Dataset, Dataset]:
    """Return the images to train on, and those to measure on.

    Raises:
        ValueError: no such data, or more images held out, or in a batch, than there
            are.
    """
    limits = (256, 128) if config.tiny else (None, None)
    train_set, test_set = (
        data.load(config.dataset, split, data_dir=config.data_dir, limit=limit)
        for split, limit in zip(("train", "test"), limits, strict=True)
    )
    if config.held_out >= len(train_set):
        raise ValueError(
            f"held_out must be below the {len(train_set)} training images, got "
            f"{config.held_out}"
        )
    if config.held_out:  # the last ones
        test_set = train_set.subset(slice(-config.held_out, None))
        train_set = train_set.subset(slice(-config.held_out))
    train_set = train_set.subset(slice(config.train_images))
    train.steps_per_epoch(train_set, config.batch_size)
    return train_set, test_set
