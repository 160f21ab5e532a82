"""A run as its report reads it: rows, config, and the rows judged once."""

import dataclasses
import functools
import shlex
from pathlib import Path
from typing import Any

from experiments.report.judge import Verdict, describe_missing, judge
from experiments.study.config import StudyConfig
from experiments.study.presets import presets
from experiments.study.store import StudyStore
from snnjax.runs import Row


@dataclasses.dataclass(frozen=True)
class Run:
    """The contents of a run folder."""

    name: str
    folder: StudyStore
    info: dict[str, Any]
    rows: list[Row]

    @property
    def config(self) -> StudyConfig:
        """The study's config."""
        return StudyConfig.from_numbers(self.info["config"])

    @functools.cached_property
    def judged(self) -> list[Verdict]:
        """All rows, judged, in the table's order."""
        return judge(self.rows)

    @functools.cached_property
    def judged_main(self) -> list[Verdict]:
        """The judged rows of the config's own site and scope: without the ablation."""
        config = self.config
        return [v for v in self.judged if is_main(v.row, config)]

    @property
    def main(self) -> list[Row]:
        """The rows of `judged_main`, in the order of the file."""
        config = self.config
        return [row for row in self.rows if is_main(row, config)]

    @property
    def seconds(self) -> float:
        """Run time of all starts."""
        return sum(start["seconds"] for start in self.info.get("starts", []))


def is_main(row: Row, config: StudyConfig) -> bool:
    """Return True if a row has the config's site and scope, or quantizes nothing."""
    scopes, sites = (None, config.quantize_all), (None, config.site)
    return row["quantize_all"] in scopes and row["site"] in sites


def load(path: Path) -> Run:
    """Read a run folder.

    Raises:
        ValueError: ``path`` is no run folder, or its files are damaged.
    """
    folder = StudyStore(path)
    return Run(folder.path.resolve().name, folder, folder.info(), folder.rows())


def study_command(config: dict[str, Any]) -> str:
    """Return the shortest command line that runs ``config``."""
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
    """Return the options that turn ``usual`` into ``config``."""
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


def describe_run(run: Run) -> str:
    """Return data set, network and seeds in a line."""
    config = run.config
    neuron = ", soft reset" * (config.reset == "soft")
    if config.surrogate != "atan":
        neuron += f", surrogate {config.surrogate}"
    return (
        f"{run.name}: {config.dataset}, {config.model}, width {config.width}, "
        f"T = {config.timesteps}{neuron}, seeds {', '.join(map(str, config.seeds))}"
    )


def describe_unfinished(run: Run) -> str:
    """Return a sentence on the rows still missing; empty if there are none."""
    left = describe_missing(run.rows, run.config)
    return f"Unfinished, rows still missing: {'; '.join(left)}." if left else ""
