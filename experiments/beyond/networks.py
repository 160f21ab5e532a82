"""Make the network of a row, and measure it beside its baseline."""

import dataclasses
import functools
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments.beyond import arms, losses, sensitivity
from experiments.beyond.arms import RunSpec
from experiments.beyond.config import BeyondConfig
from experiments.sampling import bound_sampling_emd
from experiments.study import recipe
from experiments.study.measure import add_noise
from experiments.study.names import checkpoint_name
from snnjax import calibrate, checkpoint, cost, data, emd, firing, train
from snnjax.calibrate.allocate import choose_bits
from snnjax.data import Dataset
from snnjax.models import SEWResNet
from snnjax.quantize import QuantSpec
from snnjax.runs import Row
from snnjax.train import Evaluation


class Networks:
    """Makes and measures the networks of one run; baselines are kept in its folder."""

    def __init__(self, config: BeyondConfig, folder: Path):
        self.config, self.folder = config, folder
        self.study = config.study()
        limits = (256, 128) if config.tiny else (config.train_images, None)
        self.train_set, self.test_set = (
            data.load(config.dataset, split, data_dir=config.data_dir, limit=limit)
            for split, limit in zip(("train", "test"), limits, strict=True)
        )
        self.corrupted = add_noise(self.test_set)
        # Tuning sees no test image: it trains on a part, and measures on the rest.
        first = len(self.train_set) * 4 // 5
        self.held_out = (
            self.train_set.subset(slice(first)),
            self.train_set.subset(slice(first, None)),
        )

    def _split(self, seed: int) -> tuple[Dataset, Dataset]:
        """Return the images to train on, and those to measure on."""
        if seed in arms.TUNING_SEEDS:
            return self.held_out
        return self.train_set, self.test_set

    def measure(self, specs: Sequence[RunSpec]) -> list[Row]:
        """Make the networks of rows of one seed, and measure them on test images."""
        seed, rows, networks = specs[0].seed, [], []
        for spec in specs:
            try:
                network, seconds = self._make(spec)
                networks.append(network)
                rows.append({"seconds": round(seconds, 1)})
            except FloatingPointError:
                networks.append(None)
                rows.append({"failed": "the loss was not finite"})
        found = self._evaluate_together([n for n in networks if n is not None], seed)
        for spec, row, network in zip(specs, rows, networks, strict=True):
            if network is not None:
                row |= self._compare(seed, next(found), self._reference(seed))
                if spec.part == "qat":
                    row |= self._compare_corrupted(seed, network)
                    trained_by = losses.MATCHED_AFTER | losses.SCALED_FIRST
                    arm = trained_by.get(spec.arm, spec.arm)
                    row["numbers"] = losses.CHOSEN.get(arm)
        return rows

    def _evaluate_together(
        self, networks: Sequence[nnx.Module], seed: int
    ) -> Iterator[Evaluation]:
        """Evaluate networks; those of one structure share the baseline's pass."""
        alike: dict[nnx.GraphDef, list[int]] = {}
        for i, network in enumerate(networks):
            alike.setdefault(nnx.split(network)[0], []).append(i)
        found: dict[int, Evaluation] = {}
        for places in alike.values():
            own = [networks[i] for i in places]
            evaluations = train.evaluate(
                own, self._split(seed)[1], reference=self.baseline(seed)
            )
            found |= zip(places, evaluations, strict=True)
        return (found[i] for i in range(len(networks)))

    def measure_baseline(self, seed: int) -> Row:
        """Measure a baseline, for the page's first table."""
        found = self._reference(seed)
        return {
            "accuracy": found.accuracy,
            "mean_rate": firing.summary(found.counts).mean_rate,
            "floor_sampling": bound_sampling_emd(found.groups),
            "operations": self._count_operations(found),
        }

    def _make(self, spec: RunSpec) -> tuple[nnx.Module, float]:
        """Return the network of a row, and the seconds that it took."""
        if spec.part == "ptq":
            return self._calibrate(spec.quantizer, spec.seed, arms.WAYS[spec.arm])
        baseline = self.baseline(spec.seed)
        model = calibrate.quantize(baseline, arms.find_quantizer(spec.quantizer).rules)
        start = time.monotonic()
        if spec.part in arms.TRAINING:
            model = self._train(spec, model, baseline)
        elif spec.part == "inputs":
            number, is_noise = arms.INPUTS[spec.arm]
            images = _make_noise(self.train_set) if is_noise else None
            seen = self._make_calibration_set(images, number)
            for step in arms.CALIBRATIONS[arms.BEST]:
                model = step(model, baseline, seen)
        else:
            if spec.arm != arms.SAME_BITS:
                bits = arms.find_quantizer(spec.quantizer).spec.bits
                model = self._allocate(spec.arm, bits, baseline)
            for step in arms.CALIBRATIONS[arms.PTQ_BN]:
                model = step(model, baseline, self._make_calibration_set())
        return model, time.monotonic() - start

    @functools.lru_cache(maxsize=8)  # noqa: B019 (they live as long as the run)
    def _calibrate(
        self, quantizer: str, seed: int, steps: tuple[arms.Calibrate, ...]
    ) -> tuple[SEWResNet, float]:
        """Return the network after steps of calibration, and the seconds of them all.

        Rows of a quantizer that begin with the same steps share them.
        """
        baseline = self.baseline(seed)
        if not steps:
            rules = arms.find_quantizer(quantizer).rules
            return calibrate.quantize(baseline, rules), 0.0
        model, seconds = self._calibrate(quantizer, seed, steps[:-1])
        start = time.monotonic()
        model = steps[-1](model, baseline, self._make_calibration_set())
        jax.block_until_ready(nnx.state(model))
        return model, seconds + time.monotonic() - start

    def _make_calibration_set(
        self, images: Dataset | None = None, number: int | None = None
    ) -> arms.CalibrationSet:
        """Return what calibration sees: by default the first training images."""
        return arms.CalibrationSet(
            self.train_set if images is None else images,
            number or self.config.images,
            recipe.make_batchnorm_augment(self.study),
        )

    def _allocate(self, arm: str, bits: int, baseline: SEWResNet) -> SEWResNet:
        """Quantize the blocks' kernels in the memory of so many bits a weight."""
        table = calibrate.layer_bits(baseline)
        blocks = [x for x in table if re.fullmatch(recipe.WEIGHTS, x.name)]
        sizes = {layer.name: layer.size for layer in blocks}
        budget, images = sum(sizes.values()) * bits, self.config.images
        augment = recipe.make_batchnorm_augment(self.study)
        if arm == arms.ALLOCATED:
            chosen = calibrate.allocate_bits(
                baseline,
                self.train_set,
                budget / 8000,
                layers=[*sizes],
                images=images,
                augment=augment,
            )
        else:
            first = self.train_set.subset(slice(images))
            costs = sensitivity.RIVALS[arm](baseline, first, [*sizes], augment)
            chosen = choose_bits(costs, sizes, budget)
        rules = {
            re.escape(name): QuantSpec(bits=bits, clip="mse")
            for name, bits in chosen.items()
        }
        return calibrate.quantize(baseline, rules)

    def _train(self, spec: RunSpec, model: SEWResNet, baseline: SEWResNet):
        train_set, _ = self._split(spec.seed)
        if spec.arm in losses.MATCHED_AFTER:
            trained = self._find_trained(spec, model, baseline)
            return arms.match(trained, baseline, self._make_calibration_set(train_set))
        steps = self.config.qat_epochs * self._per_epoch(train_set)
        if spec.arm == losses.SAME_TIME:
            steps = round(steps * losses.MORE_STEPS)
        arm = losses.SCALED_FIRST.get(spec.arm, spec.arm)
        if arm != spec.arm:
            model = calibrate.scale_to_clip(model, train_set)
        loss = (losses.TRIED if spec.part == "tune" else losses.LOSSES)[arm]
        rate = self.study.qat_learning_rate
        assert rate is not None, "resolve() sets it"
        trained = train.fit(
            model,
            train_set,
            steps=steps,
            optimizer=recipe.optimizer(self.study, train.cosine(steps, rate)),
            batch_size=self.config.batch_size,
            seed=spec.seed,
            teacher=None if loss is None else baseline,
            distill=loss,
            **self._options(),
        )
        if spec.arm in losses.MATCHED_AFTER.values():
            checkpoint.export(self._file(spec.name), trained, packed=False)
        return trained

    def _find_trained(self, spec: RunSpec, model: SEWResNet, baseline: SEWResNet):
        """Return the network that an arm calibrates, from its file or trained now."""
        own = dataclasses.replace(spec, arm=losses.MATCHED_AFTER[spec.arm])
        file = self._file(own.name)
        if checkpoint.exists(file):
            return checkpoint.load(file)
        return self._train(own, model, baseline)

    def _file(self, name: str) -> Path:
        return self.folder / "checkpoints" / f"{name}.safetensors"

    def _options(self) -> dict[str, Any]:
        return recipe.training_options(self.study) | {"on_nonfinite": "stop"}

    def _per_epoch(self, train_set: Dataset) -> int:
        return train.steps_per_epoch(train_set, self.config.batch_size)

    @functools.cache  # noqa: B019 (they live as long as the run)
    def baseline(self, seed: int) -> SEWResNet:
        """Return the full-precision network, from its file or trained now.

        Raises:
            ValueError: no digits, and no file.
        """
        study = self.study
        file = checkpoint_name(study.dataset, study.model, study.width, seed)
        published = self.config.baselines / f"{file}.safetensors"
        own = self._file(f"fp32-s{seed}")
        for path in () if self.config.tiny else (published, own):
            if checkpoint.exists(path):
                return checkpoint.load(path)
        if self.config.dataset != "digits" and not self.config.tiny:
            raise ValueError(
                f"{published} must hold the baseline, and does not exist; train it by "
                f"python -m experiments.study --preset baseline-{self.config.dataset}, "
                "and publish it by python -m experiments.baselines"
            )
        model = recipe.make_model(self.study, self.train_set, seed)
        train_set, _ = self._split(seed)
        steps = self.config.epochs * self._per_epoch(train_set)
        peak = self.study.learning_rate
        assert peak is not None, "resolve() sets it"
        model = train.fit(
            model,
            train_set,
            steps=steps,
            optimizer=recipe.optimizer(self.study, train.one_cycle(steps, peak)),
            batch_size=self.config.batch_size,
            seed=seed,
            **self._options(),
        )
        checkpoint.export(own, model, self.config.numbers() | {"seed": seed})
        return model

    @functools.cache  # noqa: B019
    def _reference(self, seed: int) -> Evaluation:
        return train.evaluate(self.baseline(seed), self._split(seed)[1])

    @functools.cache  # noqa: B019
    def _corrupted_reference(self, seed: int) -> Evaluation:
        return train.evaluate(self.baseline(seed), self.corrupted)

    def _compare_corrupted(self, seed: int, model: nnx.Module) -> Row:
        found = train.evaluate(model, self.corrupted)
        reference = self._corrupted_reference(seed)
        fired = firing.report(reference.counts, found.counts)
        return {
            "corrupted_accuracy": found.accuracy,
            "corrupted_emd_mean": fired.emd_mean,
            "corrupted_paired_shift_mean": _mean(fired.paired_shift),
        }

    def _count_operations(self, found: Evaluation) -> float:
        synapses = self.baseline(0 if not self.config.seeds else self.config.seeds[0])
        size = self.test_set.images.shape[1:3]
        table = synapses.synapses(image_size=size)
        images = found.counts.observations // 4  # steps
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
            "latency_emd_mean": _mean(_compare_latencies(found, reference)),
            "operations": self._count_operations(found),
            "emd": fired.emd,
            "paired_shift": fired.paired_shift,
        }


def _make_noise(dataset: Dataset) -> Dataset:
    shape = dataset.images.shape
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return dataclasses.replace(dataset, images=images)


def _compare_latencies(one: Evaluation, other: Evaluation) -> dict[str, float]:
    """Return the EMD between neurons' mean latencies, in units of T, by layer."""
    observations = one.counts.observations
    return {
        name: float(emd.emd_from_counts(x, other.latencies[name], observations))
        for name, x in one.latencies.items()
    }


def _mean(by_layer: dict[str, float]) -> float:
    return float(np.mean(list(by_layer.values())))
