"""The networks that are measured: quantizers, ways to calibrate; the rows in order."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from experiments.beyond.config import BeyondConfig
from experiments.beyond.losses import (
    FIRST,
    LOSSES,
    MATCHED_AFTER,
    PLAIN,
    SAME_TIME,
    SCALED_FIRST,
    TRIED,
)
from experiments.beyond.sensitivity import RIVALS
from experiments.study.recipe import MEMBRANES, WEIGHTS
from snnjax import calibrate
from snnjax.data import Dataset
from snnjax.models import SEWResNet
from snnjax.quantize import QuantSpec


@dataclasses.dataclass(frozen=True)
class Quantizer:
    """A quantizer of the blocks' kernels or membranes.

    Attributes:
        name: in rows and tables.
        spec: the quantizer.
        target: ``"weights"`` or ``"membrane"``.
    """

    name: str
    spec: QuantSpec
    target: str = "weights"

    @property
    def rules(self) -> dict[str, QuantSpec]:
        """Rules for `calibrate.quantize`."""
        return {WEIGHTS if self.target == "weights" else MEMBRANES: self.spec}


def _uniform(bits: int, grid: str, clip: Any) -> Quantizer:
    bound = {1.0: "narrow", 10.0: "wide"}.get(clip, f"by {clip}")
    name = f"{grid.replace('_', '-')} {bound} {bits} bit"
    return Quantizer(name, QuantSpec(bits=bits, clip=clip, grid=grid))


def _membrane(bits: int, signed: bool) -> Quantizer:
    name = f"membrane {'signed' if signed else 'unsigned'} {bits} bit"
    spec = QuantSpec(bits=bits, clip=1.0, signed=signed, grid="mid_tread")
    return Quantizer(name, spec, "membrane")


def _lq_net(bits: int, codes: tuple[int, int] = (-1, 1)) -> Quantizer:
    name = f"LQ-Net narrow {bits} bit" + " {0, 1}" * (codes == (0, 1))
    return Quantizer(name, QuantSpec("lq_net", bits=bits, codes=codes))


def _learned_membrane(signed: bool) -> Quantizer:
    name = f"membrane LSQ from {'signed' if signed else 'unsigned'} 2 bit"
    spec = QuantSpec("lsq", bits=2, clip=1.0, signed=signed, zero_point=True)
    return Quantizer(name, spec, "membrane")


# Grids that fit the weights badly.
UNFIT = (_uniform(2, "mid_tread", 1.0), _uniform(2, "mid_rise", 10.0))
CALIBRATED = (
    _uniform(4, "mid_rise", 1.0),
    _uniform(4, "mid_tread", "mse"),
    _lq_net(2),
    _uniform(2, "mid_rise", 1.0),
    _uniform(2, "mid_tread", "mse"),
    _uniform(3, "mid_rise", 1.0),
    _uniform(3, "mid_tread", "mse"),
    _lq_net(4),
    _uniform(6, "mid_rise", 1.0),
    _uniform(6, "mid_tread", "mse"),
    _membrane(2, True),
    _membrane(2, False),
    _membrane(4, True),
    _membrane(4, False),
)
TRAINED = (
    UNFIT[0],
    _lq_net(2),
    UNFIT[1],
    _uniform(2, "mid_rise", 1.0),
    _lq_net(2, (0, 1)),
    Quantizer("binary per channel", QuantSpec("binary", per_channel=True)),
    _membrane(2, True),
    _membrane(2, False),
    _learned_membrane(True),
    _learned_membrane(False),
)
# The membrane quantizer that does not train: its bases learn by the gradient alone.
NAIVE = Quantizer("membrane LQ-Net 2 bit", QuantSpec("lq_net", bits=2), "membrane")
# On which the weights of losses are tuned.
TUNED_ON = (TRAINED[0], TRAINED[1], _membrane(2, True))
TUNING_SEEDS = (100, 101)
TRAINING = ("qat", "tune")  # parts whose networks are trained


class CalibrationSet(NamedTuple):
    """Images for calibration.

    Attributes:
        images: a data set, of which the first are taken.
        number: how many.
        augment: what the baseline's training did to images, for BatchNorm's statistics.
    """

    images: Dataset
    number: int
    augment: Callable[..., Any] | None


Calibrate = Callable[[SEWResNet, SEWResNet, CalibrationSet], SEWResNet]


def _reestimate(model, baseline, seen):
    return calibrate.reestimate_batchnorm(
        model, seen.images, images=seen.number, augment=seen.augment
    )


def _correct(model, baseline, seen):
    return calibrate.correct_bias(model, baseline, seen.images, images=seen.number)


def match(model, baseline, seen):
    """Calibrate by `calibrate.fire_match`."""
    return calibrate.fire_match(
        model, baseline, seen.images, images=seen.number, augment=seen.augment
    )


def _compensate(model, baseline, seen):
    return calibrate.osbc(model, seen.images, images=seen.number, augment=seen.augment)


def _choose(by):
    def choose(model, baseline, seen):
        return calibrate.choose_clip(
            model, baseline, seen.images, by=by, images=seen.number
        )

    return choose


# Each way is a chain of functions; PTQ+BN is the one to be measured by.
ROUNDED, PTQ_BN = "rounded to nearest", "+ BatchNorm"
MATCHED, BEST = "fire_match", "OSBC, fire_match"
CALIBRATIONS: dict[str, tuple[Calibrate, ...]] = {
    ROUNDED: (),
    PTQ_BN: (_reestimate,),
    "+ BatchNorm, bias": (_reestimate, _correct),
    MATCHED: (match,),
    "OSBC": (_compensate,),
    "OSBC, bias": (_compensate, _correct),
    BEST: (_compensate, match),
}
CLIPPED: dict[str, tuple[Calibrate, ...]] = {
    f"clip by {by}, BatchNorm": (_choose(by), _reestimate)
    for by in ("mse", "kl", "firing")
}
CLIPPED["clip by firing, OSBC, fire_match"] = (_choose("firing"), _compensate, match)


def _scale(model, baseline, seen):
    return calibrate.scale_to_clip(model, seen.images)


# Each channel of a kernel is scaled to the bound that all have.
SCALED: dict[str, tuple[Calibrate, ...]] = {
    "scaled, BatchNorm": (_scale, _reestimate),
    "scaled, OSBC, fire_match": (_scale, _compensate, match),
}


def _reconstruct(model, baseline, seen):
    return calibrate.reconstruct(
        model, baseline, seen.images, images=seen.number, augment=seen.augment
    )


# Rounding that is learned, for kernels of few levels.
RECONSTRUCTED: dict[str, tuple[Calibrate, ...]] = {
    "reconstruct": (_reconstruct,),
    "reconstruct, fire_match": (_reconstruct, match),
}
FEW_BITS = 3
# Every way to calibrate, by its name in rows.
WAYS = CALIBRATIONS | CLIPPED | SCALED | RECONSTRUCTED


# How many inputs the best chain sees, and of what kind.
INPUTS = {f"{BEST}, {n} images": (n, False) for n in (32, 64, 128, 256, 512, 1024)}
INPUTS[f"{BEST}, 512 of noise"] = (512, True)
SEEN_ON = CALIBRATED[0]
# Equal memory: one number of bits for all kernels, or bits by drift.
SAME_BITS, ALLOCATED = "the same bits in all", "allocate_bits"
BUDGETS = (3, 4, 6)


def name_budget(bits: int) -> str:
    """Name a memory budget, in rows and tables."""
    return f"{bits} bits a weight"


BUDGETED = tuple(
    Quantizer(name_budget(bits), QuantSpec(bits=bits, clip="mse")) for bits in BUDGETS
)


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """One row: what is quantized, what is done about it, and the seed.

    Attributes:
        part: one of `config.PARTS`.
        quantizer: name of the quantizer.
        arm: what is done.
        seed: of the baseline, and of the order of batches.
    """

    part: str
    quantizer: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """The row's name: unique, and a file name."""
        parts = (self.part, self.quantizer, self.arm, f"s{self.seed}")
        text = "-".join(parts).lower()
        return "".join(c if c.isalnum() or c in "-.+" else "_" for c in text)


