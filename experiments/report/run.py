"""A run as its report reads it: rows, config, the rows judged once, and its command."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.report.judged import judge
from experiments.study.config import StudyConfig
from experiments.study.grid import name_row, planned
from experiments.study.names import MODE_NAMES, method_name, setting_name
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


def plan(rows: Sequence[Row], config: StudyConfig) -> pd.DataFrame:
    """Return the planned rows of a study, with names and whether they are ``done``."""
    done = {name_row(row) for row in rows}
    specs = [spec.to_row() for spec in planned(config)]
    frame = pd.DataFrame(specs, dtype=object)
    return frame.assign(
        way=[method_name(row) for row in specs],
        setting=[setting_name(row) for row in specs],
        done=[name_row(row) in done for row in specs],
    )


def describe_missing(rows: Sequence[Row], config: StudyConfig) -> list[str]:
    """Describe what a run of ``config`` has not finished yet."""
    groups = plan(rows, config).groupby(["target", "mode"], sort=False)["done"]
    found = groups.agg(["sum", "size"])
    return [
        f"{target if target != 'none' else ''} {MODE_NAMES[mode]} "
        f"({size - done} of {size})".strip()
        for (target, mode), done, size in found.itertuples()
        if done < size
    ]


def describe_unfinished(run: Run) -> str:
    """Return a sentence on the rows still missing; empty if there are none."""
    left = describe_missing(run.rows, run.config)
    return f"Unfinished, rows still missing: {'; '.join(left)}." if left else ""
