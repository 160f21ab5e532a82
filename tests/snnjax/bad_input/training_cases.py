"""Bad input to training and evaluation."""

from functools import partial

import jax
import numpy as np
from flax import nnx

from snnjax import cost, data, train

IMAGES = data.from_arrays(np.zeros((4, 2, 2, 1), np.uint8), np.zeros(4, np.int32))


class Net(nnx.Module):
    """The least that can be trained and evaluated."""

    def __init__(self):
        self.fc = nnx.Linear(4, 2, rngs=nnx.Rngs(0))

    def __call__(self, x, *, timesteps, train=False, record=None):
        logits = self.fc(x.reshape(len(x), -1))
        return logits[None].repeat(timesteps, 0), {}


def cases():
    """Name, call, what the error says."""
    yield from training_cases()
    yield from evaluation_cases()
    yield from cost_cases()


def fit(**options):
    """One step."""
    options = (
        dict(optimizer=train.sgd(0.1), seed=0, batch_size=2, timesteps=1) | options
    )
    return train.fit(Net(), IMAGES, steps=1, **options)


def training_cases():
    """`train.fit`, `train.cross_entropy`."""
    for options, says in (
        ({"optimizer": ["sgd"]}, "optimizer must be an optax .*got 'sgd'"),
        ({"on_nonfinite": ["stop"]}, '"stop" or "skip", got .\'stop\''),
        ({"augment": "no"}, "augment must be a function"),
        ({"augment": []}, "augment must be a function"),
        ({"penalty": 3}, "penalty must be a function, got 3"),
        ({"start": Net()}, "start must be a train.TrainState, got Net"),
    ):
        yield f"fit: {options}", partial(fit, **options), says
    for bad in (-0.1, "a", None):
        call = partial(train.smoothed_cross_entropy, bad)
        yield f"smoothing: {bad}", call, "label_smoothing must be a finite number"


def evaluation_cases():
    """`train.evaluate`."""
    for options, says in (
        ({"outputs": 1}, "outputs must be True or False, got 1"),
        ({"on_step": None}, "on_step must be a function, got None"),
        ({"reference": 3}, "reference must be a flax.nnx.Module, got int"),
    ):
        call = partial(train.evaluate, Net(), IMAGES, timesteps=1, **options)
        yield f"evaluate: {options}", call, says


def cost_cases():
    """`cost.energy`, and the parts of an augmented batch."""
    for bad in (None, "9", -1, np.nan, np.inf):
        call = partial(cost.energy, bad)
        yield f"energy: {bad}", call, f"accumulations must be a finite .*got .*{bad}"
    images, key = np.zeros((4, 8, 8, 1), np.uint8), jax.random.key(0)
    for bad in ((2, 2), (-1, 2), (0, 0), 3, (0,), (0.5, 2), (0, True), (0, 1.0)):
        call = partial(data.augment, key, images, part=bad)
        yield f"augment: part {bad}", call, "part must be .i, n., the i-th of n parts"
