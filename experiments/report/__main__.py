"""Rewrite a run's report, publish it, or compare several runs on one page."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from experiments import command_line, report


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Rewrite a run's report, publish it, or compare several runs on one page."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint=""),
    ]
    """Run folders."""
    out: Path | None = None
    """Output folder (default: the run; runs/compare for several)."""
    publish: Path | None = None
    """Write the run's results page here, with its rows and config: docs/results."""
    name: str | None = None
    """Name of the published page, where a data set has several: DATASET_MORE (default:
    the data set)."""


def make(config: ReportConfig) -> Path:
    """Write the report or results of one run, or compare several; returns the page."""
    if not config.runs:
        raise ValueError("give at least one run folder")
    if config.publish is not None:
        if len(config.runs) > 1 or config.out is not None:
            raise ValueError("publish one run, and without --out")
        return report.publish(config.runs[0], config.publish, config.name)
    if config.name is not None:
        raise ValueError("only a page that is published has a name; give --publish too")
    if len(config.runs) == 1:
        return report.write(config.runs[0], config.out)
    return report.compare(config.runs, config.out or Path("runs/compare"))


def main() -> None:
    config = command_line.parse(ReportConfig, program="python -m experiments.report")
    try:
        page = make(config)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    except OSError as error:
        raise SystemExit(f"error: {command_line.describe_os_error(error)}") from None
    for path in config.runs:
        run = report.load(path)
        print(f"{run.name}:", *report.findings(run.judged_main), sep="\n")
    print(f"report: {page}")


if __name__ == "__main__":
    main()
