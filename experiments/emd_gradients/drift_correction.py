"""Fine-tune a drifted network towards the baseline's firing, with each loss.

The drifted network is the baseline with 2-bit weights, fine-tuned with them. From there
every loss, and a control without any, takes the same steps on the same batches.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from experiments.emd_gradients.losses import (
    FEW,
    LOSSES,
    PAIRED,
    compute_targets,
    make_penalty,
)
from experiments.sampling import bound_sampling_emd
from experiments.study.recipe import WEIGHTS
from snnjax import calibrate, checkpoint, data, firing, models, train
from snnjax.data import Dataset, epoch_order, train_batches
from snnjax.firing import FiringCounts
from snnjax.models import SEWResNet
from snnjax.quantize import QuantSpec
from snnjax.runs import Row

BATCH, TIMESTEPS = 32, 4
DRIFTED = QuantSpec(method="uniform", bits=2, clip=1.0, grid="mid_rise")
TRAINED_BY = (*LOSSES, FEW, PAIRED)
# One function for each loss, so that its step is compiled once.
PENALTIES = {loss.name: make_penalty(loss) for loss in TRAINED_BY}
OnStep = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Epochs:
    """Epochs of the baseline, of the drifted network, and of each correction."""

    baseline: int = 30
    drift: int = 3
    correction: int = 5


def list_networks() -> list[tuple[str, float | None]]:
    """Return loss and strength of every network that a seed trains."""
    references = ("baseline", "drifted", "control")
    losses = [(loss.name, s) for loss in TRAINED_BY for s in loss.strengths]
    return [*((name, None) for name in references), *losses]


class DriftCorrection:
    """One seed's networks; the baseline and the drifted one are kept in the folder."""

    def __init__(self, seed: int, width: int, epochs: Epochs, folder: Path):
        self.seed, self.width, self.epochs = seed, width, epochs
        self.folder = folder
        self.train_set, self.test_set = (
            data.load("digits", split) for split in ("train", "test")
        )
        self._references: dict[str, FiringCounts] = {}
        self._rates: dict[str, Array] | None = None

    def measure(self, name: str, strength: float | None, on_step: OnStep) -> Row:
        """Train one network, and measure its firing against the baseline's."""
        try:
            model = self._network(name, strength, on_step)
        except FloatingPointError:
            return {"failed": "the loss was not finite"}
        row = self._evaluate(model, "test", self.test_set)
        return row | {"train": self._evaluate(model, "train", self.train_set)}

    def _evaluate(self, model: SEWResNet, split: str, images: Dataset) -> Row:
        found = train.evaluate(model, images, timesteps=TIMESTEPS)
        if split not in self._references:
            base = train.evaluate(self._baseline(), images, timesteps=TIMESTEPS)
            self._references[split] = base.counts
        fired = firing.report(self._references[split], found.counts)
        return {
            "accuracy": found.accuracy,
            "emd_mean": fired.emd_mean,
            "paired_shift_mean": float(np.mean(list(fired.paired_shift.values()))),
            "mean_rate": fired.mean_rate,
            "floor_sampling": bound_sampling_emd(found.groups),
        }

    def count_steps(self, epochs: int) -> int:
        """Return the optimizer's steps in so many epochs."""
        return epochs * train.steps_per_epoch(self.train_set, BATCH)

    def _network(self, name, strength, on_step) -> SEWResNet:
        if name == "baseline":
            return self._baseline(on_step)
        drifted = self._drifted(on_step)
        if name == "drifted":
            return drifted
        rates = train.cosine(self.count_steps(self.epochs.correction), 0.01)
        if name == "control":
            return self._fit(drifted, rates, on_step)
        loss = next(loss for loss in TRAINED_BY if loss.name == name)
        target = (jnp.float32(strength), compute_targets(loss, self._baseline_rates()))
        return self._fit(
            drifted, rates, on_step, penalty=PENALTIES[name], target=target
        )

    def _fit(self, model, rates, on_step, **more) -> SEWResNet:
        return train.fit(
            model,
            self.train_set,
            steps=rates.steps,
            optimizer=train.sgd(rates, weight_decay=5e-4),
            seed=self.seed,
            batch_size=BATCH,
            callbacks=[lambda progress: on_step()],
            **more,
        )

    def _load_or_train(self, name: str, model: SEWResNet, rates, on_step) -> SEWResNet:
        """Return the network from its checkpoint, else train and save it."""
        path = self.folder / f"{name}-s{self.seed}"
        graphdef, state = nnx.split(model)
        if checkpoint.exists(path):
            return nnx.merge(graphdef, checkpoint.load(path, state))
        model = self._fit(model, rates, on_step)
        checkpoint.save(path, nnx.state(model))
        return model

    def _baseline(self, on_step: OnStep = lambda: None) -> SEWResNet:
        model = models.sew_resnet8(
            width=self.width, in_channels=1, rngs=nnx.Rngs(self.seed)
        )
        rates = train.one_cycle(self.count_steps(self.epochs.baseline), 0.1)
        return self._load_or_train("baseline", model, rates, on_step)

    def _drifted(self, on_step: OnStep) -> SEWResNet:
        model = calibrate.quantize(self._baseline(), {WEIGHTS: DRIFTED})
        rates = train.cosine(self.count_steps(self.epochs.drift), 0.01)
        return self._load_or_train("drifted", model, rates, on_step)

    def _baseline_rates(self) -> dict[str, Array]:
        """Return ``{layer: [batches, neurons...]}``, as a training step sees them."""
        if self._rates is None:
            graphdef, params, rest = train.split(self._baseline())

            @jax.jit
            def compute_rates(params, rest, images):
                model = nnx.merge(graphdef, params, rest, copy=True)
                x = data.normalize(images, self.train_set.mean, self.train_set.std)
                record = lambda s: jnp.mean(s, axis=(0, 1), dtype=jnp.float32)  # noqa: E731
                return model(x, timesteps=TIMESTEPS, train=True, record=record)[1]

            order = epoch_order(self.seed, 0, len(self.train_set))
            found = [
                compute_rates(params, rest, self.train_set.images[batch])
                for batch in train_batches(order, BATCH)
            ]
            self._rates = jax.tree.map(lambda *parts: jnp.stack(parts), *found)
        return self._rates
