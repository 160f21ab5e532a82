"""Train the network that the wheel ships: ``python -m experiments.example_network``.

Writes ``snnjax/examples/digits.safetensors`` and the digits beside it, in a minute.
"""

from typing import Any

import numpy as np
from flax import nnx

from snnjax import calibrate, checkpoint, data, models, train
from snnjax.examples import pretrained

EPOCHS, BATCH, WIDTH = 20, 32, 8


def train_network(digits: data.Dataset) -> models.SEWResNet:
    """Train a SEW-ResNet8 and estimate BatchNorm's statistics on all digits."""
    model = models.sew_resnet8(10, width=WIDTH, in_channels=1, rngs=nnx.Rngs(0))
    steps = EPOCHS * train.steps_per_epoch(digits, BATCH)
    optimizer = train.sgd(train.one_cycle(steps, peak=0.1))
    model = train.fit(
        model, digits, epochs=EPOCHS, optimizer=optimizer, batch_size=BATCH, seed=0
    )
    return calibrate.reestimate_batchnorm(model, digits)


def main() -> None:
    splits = {name: data.load("digits", name) for name in data.SPLITS}
    arrays: dict[str, Any] = {}
    for name, digits in splits.items():
        arrays[f"{name}_images"] = digits.images
        arrays[f"{name}_labels"] = digits.labels.astype(np.uint8)
    np.savez_compressed(pretrained.IMAGES, **arrays)
    model = train_network(splits["train"])
    checkpoint.export(pretrained.NETWORK, model)
    accuracy = train.evaluate(model, splits["test"]).accuracy
    print(f"accuracy {accuracy:.4f}, {pretrained.NETWORK}")


if __name__ == "__main__":
    main()
