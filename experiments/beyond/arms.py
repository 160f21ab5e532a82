"""What is measured: quantizers, ways to calibrate, ways to train; the rows in order."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from flax import nnx

from experiments.study.recipe import MEMBRANES, WEIGHTS
from snnjax import calibrate, distill
from snnjax.data import Dataset
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


def _lq_net(bits: int) -> Quantizer:
    return Quantizer(f"LQ-Net narrow {bits} bit", QuantSpec("lq_net", bits=bits))


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
    _uniform(2, "mid_tread", 1.0),
    _lq_net(2),
    _uniform(2, "mid_rise", 10.0),
    _uniform(2, "mid_rise", 1.0),
    _membrane(2, True),
    _membrane(2, False),
    _uniform(1, "mid_rise", 1.0),
)

Calibrate = Callable[..., nnx.Module]


def _reestimate(model, baseline, images: Dataset, number: int):
    return calibrate.reestimate_batchnorm(model, images, images=number)


def _correct(model, baseline, images, number):
    return calibrate.correct_bias(model, baseline, images, images=number)


def _match(model, baseline, images, number):
    return calibrate.fire_match(model, baseline, images, images=number)


def _compensate(model, baseline, images, number):
    return calibrate.osbc(model, images, images=number)


def _choose(by):
    def choose(model, baseline, images, number):
        return calibrate.choose_clip(model, baseline, images, by=by, images=number)

    return choose


# Each way is a chain of functions; the study's PTQ+BN is the one to be measured by.
ROUNDED, PTQ_BN = "rounded to nearest", "+ BatchNorm"
MATCHED, BEST = "fire_match", "OSBC, fire_match"
CALIBRATIONS: dict[str, tuple[Calibrate, ...]] = {
    ROUNDED: (),
    PTQ_BN: (_reestimate,),
    "+ BatchNorm, bias": (_reestimate, _correct),
    MATCHED: (_match,),
    "OSBC": (_compensate,),
    "OSBC, bias": (_compensate, _correct),
    BEST: (_compensate, _match),
}
CLIPPED: dict[str, tuple[Calibrate, ...]] = {
    f"clip by {by}, BatchNorm": (_choose(by), _reestimate)
    for by in ("mse", "kl", "firing")
}
CLIPPED["clip by firing, OSBC, fire_match"] = (_choose("firing"), _compensate, _match)

PLAIN, SAME_TIME, KEPT = "plain", "plain, same time", "distill.firing"
# A teacher's forward pass is a third of a training step.
MORE_STEPS = 4 / 3
LOSSES: dict[str, Any] = {
    PLAIN: None,
    KEPT: distill.firing(),
    "membranes (as MD-SNN)": distill.membrane(),
    "logits": distill.logits(),
    SAME_TIME: None,
    "paired rates": distill.paired_rates(weight=3.0),
    "sorted W2": distill.sorted_w2(weight=3.0),
    "rates to 0.5 (as Q-SNN)": distill.rate_regulariser(weight=0.1),
}


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """One row: what is quantized, what is done about it, and the seed.

    Attributes:
        part: ``"ptq"`` or ``"qat"``.
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


def find_quantizer(spec: RunSpec) -> Quantizer:
    """Return the quantizer of a row."""
    return next(q for q in (*CALIBRATED, *TRAINED) if q.name == spec.quantizer)


def list_specs(seeds: tuple[int, ...], only: str | None, tiny: bool) -> list[RunSpec]:
    """Return the rows in the order of execution: minutes before hours."""
    return [
        RunSpec(part, quantizer, arm, seed)
        for part, quantizer, arms in _list_arms(tiny)
        if only in (None, part)
        for seed in seeds
        for arm in arms
    ]


def _list_arms(tiny: bool) -> Iterator[tuple[str, str, list[str]]]:
    for quantizer in CALIBRATED[:2] if tiny else CALIBRATED:
        arms = list(CALIBRATIONS)
        if quantizer.target == "membrane":
            arms = [arm for arm in arms if not arm.startswith("OSBC")]
        if quantizer.name in ("mid-tread by mse 4 bit", "mid-tread by mse 2 bit"):
            arms += list(CLIPPED)
        yield "ptq", quantizer.name, arms
    for quantizer in TRAINED[:1] if tiny else TRAINED:
        yield "qat", quantizer.name, list(LOSSES)
