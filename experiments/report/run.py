"""A run as its report reads it, and what it says of itself."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from experiments.common import Row, StudyConfig
from experiments.report.judge import missing
from experiments.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run folder holds."""

    name: str
    folder: RunFolder
    info: dict[str, Any]
    rows: list[Row]


def load(path: Path) -> Run:
    """Read a run folder.

    Raises:
        ValueError: ``path`` is no run folder, or its files are damaged.
    """
    folder = RunFolder(path)
    return Run(folder.path.resolve().name, folder, folder.info(), folder.rows())


def command(config: dict[str, Any]) -> str:
    """The command line of a run with ``config``, defaults left out."""
    plain = StudyConfig(tiny=bool(config.get("tiny"))).resolve().numbers()
    words = ["python", "-m", "experiments.study"]
    for name, value in config.items():
        if name == "tiny":
            words += ["--tiny"] * bool(value)
        elif value is not None and value != plain.get(name):
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def what(run: Run) -> str:
    """What was run, in a line."""
    config = run.info["config"]
    seeds = ", ".join(map(str, config.get("seeds", ())))
    neuron = ""
    if config.get("reset") == "soft":
        neuron += ", soft reset"
    if config.get("surrogate", "atan") != "atan":
        neuron += f", surrogate {config['surrogate']}"
    return (
        f"{run.name}: {config.get('dataset')}, {config.get('model')}, width "
        f"{config.get('width')}, T = {config.get('timesteps')}{neuron}, seeds {seeds}"
    )


def unfinished(run: Run) -> str:
    """The rows still missing, in a sentence; empty where none is."""
    left = missing(run.rows, StudyConfig.from_numbers(run.info["config"]))
    return f"Unfinished, rows still missing: {'; '.join(left)}." if left else ""
