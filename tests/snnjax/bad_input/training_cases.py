"""Bad input to training and evaluation."""

import numpy as np
from flax import nnx

from snnjax import cost, data, train
from tests.snnjax.bad_input.table import NAN, refused

IMAGES = data.from_arrays(np.zeros((4, 2, 2, 1), np.uint8), np.zeros(4, np.int32))


class Net(nnx.Module):
    """The least that can be trained and evaluated."""

    def __init__(self):
        self.fc = nnx.Linear(4, 2, rngs=nnx.Rngs(0))

    def __call__(self, x, *, timesteps, train=False, record=None):
        logits = self.fc(x.reshape(len(x), -1))
        return logits[None].repeat(timesteps, 0), {}


def fit(**options):
    """One step of training."""
    usual = dict(optimizer=train.sgd(0.1), seed=0, batch_size=2, timesteps=1)
    return train.fit(Net(), IMAGES, steps=1, **usual | options)


def cases():
    """Yield the cases of this module."""
    yield from refused(
        fit,
        {},
        optimizer=[["sgd"]],
        on_nonfinite=[["stop"]],
        augment=["no", []],
        penalty=[3],
        start=[Net()],
        loss=["mse"],
    )
    smoothing = {"label_smoothing": 0.1}
    bad = {"label_smoothing": [-0.1, "a", None]}
    yield from refused(train.smoothed_cross_entropy, smoothing, **bad)
    yield from refused(
        train.evaluate,
        {"models": Net(), "dataset": IMAGES, "timesteps": 1},
        outputs=[1],
        on_step=[None],
        reference=["network"],
    )
    yield from refused(cost.energy, {}, accumulations=["9", -1, NAN])
