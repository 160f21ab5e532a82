"""Make the network of a row, and measure it beside its baseline."""

import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from experiments.beyond import arms
from experiments.beyond.arms import RunSpec
from experiments.beyond.config import BeyondConfig
from experiments.sampling import bound_sampling_emd
from experiments.study import recipe
from snnjax import calibrate, checkpoint, cost, data, firing, train
from snnjax.models import SEWResNet
from snnjax.runs import Row
from snnjax.train import Evaluation


class Networks:
    """Makes and measures the networks of one run; baselines are kept in its folder."""

    def __init__(self, config: BeyondConfig, folder: Path):
        self.config, self.folder = config, folder
        self.study = config.study()
        limits = (256, 128) if config.tiny else (None, None)
        self.train_set, self.test_set = (
            data.load(config.dataset, split, data_dir=config.data_dir, limit=limit)
            for split, limit in zip(("train", "test"), limits, strict=True)
        )

    def measure(self, spec: RunSpec) -> Row:
        """Make a row's network, and measure it on the test images."""
        start = time.monotonic()
        baseline = self.baseline(spec.seed)
        quantizer = arms.find_quantizer(spec)
        model = calibrate.quantize(baseline, quantizer.rules)
        make = self._calibrate if spec.part == "ptq" else self._train
        start = time.monotonic()
        try:
            model = make(spec, model, baseline)
        except FloatingPointError:
            return {"failed": "the loss was not finite"}
        seconds = time.monotonic() - start
        found = self._evaluate(model, baseline)
        return {"seconds": round(seconds, 1)} | self._compare(
            spec.seed, found, self._reference(spec.seed)
        )

    def measure_baseline(self, seed: int) -> Row:
        """Measure a baseline, for the page's first table."""
        found = self._reference(seed)
        return {
            "accuracy": found.accuracy,
            "mean_rate": firing.summary(found.counts).mean_rate,
            "floor_sampling": bound_sampling_emd(found.groups),
            "operations": self._count_operations(found),
        }

    def _calibrate(self, spec: RunSpec, model: SEWResNet, baseline: SEWResNet):
        chain = (arms.CALIBRATIONS | arms.CLIPPED)[spec.arm]
        calibrated: Any = model
        for step in chain:
            calibrated = step(calibrated, baseline, self.train_set, self.config.images)
        return calibrated

    def _train(self, spec: RunSpec, model: SEWResNet, baseline: SEWResNet):
        steps = self.config.qat_epochs * self._per_epoch
        if spec.arm == arms.SAME_TIME:
            steps = round(steps * arms.MORE_STEPS)
        loss = arms.LOSSES[spec.arm]
        rate = self.study.qat_learning_rate
        assert rate is not None, "resolve() sets it"
        return train.fit(
            model,
            self.train_set,
            steps=steps,
            optimizer=recipe.optimizer(self.study, train.cosine(steps, rate)),
            batch_size=self.config.batch_size,
            seed=spec.seed,
            teacher=None if loss is None else baseline,
            distill=loss,
            **self._options(),
        )

    def _options(self) -> dict[str, Any]:
        return recipe.training_options(self.study) | {"on_nonfinite": "stop"}

    @property
    def _per_epoch(self) -> int:
        return train.steps_per_epoch(self.train_set, self.config.batch_size)

    @functools.cache  # noqa: B019 (they live as long as the run)
    def baseline(self, seed: int) -> SEWResNet:
        """Return the full-precision network, from its file or trained now."""
        model = recipe.make_model(self.study, self.train_set, seed)
        file = f"{self.config.dataset}-sew_resnet8-w{self.config.width}-s{seed}"
        published = self.config.baselines / f"{file}.safetensors"
        own = self.folder / "checkpoints" / f"fp32-s{seed}.safetensors"
        for path in () if self.config.tiny else (published, own):
            if checkpoint.exists(path):
                return checkpoint.load(path, model)
        steps = self.config.epochs * self._per_epoch
        peak = self.study.learning_rate
        assert peak is not None, "resolve() sets it"
        model = train.fit(
            model,
            self.train_set,
            steps=steps,
            optimizer=recipe.optimizer(self.study, train.one_cycle(steps, peak)),
            batch_size=self.config.batch_size,
            seed=seed,
            **self._options(),
        )
        own.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.export(own, model, self.config.numbers() | {"seed": seed})
        return model

    @functools.cache  # noqa: B019
    def _reference(self, seed: int) -> Evaluation:
        return self._evaluate(self.baseline(seed), None)

    def _evaluate(self, model: nnx.Module, reference: nnx.Module | None) -> Evaluation:
        return train.evaluate(model, self.test_set, reference=reference)

    def _count_operations(self, found: Evaluation) -> float:
        synapses = self.baseline(0 if not self.config.seeds else self.config.seeds[0])
        size = self.test_set.images.shape[1:3]
        table = synapses.synapses(image_size=size)
        images = len(self.test_set)
        return sum(cost.synaptic_operations(table, found.spikes, images).values())

    def _compare(self, seed: int, found: Evaluation, reference: Evaluation) -> Row:
        fired = firing.report(reference.counts, found.counts)
        assert found.time_w1 is not None
        return {
            "accuracy": found.accuracy,
            "emd_mean": fired.emd_mean,
            "paired_shift_mean": _mean(fired.paired_shift),
            "mean_rate": fired.mean_rate,
            "dead_fraction": fired.dead_fraction,
            "time_w1_mean": _mean(found.time_w1),
            "operations": self._count_operations(found),
            "emd": fired.emd,
            "paired_shift": fired.paired_shift,
        }


def _mean(by_layer: dict[str, float]) -> float:
    return float(np.mean(list(by_layer.values())))
