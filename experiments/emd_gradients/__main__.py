"""Measure every form of differentiable EMD, as an estimator and as a loss."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from experiments import compilation_cache
from experiments.command_line import run_as_command
from experiments.console import Bar, show_bar
from experiments.emd_gradients import estimators, report
from experiments.emd_gradients.pull import Epochs, Puller, names
from experiments.provenance import versions
from snnjax.runs import Row, Store, jsonl

_ABOUT = (
    "For each differentiable form of EMD: bias, direction and noise of its gradient, "
    "time and memory, and how far it pulls a drifted network back to the baseline's "
    "firing. The same command takes a stopped run up where it was."
)


@dataclasses.dataclass(frozen=True)
class GradientsConfig:
    """What each form of EMD is worth as a gradient."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the networks that are pulled back."""
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
        """The config with ``tiny`` filled in."""
        if not self.tiny:
            return self
        return dataclasses.replace(self, seeds=self.seeds[:1], width=min(self.width, 4))

    def hash(self) -> str:
        """Of what decides the numbers."""
        fields = dataclasses.asdict(self)
        del fields["out"], fields["cache"]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:12]


Task = tuple[Row, int, Callable[[Callable[[], None]], Row]]


def tasks(config: GradientsConfig) -> Iterator[Task]:
    """What is to be done: a row's name, its steps, and how to make it."""
    sizes = estimators.SIZES[:1] if config.tiny else estimators.SIZES
    for loss, n in estimators.parts(sizes):
        if n is None:
            name: Row = {"part": "estimator", "loss": loss.name}
            yield name, 1, lambda _, loss=loss: estimators.estimates(loss)
        else:
            name = {"part": "cost", "loss": loss.name, "neurons": n}
            yield name, 1, lambda _, loss=loss, n=n: estimators.costs(loss, n)
    epochs = Epochs(1, 1, 1) if config.tiny else Epochs()
    for seed in config.seeds:
        kept = config.out / "checkpoints" / config.hash()
        puller = Puller(seed, config.width, epochs, kept)
        for loss, strength in names():
            name = {"part": "pull", "loss": loss, "strength": strength, "seed": seed}
            length = {"baseline": epochs.baseline, "drifted": epochs.drift}
            steps = puller.steps(length.get(loss, epochs.pull))

            def make(on_step, puller=puller, loss=loss, strength=strength) -> Row:
                return puller.row(loss, strength, on_step)

            yield name, steps, make


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
    everything = list(tasks(config))
    with show_bar(console, sum(steps for _, steps, _ in everything)) as shown:
        for name, steps, make in everything:
            if any(name.items() <= row.items() for row in rows):
                shown.advance(steps)
                continue
            row = _made(shown, name, steps, make)
            row |= {"config_hash": config.hash(), "versions": versions()}
            jsonl.append(results, row)
            rows.append(row)
    for path, data in report.files(rows).items():
        folder.write_bytes(path, data)


def _made(shown: Bar, name: dict[str, Any], steps: int, make: Callable) -> Row:
    told = ", ".join(str(value) for value in name.values() if value is not None)
    shown.set_description(told)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if done <= steps:
            shown.advance(1)

    with jax.default_matmul_precision("highest"):
        row = make(step)
    shown.advance(max(steps - done, 0))
    if name["part"] == "pull" and "failed" not in row:
        shown.print(
            f"{row['accuracy']:.4f}  EMD {row['emd_mean']:.5f}  paired "
            f"{row['paired_shift_mean']:.5f}  {told}"
        )
    return row


def main() -> None:
    program = "python -m experiments.emd_gradients"
    run_as_command(run, GradientsConfig, program=program, description=_ABOUT)


if __name__ == "__main__":
    main()
