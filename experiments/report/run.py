"""A run as its report reads it: rows, config, the rows judged once, and its origin."""

import dataclasses
import functools
import shlex
from pathlib import Path
from typing import Any

from experiments.console import format_duration
from experiments.report.formats import PAGE, plain
from experiments.report.table import Verdict, describe_missing, judge, markdown_table
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


def describe_origin(run: Run) -> str:
    """Return all that it takes to repeat the run."""
    name = run.config.dataset
    # Each row's own: a run may resume after an upgrade.
    seen: dict[str, dict[str, None]] = {}
    own = [row["versions"] for row in run.rows if "versions" in row]
    for versions in own or [run.info.get("versions", {})]:
        for package, version in versions.items():
            seen.setdefault(package, {})[version] = None
    versions = ", ".join(f"{name} {' and '.join(v)}" for name, v in seen.items())
    config = [
        {"option": key, "value": plain(value)}
        for key, value in run.info["config"].items()
    ]
    command = study_command(run.info["config"])
    about = PAGE["origin"].format(name=name, time=_tabulate_starts(run))
    return (
        f"```\n{command}\npython -m experiments.report RUN --publish docs/results\n```"
        f"\n\n{about}\nVersions: {versions}. Config {run.info['config_hash']}:\n\n"
        f"{markdown_table(config, ('option', 'value'))}"
    )


def _tabulate_starts(run: Run) -> str:
    """Tabulate the starts of the study."""
    starts = run.info.get("starts", [])
    if not starts:
        return "The study has not stopped yet, so its run time is not known.\n"
    lines = [
        {
            "start": str(n),
            "rows": str(start["rows"]),
            "time": format_duration(start["seconds"]),
            "CPU time": format_duration(start["cpu_seconds"])
            if "cpu_seconds" in start
            else "-",
            "devices": str(start.get("devices", "-")),
            "commit": start.get("commit") or "-",
        }
        for n, start in enumerate(starts, 1)
    ]
    total = format_duration(run.seconds)
    times = "once" if len(starts) == 1 else f"{len(starts)} times"
    about = PAGE["time"].format(times=times, total=total, repeated=_count_repeated(run))
    return f"{about}\n\n{markdown_table(lines, ('time', 'CPU time', 'commit'))}"


def _count_repeated(run: Run) -> str:
    """Count the rows that were computed more than once; the last one counts."""
    total = sum(start["rows"] for start in run.info["starts"])
    more = total - len(run.rows)
    return f" Of its {total} rows {more} were computed twice." if more > 0 else ""
