"""Options of the experiment, and its presets."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from experiments.study.config import StudyConfig
from snnjax import compilation_cache
from snnjax.runs import config_hash

PARTS = ("tune", "ptq", "qat", "memory", "inputs")


@dataclasses.dataclass(frozen=True)
class BeyondConfig:
    """Restore firing after quantization, and preserve it in training."""

    dataset: Literal["digits", "cifar10", "cifar100"] = "digits"
    """digits needs no download; the CIFARs come prepared by TFDS."""
    data_dir: Path | None = None
    """Prepared TFDS data; else $TFDS_DATA_DIR, then ~/tensorflow_datasets."""
    width: int = 16
    """Channels of the SEW-ResNet8's first stage."""
    epochs: int = 30
    """Epochs of the baseline."""
    qat_epochs: int = 4
    """Epochs of quantization-aware training, of every arm but "plain, same time"."""
    train_images: int | None = None
    """Train on so many images, the first ones (default: all)."""
    batch_size: int = 32
    """Images a training step."""
    weight_decay: float = 5e-4
    """On convolution and linear kernels."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of the baselines, and of the order of batches."""
    images: int = 512
    """Training images, without labels, that calibration sees."""
    only: Literal["tune", "ptq", "qat", "memory", "inputs"] | None = None
    """One part: weights of losses tuned, calibration, training, bits allocated to an
    equal memory, or the number of inputs that calibration needs."""
    baselines: Path = Path("docs/results/checkpoints")
    """Folder of published baselines; of digits, one that is not there is trained."""
    out: Path | None = None
    """Run folder; else runs/beyond-DATASET, with -tiny."""
    rows: Path | None = None
    """Write the page of these rows, and measure nothing: docs/results/beyond.jsonl."""
    page: Path | None = None
    """Write the page here too, as docs/results/beyond.md."""
    cache: Path | None = dataclasses.field(
        default_factory=compilation_cache.default_folder, compare=False
    )
    """Where the command keeps compiled programs for its next run, or None."""
    dry_run: bool = False
    """Print the rows and which are missing, and stop."""
    tiny: bool = False
    """One seed and epoch, width 4, 256 training and 128 test images, two quantizers."""

    def __post_init__(self):
        counts = ("width", "epochs", "qat_epochs", "batch_size", "images")
        for name in (*counts, "train_images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be given, each once; got {self.seeds}")

    def resolve(self) -> "BeyondConfig":
        """Return the config with ``tiny`` and the run folder filled in."""
        config = self
        if config.tiny:
            config = dataclasses.replace(
                config,
                seeds=config.seeds[:1],
                width=min(config.width, 4),
                epochs=1,
                qat_epochs=1,
                images=128,
            )
        if config.out is None:
            name = f"beyond-{config.dataset}" + "-tiny" * config.tiny
            config = dataclasses.replace(config, out=Path("runs") / name)
        return config

    def numbers(self) -> dict[str, Any]:
        """Return the options that decide the results, as JSON values.

        Seeds and parts choose rows and change none: they may be added later.
        """
        left_out = {"data_dir", "baselines", "out", "page", "cache", "dry_run", "rows"}
        left_out |= {"only", "seeds"}
        fields = dataclasses.asdict(self)
        return {k: v for k, v in fields.items() if k not in left_out}

    def hash(self) -> str:
        """Return twelve hexadecimal digits that differ where the results would."""
        return config_hash(self.numbers())

    def study(self) -> StudyConfig:
        """Return the study's config of the baseline."""
        return StudyConfig(
            dataset=self.dataset,
            data_dir=self.data_dir,
            width=self.width,
            epochs=self.epochs,
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
        ).resolve()


PRESETS = {
    "digits": BeyondConfig(),
    "small": BeyondConfig(
        dataset="cifar10",
        width=64,
        qat_epochs=1,
        train_images=12800,
        batch_size=128,
        seeds=(0, 1),
        weight_decay=1e-4,
    ),
}