def has_bound(quantizer: Quantizer) -> bool:
    """Return True if kernels can be scaled to the quantizer's bound."""
    return quantizer.target == "weights" and quantizer.spec.method == "uniform"


def find_quantizer(name: str) -> Quantizer:
    """Return the quantizer of rows."""
    known = (*CALIBRATED, *TRAINED, NAIVE, *BUDGETED)
    return next(q for q in known if q.name == name)


def list_specs(config: BeyondConfig) -> list[RunSpec]:
    """Return the rows in the order of execution.

    On CIFAR, where a training takes minutes, three quantizers are trained, by the arms
    that digits left to compare, and rounding is not learned.
    """
    seeds, only, tiny = config.seeds, config.only, config.tiny
    few = tiny or config.dataset != "digits"
    parts: dict[str, Iterator[RunSpec]] = {
        "tune": _list_tuning(tiny),
        "ptq": _list_calibrations(seeds, few, tiny),
        "qat": _list_trainings(seeds, few, tiny),
        "memory": (
            RunSpec("memory", quantizer.name, arm, seed)
            for seed in seeds
            for quantizer in BUDGETED
            for arm in (SAME_BITS, ALLOCATED, *RIVALS)
        ),
        "inputs": (
            RunSpec("inputs", SEEN_ON.name, arm, seed)
            for seed in seeds
            for arm in INPUTS
        ),
    }
    chosen = [specs for part, specs in parts.items() if only in (None, part)]
    return [spec for specs in chosen for spec in specs]


