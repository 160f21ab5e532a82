"""The networks of rows: baselines, and what is quantized and trained of them."""

import functools
from collections.abc import Sequence
from pathlib import Path

from flax import nnx

from experiments import cluster
from experiments.common import Row, StudyConfig
from experiments.console import Bar
from experiments.rows import (
    ALL_MEMBRANES,
    ALL_WEIGHTS,
    BATCHNORM_IMAGES,
    EVAL_BATCH,
    MEMBRANES,
    REESTIMATED,
    WEIGHTS,
    row_name,
)
from experiments.training import Trainer, augments, optimizer
from snnjax import calibrate, checkpoint, data, models, neurons, surrogate, train
from snnjax.data import Dataset
from snnjax.models import SEWResNet
from snnjax.quantize import QuantSpec


def make_model(config: StudyConfig, dataset: Dataset, seed: int) -> SEWResNet:
    """The network before its training."""
    make = getattr(models, config.model)
    return make(
        dataset.num_classes,
        width=config.width,
        in_channels=dataset.images.shape[-1],
        neuron=neurons.LIF(
            v_reset=0.0 if config.reset == "hard" else None,
            surrogate=getattr(surrogate, config.surrogate),
        ),
        rngs=nnx.Rngs(seed),
    )


class Networks:
    """The networks of one run; baselines lie in its folder, as do states in training.

    Args:
        config: of the study.
        train_set: training images.
        folder: of the run.
        shown: where it is said how far it is.
        devices: how many a study takes.
    """

    def __init__(
        self,
        config: StudyConfig,
        train_set: Dataset,
        folder: Path,
        shown: Bar,
        devices: int = 1,
    ):
        self.config = config
        self.train_set = train_set
        self.folder = folder
        self.shown = shown
        self.trainer = Trainer(config, train_set, folder, shown, devices)

    def of(self, group: Sequence[Row]) -> list[SEWResNet]:
        """The networks of rows of one mode and seed, trained where it says so."""
        mode, seed = group[0]["mode"], group[0]["seed"]
        if mode == "fp32":
            return [self.baseline(seed)]
        models = [self.quantized(part) for part in group]
        names = [row_name(part) for part in group]
        if mode in REESTIMATED:
            pairs = zip(names, models, strict=True)
            return [self._with_batchnorm(name, model) for name, model in pairs]
        if mode == "ptq":
            return models
        peak = self.config.qat_learning_rate
        assert peak is not None, "resolve() gives it"
        rates = train.cosine(self._steps(self.config.qat_epochs), peak)
        before = self._has_epoch_before(mode)
        return self.trainer.train(names, models, rates, seed, epoch_before=before)

    @functools.lru_cache(maxsize=4)  # noqa: B019 (they live as long as the run)
    def baseline(self, seed: int) -> SEWResNet:
        """The full-precision network, from its checkpoint or trained now."""
        name = f"fp32-s{seed}"
        path = self.folder / "checkpoints" / f"{name}.safetensors"
        model = make_model(self.config, self.train_set, seed)
        graphdef, like = nnx.split(model)

        def load() -> nnx.State | None:
            there = checkpoint.exists(path)
            return nnx.state(checkpoint.load(path, model)) if there else None

        state = cluster.kept_by_first(load, like)
        if state is not None:
            return nnx.merge(graphdef, state)
        steps, peak = self._steps(self.config.epochs), self.config.learning_rate
        assert peak is not None, "resolve() gives it"
        if self.config.schedule == "cosine":
            rates = train.cosine(steps, peak, self._steps(self.config.warmup_epochs))
        else:
            rates = train.one_cycle(steps, peak)
        [model] = self.trainer.train([name], [model], rates, seed)
        about = self.config.numbers() | {"seed": seed}
        cluster.by_first(lambda: str(checkpoint.export(path, model, about)))
        return model

    def quantized(self, part: Row) -> SEWResNet:
        """The baseline with the quantizers of a row, not yet trained with them."""
        model = self.baseline(part["seed"])
        if part["target"] == "none":
            return model
        spec = QuantSpec(
            method=part["method"],
            bits=part["bits"],
            clip=part["clip"],
            signed=part["signed"],
            grid=part["grid"] or "mid_rise",
        )
        everywhere = part["quantize_all"]
        if part["target"] == "membrane":
            rules = {ALL_MEMBRANES if everywhere else MEMBRANES: spec}
            return calibrate.quantize(model, rules, membrane_site=part["site"])
        return calibrate.quantize(model, {ALL_WEIGHTS if everywhere else WEIGHTS: spec})

    def epoch_before(self, part: Row, model: SEWResNet) -> SEWResNet | None:
        """A control one epoch before its end; None for all else."""
        if not self._has_epoch_before(part["mode"]):
            return None
        path = self.trainer.epoch_before(row_name(part))
        like = train.init(model, optimizer(self.config))

        def load() -> train.TrainState | None:
            return checkpoint.load(path, like) if checkpoint.exists(path) else None

        state = cluster.kept_by_first(load, like)
        # There is none where an earlier version has trained it so far.
        return None if state is None else train.trained(model, state)

    def _has_epoch_before(self, mode: str) -> bool:
        return mode == "control" and self.config.qat_epochs > 1

    def _steps(self, epochs: int) -> int:
        return epochs * train.steps_per_epoch(self.train_set, self.config.batch_size)

    def _with_batchnorm(self, name: str, model: SEWResNet) -> SEWResNet:
        self.shown.say(f"{name}: re-estimating BatchNorm")
        # Crops, as training saw: by whole images' statistics CIFAR-100's baseline moves
        # by an EMD of 0.015, more than by most quantizers, and by crops' 0.0014.
        size = min(EVAL_BATCH, len(self.train_set))
        return calibrate.reestimate_batchnorm(
            model,
            self.train_set,
            timesteps=self.config.timesteps,
            images=BATCHNORM_IMAGES,
            batch_size=EVAL_BATCH,
            augment=data.augment if augments(self.config) else None,
            on_step=lambda: self.shown.advance(size / 3),
        )
