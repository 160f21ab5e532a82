"""The runs that follow from a study's configuration, and the work of each."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.study.config import StudyConfig

CLIPS = {"narrow": 1.0, "wide": 10.0}
# LQ-Net keeps its 2^bits levels in a table; the library takes no more bits.
LQ_NET_BITS = 8

EVAL_BATCH = 128
# Untrained networks that are evaluated beside one pass of their baseline, in two thirds
# of the time of each alone. It takes a program of its own: of few images no gain.
TOGETHER, MANY = 4, 2000
NOISY_IMAGES = 2000  # test images that networks are evaluated on with noise, at most
BATCHNORM_IMAGES = 2048  # training images that BatchNorm is re-estimated on
REESTIMATED = ("ptq_bn", "fp32_bn")  # modes that re-estimate BatchNorm


def count_together(mode: str, images: int) -> int:
    """Return how many runs of a mode are evaluated together, on so many images."""
    return TOGETHER if mode in ("ptq", "ptq_bn") and images >= MANY else 1


def evaluation_cost(mode: str, images: int) -> float:
    """Return the work of evaluating an image, over that of training on it.

    It passes the run's network and the baseline, and a forward pass is a third.
    """
    return 2 / 3 * (2 / 3 if count_together(mode, images) > 1 else 1)


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """One run to be done: which quantizer, where, how it is trained, and the seed.

    Attributes:
        target: "weights", "membrane", or "none" for full precision; then all fields
            but mode and seed are None.
        method: "uniform" or "lq_net".
        grid: levels of a uniform quantizer, "mid_rise" or "mid_tread".
        clip: largest magnitude of the quantizer's range.
        signed: the range is [-clip, clip]; otherwise [0, clip].
        site: where a membrane is quantized, "post_reset" or "pre_fire".
        quantize_all: the stem and the last layer too, not the blocks alone.
        bits: of the quantizer.
        mode: "ptq", "ptq_bn" or "qat"; "fp32", "control" or "fp32_bn" of a reference.
        seed: of the baseline, and of the order of batches.
    """

    target: str
    method: str | None
    grid: str | None
    clip: float | None
    signed: bool | None
    site: str | None
    quantize_all: bool | None
    bits: int | None
    mode: str
    seed: int

    @classmethod
    def reference(cls, mode: str, seed: int) -> "RunSpec":
        """Return the spec of a run without quantization."""
        return cls("none", None, None, None, None, None, None, None, mode, seed)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "RunSpec":
        """Return the spec of a result's row.

        Raises:
            KeyError: the row lacks a key.
        """
        return cls(**{field.name: row[field.name] for field in dataclasses.fields(cls)})

    def to_row(self) -> dict[str, Any]:
        """Return the fields as a row's keys, in their order."""
        return dataclasses.asdict(self)

    @property
    def name(self) -> str:
        """The run's name: unique in a study, and a file name.

        >>> RunSpec.reference("fp32", seed=0).name
        'fp32-s0'
        """
        if self.target == "none":
            return f"{self.mode}-s{self.seed}"
        parts = (
            self.target,
            self.method,
            self.grid,
            "signed" if self.signed else "unsigned",
            "prefire" * (self.site == "pre_fire"),
            "all" * bool(self.quantize_all),
            f"clip{self.clip:g}",
            f"b{self.bits}",
            self.mode,
            f"s{self.seed}",
        )
        return "-".join(part for part in parts if part)

    @property
    def baseline(self) -> "RunSpec":
        """The full-precision run that this one starts from and is compared with."""
        return RunSpec.reference("fp32", self.seed)

    @property
    def compile_key(self) -> str:
        """Name of the network's program: specs with equal keys share it."""
        if self.target == "none":
            return "full precision"
        if self.target == "membrane":
            name = f"membrane {'signed' if self.signed else 'unsigned'}"
            name += " pre-fire" * (self.site == "pre_fire")
            name += f" lq_net {self.bits} bit" * (self.method == "lq_net")
        elif self.method == "lq_net":
            name = f"weights lq_net {self.bits} bit"
        else:
            name = f"weights {self.method} {self.grid}"
        return name + " everywhere" * bool(self.quantize_all)

    def cost_in_images(self, config: StudyConfig, n_train: int, n_test: int) -> float:
        """Return the work of the run, in images trained; see `evaluation_cost`."""
        per_epoch = n_train // config.batch_size * config.batch_size
        tested, noisy = (
            -(-n // EVAL_BATCH) * EVAL_BATCH * evaluation_cost(self.mode, n_test)
            for n in (n_test, min(n_test, NOISY_IMAGES))
        )
        if self.mode in REESTIMATED:
            size = min(EVAL_BATCH, n_train)
            reestimated = min(n_train, BATCHNORM_IMAGES) // size * size / 3
            return tested + noisy + reestimated
        if self.mode == "control" and config.qat_epochs > 1:
            tested *= 2  # before its last epoch as well
        saved = 1 - config.warm_start_timesteps / config.timesteps
        baseline = config.epochs * (1 - saved * config.warm_start)
        if config.baselines is not None:
            baseline = 0
        epochs = {"fp32": baseline, "ptq": 0}.get(self.mode, config.qat_epochs)
        return tested + noisy + epochs * per_epoch


def name_row(row: Mapping[str, Any]) -> str:
    """Return the name of a result's row."""
    return RunSpec.from_row(row).name


def references(config: StudyConfig) -> list[RunSpec]:
    """Return the runs without quantization: all baselines, then the others.

    The controls are trained as long as QAT, and ``fp32_bn`` is PTQ+BN's reference: the
    baselines with BatchNorm re-estimated.
    """
    modes = ["fp32", "control"] + ["fp32_bn"] * ("ptq_bn" in config.modes)
    return [RunSpec.reference(mode, seed) for mode in modes for seed in config.seeds]


def grid(config: StudyConfig) -> list[RunSpec]:
    """Return the runs with quantization in the order of execution: QAT is last.

    >>> config = StudyConfig(bits=(2, 4), modes=("qat",), only="membrane")
    >>> [(spec.signed, spec.bits, spec.mode) for spec in grid(config)]
    [(True, 2, 'qat'), (True, 4, 'qat'), (False, 2, 'qat'), (False, 4, 'qat')]
    """
    first, *others = config.seeds
    specs = _specs(config, first, config.bits, _qat_bits(config))
    for seed in others if config.repeat else ():
        qat_bits = config.repeat_qat_bits
        qat_bits = _qat_bits(config) if qat_bits is None else qat_bits
        specs += _specs(config, seed, config.bits, qat_bits)
    if config.ablation_bits:
        qat_bits = tuple(set(config.ablation_bits) & set(_qat_bits(config)))
        scope = dataclasses.replace(config, quantize_all=not config.quantize_all)
        other = "post_reset" if config.site == "pre_fire" else "pre_fire"
        site = dataclasses.replace(config, site=other)
        for changed, target in ((scope, "weights"), (site, "membrane")):
            if config.only in (None, target):
                changed = dataclasses.replace(changed, only=target)
                specs += _specs(changed, first, config.ablation_bits, qat_bits)
    # Minutes before hours: a run stopped halfway has all that needs no training.
    return sorted(specs, key=lambda spec: spec.mode == "qat")


def planned(config: StudyConfig) -> list[RunSpec]:
    """Return all runs of a study, in the order of execution."""
    return [*references(config), *grid(config)]


def _qat_bits(config: StudyConfig) -> tuple[int, ...]:
    return config.bits if config.qat_bits is None else config.qat_bits


def _specs(config: StudyConfig, seed: int, bits, qat_bits) -> list[RunSpec]:
    clips = tuple(CLIPS.values())
    # Specs of one compile key follow each other, in training and without it.
    quantizers = [
        ("weights", _way(levels), True, None, clips)
        for levels in (*config.grid, "lq_net")
    ]
    quantizers += [
        ("membrane", _way(levels), signed, config.site, clips[:1])
        for levels in config.membrane_grid
        for signed in (True, False)
    ]
    # Untrained, LQ-Net's levels of a membrane are those of the mid-tread grid.
    twins = ("membrane", "lq_net") if "mid_tread" in config.membrane_grid else None
    return [
        RunSpec(target, *way, clip, signed, site, config.quantize_all, b, mode, seed)
        for target, way, signed, site, clips in quantizers
        if config.only in (None, target)
        for clip in clips
        for b in bits
        if way[0] != "lq_net" or b <= LQ_NET_BITS
        for mode in config.modes
        if mode != "qat" or b in qat_bits
        if mode == "qat" or (target, way[0]) != twins
    ]


def _way(levels: str) -> tuple[str, str | None]:
    """Return the method and the uniform grid of a choice of levels."""
    return ("lq_net", None) if levels == "lq_net" else ("uniform", levels)
