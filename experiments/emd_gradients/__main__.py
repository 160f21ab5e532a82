"""Measure every form of differentiable EMD, as an estimator and as a loss."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from rich.console import Console

from experiments.command_line import run_as_command
from experiments.console import Bar, show_bar
from experiments.emd_gradients import estimators, report
from experiments.emd_gradients.drift_correction import (
    DriftCorrection,
    Epochs,
    list_networks,
)
from experiments.emd_gradients.losses import LOSSES
from experiments.provenance import versions
from snnjax import compilation_cache
from snnjax.runs import Row, Store, jsonl

_ABOUT = (
    "For each differentiable form of EMD: bias, direction and noise of its gradient, "
    "time and memory, and how far fine-tuning with it restores the baseline's firing "
    "in a drifted network. The same command resumes a stopped run."
)


@dataclasses.dataclass(frozen=True)
class GradientsConfig:
    """Measure every form of differentiable EMD as a gradient."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the networks that are fine-tuned."""
    width: int = 16
    """Channels of the SEW-ResNet8's first stage."""
    out: Path = Path("runs/emd_gradients")
    """Folder of results.jsonl, tables and figures."""
    cache: Path | None = dataclasses.field(
        default_factory=compilation_cache.default_folder, compare=False
    )
    """Where the command keeps compiled programs for its next run, or None."""
    tiny: bool = False
    """One seed and epoch, width 4, and costs at 1,000 neurons: to try the path."""

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be given, each once; got {self.seeds}")

    def resolve(self) -> "GradientsConfig":
        """Return the config with ``tiny`` filled in."""
        if not self.tiny:
            return self
        return dataclasses.replace(self, seeds=self.seeds[:1], width=min(self.width, 4))

    def hash(self) -> str:
        """Return a hash of the options that decide the numbers."""
        fields = dataclasses.asdict(self)
        del fields["out"], fields["cache"]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:12]


Task = tuple[Row, int, Callable[[Callable[[], None]], Row]]


def list_tasks(config: GradientsConfig) -> Iterator[Task]:
    """Yield each task: the keys of its row, its steps, and how to measure the rest."""
    sizes = estimators.SIZES[:1] if config.tiny else estimators.SIZES
    for loss in LOSSES:
        key: Row = {"part": "estimator", "loss": loss.name}
        yield key, 1, lambda _, loss=loss: estimators.measure_gradients(loss)
        for n in sizes:
            if n <= loss.most:
                key = {"part": "cost", "loss": loss.name, "neurons": n}
                yield key, 1, lambda _, loss=loss, n=n: estimators.measure_cost(loss, n)
    epochs = Epochs(1, 1, 1) if config.tiny else Epochs()
    folder = config.out / "checkpoints" / config.hash()
    for seed in config.seeds:
        correction = DriftCorrection(seed, config.width, epochs, folder)
        for loss, strength in list_networks():
            key = {"part": "pull", "loss": loss, "strength": strength, "seed": seed}
            length = {"baseline": epochs.baseline, "drifted": epochs.drift}
            steps = correction.count_steps(length.get(loss, epochs.correction))
            yield key, steps, functools.partial(correction.measure, loss, strength)


def run(config: GradientsConfig, console: Console | None = None) -> Path:
    """Measure what is missing, and write the report; returns its folder.

    Raises:
        ValueError: the folder holds a run of another config, or another process is
            writing to it.
    """
    console = console or Console()
    config = config.resolve()
    config.out.mkdir(parents=True, exist_ok=True)
    with Store(config.out) as folder:
        folder.lock()
        _measure(config, folder, console)
    console.print(f"Report: {config.out}/emd_gradients.md", soft_wrap=True)
    return config.out


def _measure(config: GradientsConfig, folder: Store, console: Console) -> None:
    results = folder.results
    jsonl.drop_partial_line(results)
    rows = jsonl.read(results)
    if any(row["config_hash"] != config.hash() for row in rows):
        raise ValueError(
            f"{config.out} holds a run of another config; give another folder with "
            "--out"
        )
    tasks = list(list_tasks(config))
    with show_bar(console, sum(steps for _, steps, _ in tasks)) as shown:
        for key, steps, make in tasks:
            if any(key.items() <= row.items() for row in rows):
                shown.advance(steps)
                continue
            row = key | _run_task(shown, key, steps, make)
            row |= {"config_hash": config.hash(), "versions": versions()}
            jsonl.append(results, row)
            rows.append(row)
    for path, data in report.make_files(rows).items():
        folder.write_bytes(path, data)


def _run_task(shown: Bar, key: Row, steps: int, make: Callable) -> Row:
    title = ", ".join(str(value) for value in key.values() if value is not None)
    shown.set_description(title)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if done <= steps:
            shown.advance(1)

    with jax.default_matmul_precision("highest"):
        row = make(step)
    shown.advance(max(steps - done, 0))
    if key["part"] == "pull" and "failed" not in row:
        shown.print(
            f"{row['accuracy']:.4f}  EMD {row['emd_mean']:.5f}  paired "
            f"{row['paired_shift_mean']:.5f}  {title}"
        )
    return row


def main() -> None:
    program = "python -m experiments.emd_gradients"
    run_as_command(run, GradientsConfig, program=program, description=_ABOUT)


if __name__ == "__main__":
    main()
