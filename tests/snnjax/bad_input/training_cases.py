"""Bad input to training and evaluation."""

from functools import partial

import numpy as np
from flax import nnx

from snnjax import cost, data, train
from snnjax.train.eval_step import make_trains_step
from tests.snnjax.bad_input.table import NAN, refused

SGD = train.sgd(0.1)
IMAGES = data.from_arrays(np.zeros((4, 2, 2, 1), np.uint8), np.zeros(4, np.int32))


class Net(nnx.Module):
    """The least that can be trained and evaluated."""

    def __init__(self):
        self.fc = nnx.Linear(4, 2, rngs=nnx.Rngs(0))

    def __call__(self, x, *, timesteps, train=False, record=None):
        logits = self.fc(x.reshape(len(x), -1))
        return logits[None].repeat(timesteps, 0), {}


class Mute(Net):
    """A network that records no spikes, and returns logits without time."""

    def __call__(self, x, **options):
        return super().__call__(x, **options)[0][0], {}


def fit(model=None, dataset=IMAGES, **options):
    """Training that is refused when it is called: no step is taken."""
    usual = dict(optimizer=SGD, seed=0, batch_size=2, timesteps=1, steps=1)
    of_fit = options.keys() & {"callbacks", "keep_best"}
    call = train.fit if of_fit else train.steps
    return call(model or Net(), dataset, **usual | options)


def return_rates(rates, target):
    """Return no scalar, as a penalty must."""
    return rates


def keep_batch(logits, labels):
    """Return a loss an image, where the mean is asked for."""
    return logits.mean((0, 2))


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
        model=[len],
        dataset=[[1, 2]],
        validation=[len],
        callbacks=[print],
        timesteps=[0, 1.5],
        batch_size=[-1, 0, 2.5, 5],
        steps=[0],
        seed=[0.5, -1, 2**63],
        silent_above=[0, NAN],
    )
    sixth = data.from_arrays(IMAGES.images, np.array([0, 5, 0, 0]))
    one = data.from_arrays(IMAGES.images[:1], np.zeros(1, int))
    mixed = [SGD, train.adamw(0.1)]
    kinds = [SGD, train.sgd(train.one_cycle(4, 0.1))]
    for options, word, value in (
        ({"optimizer": "adam"}, "optimizer", "adam"),
        ({"optimizer": 0.1}, "optimizer", 0.1),
        ({"optimizer": [SGD] * 2}, "optimizer", 2),
        ({"model": [Net(), Net()], "optimizer": mixed}, "optimizer", "numbers"),
        ({"model": [Net(), Net()], "optimizer": kinds}, "optimizer", "schedules"),
        ({"epochs": 2}, "epochs", "steps"),
        ({"steps": None}, "epochs", None),
        ({"steps": None, "epochs": 0.5}, "epochs", 0.5),
        ({"augment": True}, "augment", True),
        ({"keep_best": True}, "keep_best", "validation"),
        ({"validation": one}, "validation", "two images"),
        ({"silent_above": 0.5}, "silent_above", "none"),
        ({"model": Mute()}, "logits", [1, 2]),
        ({"dataset": sixth}, "num_classes", 6),
        ({"target": 1.0}, "penalty", "target"),
        ({"loss": keep_batch}, "loss", (2,)),
        ({"penalty": return_rates}, "penalty", "scalar"),
    ):
        yield f"fit: {options!r:.60}", partial(fit, **options), word, value
    evaluate = partial(train.evaluate, Net(), timesteps=1)
    yield "evaluate: labels", partial(evaluate, sixth), "num_classes", 6
    yield "evaluate: one image", partial(evaluate, one), "images", "two"
    for function, good in (
        (train.evaluate, {"model": Net(), "dataset": IMAGES}),
        (train.estimate_memory, {"model": Net(), "dataset": IMAGES, "batch_size": 2}),
    ):
        bad = {"dataset": [len], "batch_size": [0], "timesteps": [0]}
        yield from refused(function, good, **bad)
    good = {"dataset": IMAGES, "batch_size": 2}
    yield from refused(train.steps_per_epoch, good, batch_size=[0])
    for make in (train.make_train_step, train.make_eval_step, make_trains_step):
        good = {"graphdef": None}
        good |= {"optimizer": SGD} if make is train.make_train_step else {}
        yield from refused(make, good, timesteps=[0])
    yield "init", partial(train.init, {}, SGD), "model", {}
    for make in (train.sgd, train.adamw, train.muon):
        good = {"learning_rate": 0.1}
        yield from refused(make, good, learning_rate=[NAN, -0.1], weight_decay=[-1.0])
    for schedule, height in ((train.one_cycle, "peak"), (train.cosine, "start")):
        good = {"steps": 3, height: 0.1}
        yield from refused(schedule, good, steps=[0, 2.5], **{height: [NAN, -1.0]})
    smoothing = {"label_smoothing": 0.1}
    bad = {"label_smoothing": [-0.1, "a", None]}
    yield from refused(train.smoothed_cross_entropy, smoothing, **bad)
    yield from refused(
        train.evaluate,
        {"model": Net(), "dataset": IMAGES, "timesteps": 1},
        outputs=[1],
        on_step=[None],
        reference=["network"],
    )
    bad = {"accumulations": ["9", -1, NAN], "pj_accumulation": [-1, NAN]}
    yield from refused(cost.energy, {"accumulations": 1}, **bad)
