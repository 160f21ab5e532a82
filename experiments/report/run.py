"""A run as its report reads it, and what it says of itself."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from experiments.report.judge import missing
from experiments.study.config import StudyConfig
from experiments.study.presets import presets
from experiments.study.store import StudyStore
from snnjax.runs import Row


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run folder holds."""

    name: str
    folder: StudyStore
    info: dict[str, Any]
    rows: list[Row]

    @property
    def config(self) -> StudyConfig:
        """What was to be run."""
        return StudyConfig.from_numbers(self.info["config"])

    @property
    def main(self) -> list[Row]:
        """The rows of the config's own site and scope: all but the ablation's."""
        config = self.config
        return [row for row in self.rows if is_main(row, config)]

    @property
    def seconds(self) -> float:
        """Run time of all starts."""
        return sum(start["seconds"] for start in self.info.get("starts", []))


def is_main(row: Row, config: StudyConfig) -> bool:
    """Whether a row is of the config's own site and scope, or quantizes nothing."""
    # Rows made before there was a choice do not say where all is quantized.
    scopes, sites = (None, config.quantize_all), (None, config.site)
    return row.get("quantize_all") in scopes and row["site"] in sites


def load(path: Path) -> Run:
    """Read a run folder.

    Raises:
        ValueError: ``path`` is no run folder, or its files are damaged.
    """
    folder = StudyStore(path)
    return Run(folder.path.resolve().name, folder, folder.info(), folder.rows())


def command(config: dict[str, Any]) -> str:
    """The command line of a run with ``config``: what no preset or default says."""
    tiny = bool(config.get("tiny"))
    options = {
        name: _options(config, dataclasses.replace(usual, tiny=tiny).resolve())
        for name, usual in ({"": StudyConfig()} | presets(tiny=tiny)).items()
    }
    name = min(options, key=lambda name: len(options[name]))
    words = ["python", "-m", "experiments.study"]
    words += ["--preset", name] if name else []
    words += [word for option in options[name] for word in option]
    return shlex.join(words + ["--tiny"] * tiny)


def _options(config: dict[str, Any], usual: StudyConfig) -> list[list[str]]:
    """The options that turn ``usual`` into ``config``."""
    plain, options = usual.numbers(), []
    for name, value in config.items():
        if name in plain and value != plain[name]:
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                options.append([f"--{flag}" if value else f"--no-{flag}"])
            else:
                values = value if isinstance(value, list) else [value]
                options.append([f"--{flag}", *map(str, values)])
    return options


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
    left = missing(run.rows, run.config)
    return f"Unfinished, rows still missing: {'; '.join(left)}." if left else ""