def _list_tuning(tiny: bool) -> Iterator[RunSpec]:
    for quantizer in TUNED_ON[:1] if tiny else TUNED_ON:
        for seed in TUNING_SEEDS[:1] if tiny else TUNING_SEEDS:
            for arm in list(TRIED)[:2] if tiny else TRIED:
                yield RunSpec("tune", quantizer.name, arm, seed)


def _list_calibrations(
    seeds: tuple[int, ...], few: bool, tiny: bool
) -> Iterator[RunSpec]:
    for quantizer in CALIBRATED[:2] if tiny else CALIBRATED:
        arms = list(CALIBRATIONS)
        if quantizer.target == "membrane":
            arms = [arm for arm in arms if not arm.startswith("OSBC")]
        if quantizer.name in ("mid-tread by mse 4 bit", "mid-tread by mse 2 bit"):
            arms += list(CLIPPED)
        if has_bound(quantizer):
            arms += list(SCALED)
        is_coarse = quantizer.target == "weights" and quantizer.spec.bits <= FEW_BITS
        if is_coarse and not few:
            arms += list(RECONSTRUCTED)
        for seed in seeds:
            for arm in arms:
                yield RunSpec("ptq", quantizer.name, arm, seed)
    for quantizer in () if tiny else UNFIT:
        for seed in seeds:
            for arm in (PTQ_BN, *SCALED):
                yield RunSpec("ptq", quantizer.name, arm, seed)


def _list_trainings(seeds: tuple[int, ...], few: bool, tiny: bool) -> Iterator[RunSpec]:
    """Yield the arms that decide first, each seed of all quantizers before the next."""
    quantizers = TRAINED[:1] if tiny else TRAINED[:3] if few else TRAINED
    rest = [SAME_TIME] if few else [arm for arm in LOSSES if arm not in FIRST]
    for arms in (FIRST, [*SCALED_FIRST], *([arm] for arm in MATCHED_AFTER), rest):
        for seed in seeds:
            for quantizer in quantizers:
                for arm in arms:
                    if arm not in SCALED_FIRST or has_bound(quantizer):
                        yield RunSpec("qat", quantizer.name, arm, seed)
            if arms is FIRST and not few:
                yield RunSpec("qat", NAIVE.name, PLAIN, seed)
