"""The configuration of a study."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from snnjax import compilation_cache
from snnjax.runs import config_hash

CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100}
Mode = Literal["ptq", "ptq_bn", "qat"]
MODES = get_args(Mode)
Grid = Literal["mid_rise", "mid_tread"]
# Where no learning rate is given: of the baseline and of QAT, by optimizer.
_RATES = {"sgd": (0.1, 0.01), "adamw": (1e-3, 1e-4), "muon": (0.02, 0.002)}
# What --tiny sets, beside the number of images.
TINY: dict[str, Any] = {"epochs": 1, "qat_epochs": 1, "bits": (2, 8)}
# What does not change a number: where data and results lie, how often one saves, on how
# many devices (but for the last bits of sums).
_PLACES = (
    *("data_dir", "out", "cache", "dry_run", "save_seconds", "silent_above"),
    *("devices", "coordinator", "num_processes", "process_id", "extend"),
)
# Options that add runs and change none. Not seeds: a control is compared with all.
CHOICES = (
    *("only", "modes", "bits", "qat_bits", "repeat", "repeat_qat_bits"),
    *("ablation_bits", "grid"),
)
# How a baseline is trained, which says nothing about one that is loaded.
_TRAINING = (
    *("epochs", "schedule", "warmup_epochs", "learning_rate"),
    *("warm_start", "warm_start_timesteps", "average"),
)
_SEVERAL = ("seeds", "modes", "bits", "grid", "membrane_grid")
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    **dict.fromkeys(
        ("width", "timesteps", "epochs", "qat_epochs", "batch_size", "devices"),
        (lambda x: x >= 1, "be at least 1"),
    ),
    **dict.fromkeys(
        ("warm_start_timesteps", "train_images"), (lambda x: x >= 1, "be at least 1")
    ),
    **dict.fromkeys(("cutout", "held_out"), (lambda x: x >= 0, "be at least 0")),
    **dict.fromkeys(
        ("average", "warm_start"), (lambda x: 0 <= x < 1, "lie within [0, 1)")
    ),
    **dict.fromkeys(
        ("learning_rate", "qat_learning_rate"),
        (lambda x: 0 < x < math.inf, "be positive and finite"),
    ),
    "silent_above": (lambda x: 0 < x <= 1, "lie within 0..1 or be None"),
    "save_seconds": (lambda x: x >= 0, "be >= 0"),
    "weight_decay": (lambda x: 0 <= x < math.inf, "be >= 0 and finite"),
    "label_smoothing": (lambda x: 0 <= x < 1, "lie within [0, 1)"),
}
# These may be empty, and where they are None they follow another.
_SOME = ("qat_bits", "repeat_qat_bits", "ablation_bits")


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """Train a SEW-ResNet, quantize it in every way, and see how it fires."""

    dataset: Literal["digits", "cifar10", "cifar100"] = "digits"
    """digits needs no download; the CIFARs come prepared by TFDS."""
    data_dir: Path | None = None
    """Prepared TFDS data; else $TFDS_DATA_DIR, then ~/tensorflow_datasets."""
    model: Literal["sew_resnet8", "sew_resnet18"] = "sew_resnet8"
    """The network."""
    width: int = 16
    """Channels of the stem and of the first stage."""
    timesteps: int = 4
    """T: how often the network sees each image."""
    surrogate: Literal[
        "atan",
        "sigmoid",
        "fast_sigmoid",
        "superspike",
        "triangular",
        "piecewise_exp",
        "rectangular",
        "erf",
        "soft_sign",
        "leaky_k_relu",
        "straight_through",
    ] = "atan"
    """Derivative of a spike, with its usual slope."""
    reset: Literal["hard", "soft"] = "hard"
    """A spike sets the membrane to 0, or takes the threshold away."""
    decay_input: bool = True
    """Divide the current by tau, as the paper does; at T = 1 hardly a neuron fires."""
    epochs: int = 30
    """Epochs of the full-precision baseline."""
    baselines: str | None = None
    """Do not train baselines but load them: a path of .safetensors with {seed}."""
    qat_epochs: int = 3
    """Epochs of quantization-aware training, and of the control."""
    seeds: tuple[int, ...] = (0, 1)
    """The first runs the grid; others only a baseline and its control."""
    repeat: bool = False
    """The other seeds run the grid as well."""
    only: Literal["weights", "membrane"] | None = None
    """Quantize only these (default: both, one after the other)."""
    modes: tuple[Mode, ...] = MODES
    """ptq: BatchNorm frozen; ptq_bn: BatchNorm re-estimated; qat: trained on."""
    bits: tuple[int, ...] = (2, 4, 6, 8)
    """Bit widths, 2 to 16; LQ-Net has rows up to 8."""
    qat_bits: tuple[int, ...] | None = None
    """Bit widths of quantization-aware training, the dearest rows (default: bits)."""
    repeat_qat_bits: tuple[int, ...] | None = None
    """The same of the other seeds, with --repeat (default: qat_bits)."""
    ablation_bits: tuple[int, ...] = ()
    """Of the first seed, try the other site and scope as well at these bits."""
    grid: tuple[Grid, ...] = get_args(Grid)
    """Of the uniform weight quantizers: 2^b levels without 0, 2^b - 1 with it."""
    membrane_grid: tuple[Literal["mid_rise", "mid_tread", "lq_net"], ...] = (
        "mid_tread",
    )
    """Of the membrane quantizers; lq_net learns its levels."""
    site: Literal["post_reset", "pre_fire"] = "post_reset"
    """What of a membrane is quantized: what stays after a step, or what fires."""
    quantize_all: bool = False
    """Quantize the stem and the last layer too, not the residual blocks alone."""
    emd: Literal["exact", "ott"] = "exact"
    """Earth mover's distance from integer counts, or through ott-jax."""
    precision: Literal["highest", "default"] = "highest"
    """Of convolutions; default may round to TF32, which moves membranes."""
    batch_size: int = 32
    """Images a training step."""
    augment: bool = True
    """Crop and mirror the CIFARs' training images; digits stay as they are."""
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    """SGD with Nesterov momentum 0.9; Adam or Muon with decoupled weight decay."""
    schedule: Literal["one_cycle", "cosine"] = "one_cycle"
    """Of the baseline's learning rate."""
    warmup_epochs: int = 0
    """Of the cosine schedule: epochs up to the peak."""
    learning_rate: float | None = None
    """Peak of the baseline's schedule (default: 0.1; adamw 0.001, muon 0.02)."""
    qat_learning_rate: float | None = None
    """Start of QAT and of the control (default: 0.01; adamw 0.0001, muon 0.002)."""
    weight_decay: float = 5e-4
    """On convolution and linear kernels; none on BatchNorm, biases, quantizers."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes."""
    cutout: int = 0
    """Side of the black square in each augmented training image of the CIFARs."""
    warm_start: float = 0.0
    """Share of the baseline's steps, the first ones, with fewer time steps."""
    warm_start_timesteps: int = 1
    """T of those steps."""
    average: float = 0.0
    """Decay of an average of the baseline's weights, which replaces them; 0: none."""
    held_out: int = 0
    """Test on so many training images, which are not trained on: to choose options."""
    train_images: int | None = None
    """Train on so many images, the first ones (default: all)."""
    out: Path | None = None
    """Run folder; else runs/DATASET-MODEL-wWIDTH, with -tiny."""
    extend: bool = False
    """Add runs of more bits, modes or weight grids to the folder; its rows stay."""
    cache: Path | None = dataclasses.field(
        default_factory=compilation_cache.default_folder, compare=False
    )
    """Where the command keeps compiled programs for its next run, or None."""
    save_seconds: float = 30.0
    """Between two saves of a training run: what a kill can cost."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """A step whose loss or gradient is not finite ends the run, or is skipped."""
    silent_above: float | None = 0.99
    """Say so when a larger fraction of a layer's neurons is dead in a batch."""
    devices: int | None = None
    """How many to use; else all that JAX sees. On a CPU so many are made of it."""
    coordinator: str | None = None
    """HOST:PORT of the first process; a TPU slice, Slurm and Open MPI are seen."""
    num_processes: int | None = None
    """Processes of the run, each started with the same options."""
    process_id: int | None = None
    """Which one this is, from 0; the first writes the run folder."""
    dry_run: bool = False
    """Print the rows, the expected time and memory, and stop."""
    tiny: bool = False
    """256 training and 128 test images, and 1 epoch and bits 2 and 8 in place of the
    usual ones; what is set to something unusual stays."""

    def __post_init__(self):
        _check_choices(self)
        for name, (is_valid, range_) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not is_valid(value):
                raise ValueError(f"{name} must {range_}, got {value}")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"warmup_epochs must lie within 0 and the {self.epochs} epochs, got "
                f"{self.warmup_epochs}"
            )
        if self.warmup_epochs and self.schedule == "one_cycle":
            raise ValueError(
                "warmup_epochs is of the cosine schedule (one_cycle warms up by "
                f"itself), got {self.warmup_epochs} with one_cycle; make it 0"
            )
        if self.repeat_qat_bits is not None and not self.repeat:
            raise ValueError(
                "repeat_qat_bits needs repeat: other seeds run no grid; leave it out "
                "(over a preset: --repeat-qat-bits None)"
            )
        for name in _SOME:
            values = getattr(self, name) or ()
            if not set(values) <= set(self.bits) or len(set(values)) != len(values):
                raise ValueError(
                    f"{name} must be some of bits {self.bits}, each once, got {values}"
                )
        if self.baselines is not None and "{seed}" not in self.baselines:
            raise ValueError(
                "baselines must be a path with {seed} in it, as runs/a/checkpoints/"
                f"fp32-s{{seed}}.safetensors, got {self.baselines!r}"
            )
        for b in self.bits:
            if not 2 <= b <= 16:
                raise ValueError(
                    f"bits must lie in 2..16 (the study has a mid-tread grid, which "
                    f"needs 2), got {b}"
                )
        for name in _SEVERAL:
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} must be given, each value once; got {values}")

    @classmethod
    def from_numbers(cls, numbers: dict[str, Any]) -> "StudyConfig":
        """Return the config of ``numbers()``, as a run folder holds it."""
        names = {field.name for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in numbers.items()
            if name in names
        }
        return cls(**values)

    def resolve(self) -> "StudyConfig":
        """Return the config with ``tiny``, learning rates and run folder filled in.

        ``tiny`` leaves alone what was set to something else than its default.
        """
        rates = zip(
            ("learning_rate", "qat_learning_rate"), _RATES[self.optimizer], strict=True
        )
        unset = {k: rate for k, rate in rates if getattr(self, k) is None}
        config = dataclasses.replace(self, **unset)
        if config.tiny:
            usual = {f.name: f.default for f in dataclasses.fields(self)}
            unset = {k: v for k, v in TINY.items() if getattr(self, k) == usual[k]}
            for name in _SOME:  # of bits that may be no more
                values = getattr(self, name)
                if "bits" in unset and values:
                    unset[name] = tuple(b for b in values if b in TINY["bits"])
                    if not unset[name]:
                        raise ValueError(
                            f"tiny has the bits {TINY['bits']}, and {name} {values} "
                            "none of them; give bits too"
                        )
            if "epochs" in unset:
                unset["warmup_epochs"] = 0
            config = dataclasses.replace(config, **unset)
        if config.out is None:
            name = f"{config.dataset}-{config.model}-w{config.width}"
            out = Path("runs") / (name + "-tiny" * config.tiny)
            config = dataclasses.replace(config, out=out)
        return config

    def numbers(self) -> dict[str, Any]:
        """Return the options that decide the results, as JSON values."""
        fields = dataclasses.asdict(self)
        for name in ("baselines",) if self.baselines is None else _TRAINING:
            del fields[name]
        return json.loads(
            json.dumps({k: v for k, v in fields.items() if k not in _PLACES})
        )

    def numbers_of_a_run(self) -> dict[str, Any]:
        """Return those of `numbers` that every run depends on."""
        return {k: v for k, v in self.numbers().items() if k not in CHOICES}

    def hash(self) -> str:
        """Return twelve hexadecimal digits that differ where the results would."""
        return config_hash(self.resolve().numbers())


def _check_choices(config: StudyConfig) -> None:
    """Raise ValueError for a value that is none of its annotation's literals."""
    for name, annotation in get_type_hints(StudyConfig).items():
        choices, value = _literals(annotation), getattr(config, name)
        if set(choices) <= {None}:
            continue
        for one in value if isinstance(value, tuple) else (value,):
            if one not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {one!r}")


def _literals(annotation: Any) -> tuple:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if annotation is NoneType:
        return (None,)
    return tuple(x for part in get_args(annotation) for x in _literals(part))
