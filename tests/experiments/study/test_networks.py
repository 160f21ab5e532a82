"""What is made of a study's networks without training."""

import jax.numpy as jnp
import numpy as np
import pytest
from rich.progress import Progress

from experiments.console import Bar
from experiments.networks import Networks
from experiments.study.config import StudyConfig
from snnjax import data

WHITE = data.from_arrays(
    np.full((300, 32, 32, 3), 255, np.uint8), np.arange(300) % 10, num_classes=10
)


@pytest.mark.slow
@pytest.mark.parametrize("augment", [True, False])
def test_batchnorm_is_reestimated_on_images_as_training_saw_them(augment, tmp_path):
    config = StudyConfig(dataset="cifar10", augment=augment)
    networks = Networks(config, WHITE, tmp_path, Bar(Progress(disable=True), 1))
    batches = jnp.stack(list(networks._batchnorm_batches()))
    assert batches.shape == (2, 128, 32, 32, 3)  # what is left over is no full batch
    # A white image moved by up to 4 pixels each way has black at its border.
    black = np.asarray(batches < 0).mean(axis=(0, 1, 4))
    kept = (1 - 20 / 9 / 32) ** 2 if augment else 1  # it moves 20 / 9 on average
    assert black.mean() == pytest.approx(1 - kept, abs=0.01)
    assert not black[4:-4, 4:-4].any()
    again = jnp.stack(list(networks._batchnorm_batches()))
    np.testing.assert_array_equal(batches, again)
