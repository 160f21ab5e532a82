"""A run as its report reads it: rows, config, the rows judged once, and its command."""

import dataclasses
import functools
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.report.judged import judge
from experiments.report.names import MODE_NAMES
from experiments.study.config import StudyConfig
from experiments.study.grid import name_row, planned
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

    @functools.cached_property
    def config(self) -> StudyConfig:
        """The study's config."""
        return StudyConfig.from_numbers(self.info["config"])

    @functools.cached_property
    def judged(self) -> pd.DataFrame:
        """All rows, judged, in the table's order."""
        return judge(self.rows)

    @functools.cached_property
    def judged_main(self) -> pd.DataFrame:
        """The judged rows of the config's own site and scope: without the ablation."""
        return select_main(self.judged, self.config)

    @property
    def seconds(self) -> float:
        """Run time of all starts."""
        return sum(start["seconds"] for start in self.info.get("starts", []))


def select_main(rows: pd.DataFrame, config: StudyConfig) -> pd.DataFrame:
    """Return the rows that have the config's site and scope, or quantize nothing."""
    scope = rows["quantize_all"].isin([None, config.quantize_all])
    return rows[scope & rows["site"].isin([None, config.site])]


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


def describe_missing(rows: list[Row], config: StudyConfig) -> list[str]:
    """Describe what a run of ``config`` has not finished yet."""
    done = {name_row(row) for row in rows}
    parts = [spec.to_row() for spec in planned(config)]
    wanted = Counter((row["target"], row["mode"]) for row in parts)
    left = Counter(
        (row["target"], row["mode"]) for row in parts if name_row(row) not in done
    )
    return [
        f"{target if target != 'none' else ''} {MODE_NAMES[mode]} "
        f"({left[target, mode]} of {number})".strip()
        for (target, mode), number in wanted.items()
        if left[target, mode]
    ]


def describe_unfinished(run: Run) -> str:
    """Return a sentence on the rows still missing; empty if there are none."""
    left = describe_missing(run.rows, run.config)
    return f"Unfinished, rows still missing: {'; '.join(left)}." if left else ""
