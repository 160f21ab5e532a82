"""Measurements of a network: accuracy, firing against the baseline, cost."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.console import Bar
from experiments.provenance import versions
from experiments.sampling import bound_sampling_emd
from experiments.study import layout
from experiments.study.config import StudyConfig
from experiments.study.grid import (
    EVAL_BATCH,
    NOISY_IMAGES,
    RunSpec,
    evaluation_cost,
)
from experiments.study.store import RowFiring, StudyStore
from snnjax import calibrate, cost, emd, firing, runs, train
from snnjax.data import Dataset
from snnjax.firing import FiringCounts
from snnjax.models import SEWResNet
from snnjax.models.connections import INPUT
from snnjax.train import Evaluation

FLOORS = ("floor_control", "floor_seed", "floor_sampling")
# Fields of a result that have the names of the config's, and of the firing report's.
_OF_CONFIG = ("dataset", "model", "width", "surrogate", "reset", "precision")
_OF_FIRING = (
    *("mean_rate", "dead_fraction", "saturated_fraction", "emd_mean"),
    *("emd", "paired_shift", "mean_shift", "ks"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """The measurements of one run: a row of ``results.jsonl``, with keys in this order.

    Attributes:
        spec: what was run; in the row its fields are keys of their own.
        accuracy: on the test images, in [0, 1]; as are rates and fractions.
        accuracy_by_step: the same of the outputs until each step.
        accuracy_noisy: the same of the first images with noise, see `add_noise`.
        emd_mean: mean over layers of the earth mover's distance to the baseline.
        emd_mean_epoch_before: the same of a control as its last epoch began.
        floor_control, floor_seed, floor_sampling: mean EMD of the baseline to its
            control, to other seeds' baselines, and to itself on other images.
        synops, synops_largest: synaptic operations an image, of all layers and of the
            one with most: what the busiest core of a chip does that has a core a layer.
        devices: number of devices of the study.
        seconds: time of the run, shared equally by runs side by side.
    """

    dataset: str
    model: str
    width: int
    surrogate: str
    reset: str
    spec: RunSpec
    accuracy: float
    accuracy_by_step: list[float]
    accuracy_noisy: float
    mean_rate: float
    dead_fraction: float
    saturated_fraction: float
    emd_mean: float
    emd_mean_epoch_before: float | None
    emd: dict[str, float]
    paired_shift: dict[str, float]
    mean_shift: dict[str, float]
    ks: dict[str, float]
    latency_emd_mean: float
    latency_emd: dict[str, float]
    time_w1_mean: float
    time_w1: dict[str, float]
    floor_control: float | None
    floor_seed: float | None
    floor_sampling: float | None
    synops: float
    synops_largest: float
    weight_memory_bits: int
    membrane_memory_bits: int
    precision: str
    platform: str
    config_hash: str
    versions: dict[str, str]
    devices: int
    seconds: float

    def to_row(self) -> dict[str, Any]:
        """Return the JSON object of the result."""
        row: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            row |= value.to_row() if field.name == "spec" else {field.name: value}
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Result":
        """Return the result of a JSON object.

        Raises:
            ValueError: the object lacks a key.
        """
        names = {field.name for field in dataclasses.fields(cls)} - {"spec"}
        try:
            values = {name: row[name] for name in names}
            return cls(spec=RunSpec.from_row(row), **values)
        except KeyError as error:
            raise ValueError(
                f"row must be a study's result, got one without {error}; remove its "
                "line, and it is computed again"
            ) from None


@dataclasses.dataclass
class Measurer:
    """Compares networks with the baselines of one study.

    ``results`` are the finished runs by name, to which `append` adds.
    """

    config: StudyConfig
    store: StudyStore
    results: dict[str, Result]
    test_set: Dataset
    bar: Bar
    num_devices: int = 1

    def __post_init__(self):
        self._baselines: dict[RunSpec, RowFiring] = {}  # each is read once, at most
        self._noisy_set = add_noise(self.test_set.subset(slice(NOISY_IMAGES)))

    def evaluate(
        self,
        specs: Sequence[RunSpec],
        networks: Sequence[SEWResNet],
        baseline: SEWResNet,
        *,
        noisy: bool = False,
    ) -> list[Evaluation]:
        """Evaluate networks side by side, each beside the baseline."""
        name = specs[0].name
        more = f" and {len(specs) - 1} more" if len(specs) > 1 else ""
        self.bar.set_description(f"{name}{more}: evaluating")

        each = evaluation_cost(specs[0].mode, len(self.test_set))

        def on_step() -> None:
            self.bar.advance(EVAL_BATCH * each * len(networks))
            runs.raise_if_stopping(f"while {name} was evaluated")

        return train.evaluate(
            list(networks),
            self._noisy_set if noisy else self.test_set,
            reference=baseline,  # with noise too: of few images one program does both
            timesteps=self.config.timesteps,
            batch_size=EVAL_BATCH,
            on_step=on_step,
            mesh=layout.mesh_for(len(networks), self.num_devices),
        )

    def append(
        self,
        spec: RunSpec,
        model: SEWResNet,
        evaluation: Evaluation,
        noisy: Evaluation,
        epoch_before: Evaluation | None,
        seconds: float,
    ) -> Result:
        """Measure a network against its baseline and append its row to the study.

        A baseline's own distances are 0. The results must have the baselines and, for a
        quantized network, the control of its seed.

        Args:
            spec: of the network.
            model: the network.
            evaluation: of it, beside its baseline.
            noisy: the same on images with noise.
            epoch_before: of a control as its last epoch began.
            seconds: time of the run.
        """

        def measure_and_append() -> dict[str, Any]:
            result, own = self._measure(
                spec, model, evaluation, noisy, epoch_before, seconds
            )
            self.store.append_firing(result.to_row(), own)
            return result.to_row()

        row = runs.run_on_primary(measure_and_append)
        self.results[spec.name] = Result.from_row(row)
        return self.results[spec.name]

    def _measure(
        self,
        spec: RunSpec,
        model: SEWResNet,
        evaluation: Evaluation,
        noisy: Evaluation,
        epoch_before: Evaluation | None,
        seconds: float,
    ) -> tuple[Result, RowFiring]:
        """Return the result, and the firing that it was computed from."""
        config, layers = self.config, _spiking_layers(model)
        spikes, observations = evaluation.counts.spikes, evaluation.counts.observations
        counts = FiringCounts({name: spikes[name] for name in layers}, observations)
        own = RowFiring(counts, {name: evaluation.latencies[name] for name in layers})
        if spec.mode == "fp32":
            self._baselines[spec] = own
        baseline = self._baseline(spec.baseline)
        fired = firing.report(baseline.counts, counts, method=config.emd)
        latency_emd = {
            name: config.timesteps
            * float(emd.emd_from_counts(baseline.latencies[name], late, observations))
            for name, late in own.latencies.items()
        }
        assert evaluation.time_w1 is not None, "a study evaluates beside its baseline"
        time_w1 = {name: evaluation.time_w1[name] for name in layers}
        images = observations // config.timesteps
        neurons = {name: np.size(spikes) for name, spikes in counts.spikes.items()}
        synapses = model.synapses(np.shape(counts.spikes["sn1"])[:2])
        operations = cost.synaptic_operations(synapses, counts.spikes, images)
        weight_bits, membrane_bits = calibrate.memory_bits(model, neurons)
        result = Result(
            **{name: getattr(config, name) for name in _OF_CONFIG},
            **{name: getattr(fired, name) for name in _OF_FIRING},
            **self._floors(spec, evaluation, counts),
            spec=spec,
            accuracy=evaluation.accuracy,
            accuracy_by_step=evaluation.accuracy_by_step.tolist(),
            accuracy_noisy=noisy.accuracy,
            emd_mean_epoch_before=None
            if epoch_before is None
            else self._distance(baseline.counts, epoch_before.counts),
            latency_emd_mean=_mean(latency_emd.values()),
            latency_emd=latency_emd,
            time_w1_mean=_mean(time_w1.values()),
            time_w1=time_w1,
            synops=sum(operations.values()),
            synops_largest=max(operations.values()),
            weight_memory_bits=weight_bits,
            membrane_memory_bits=membrane_bits,
            platform=jax.default_backend(),
            config_hash=config.hash(),
            versions=versions(),
            devices=self.num_devices,
            seconds=round(seconds, 3),
        )
        return result, own

    def _baseline(self, spec: RunSpec) -> RowFiring:
        if spec not in self._baselines:
            self._baselines[spec] = self.store.firing(spec.to_row())
        return self._baselines[spec]

    def _distance(self, reference: FiringCounts, other: FiringCounts) -> float:
        return firing.report(reference, other, method=self.config.emd).emd_mean

    def _floors(
        self, spec: RunSpec, evaluation: Evaluation, counts: FiringCounts
    ) -> dict[str, Any]:
        """Return what moves the baseline of ``spec``'s seed without a quantizer."""
        if spec.mode == "fp32":
            bound = bound_sampling_emd(evaluation.groups)
            return dict.fromkeys(FLOORS) | {"floor_sampling": bound}
        if spec.mode == "control":
            reference = self._baseline(spec.baseline).counts
            others = [
                self._baseline(dataclasses.replace(spec.baseline, seed=seed)).counts
                for seed in self.config.seeds
                if seed != spec.seed
            ]
            distances = [self._distance(reference, other) for other in others]
            return {
                "floor_control": self._distance(reference, counts),
                "floor_seed": _mean(distances) if distances else None,
                "floor_sampling": self.results[spec.baseline.name].floor_sampling,
            }
        # All runs of a seed have what was measured with its control.
        control = self.results[dataclasses.replace(spec.baseline, mode="control").name]
        return {name: getattr(control, name) for name in FLOORS}


def add_noise(dataset: Dataset) -> Dataset:
    """Return a data set of uint8 images with normal noise, of a fifth of their range.

    The noise is a function of the images' number and shape alone.
    """
    noise = np.random.default_rng(0).normal(0, 51, dataset.images.shape)
    images = np.clip(np.rint(dataset.images + noise), 0, 255).astype(np.uint8)
    return dataclasses.replace(dataset, images=images)


def _spiking_layers(model: SEWResNet) -> list[str]:
    """Return the spiking layers in the network's order; JAX sorts them by name."""
    sources = (name for synapse in model.synapses() for name in synapse.sources)
    return [name for name in dict.fromkeys(sources) if name != INPUT]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
