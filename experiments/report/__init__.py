"""The report of a study, from its run folder alone: table, findings, figures, page.

    python -m experiments.report RUN            makes a run's report again
    python -m experiments.report RUN RUN ...    compares runs on one page

Here is what a study calls. Below it imports run one way: ``names``, then ``judge``,
then ``findings``, ``table``, ``run`` and ``figures``, then ``pictures``, then ``page``.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from experiments.report import page, pictures, table
from experiments.report.findings import findings  # from here on, the function
from experiments.report.names import DEFINITIONS
from experiments.report.pictures import Picture
from experiments.report.run import Run, load, unfinished, what
from experiments.run_folder import RunFolder

__all__ = ["compare", "findings", "load", "write"]


def write(run_path: Path, out: Path | None = None) -> Path:
    """Write table.md, figures/*.png and report.html of one run; returns the page.

    Everything is made before anything is written, and each file is replaced whole.

    Args:
        run_path: the run folder.
        out: where to write (default: into the run folder).
    """
    run = load(run_path)
    folder = Path(run_path) if out is None else _no_run(out)
    return _publish(folder, [run], pictures.of_run(run))


def compare(run_paths: Sequence[Path], out: Path) -> Path:
    """Write one page that compares runs into ``out``; returns the page.

    Raises:
        ValueError: a path is no run folder or given twice, or ``out`` is a run folder.
    """
    out = _no_run(out)
    runs = [load(path) for path in run_paths]
    if len({run.folder.path.resolve() for run in runs}) < len(runs):
        raise ValueError("a run folder is given twice; give each one once")
    if len({run.name for run in runs}) < len(runs):
        runs = [dataclasses.replace(r, name=str(r.folder.path)) for r in runs]
    for run in runs:
        for row in run.rows:
            row["run"] = run.name
    return _publish(out, runs, pictures.of_runs(runs))


def _no_run(out: Path) -> Path:
    """``out``, where it is not a run folder, whose own report would be lost."""
    if (Path(out) / "config.json").exists():
        raise ValueError(f"{out} is a run folder; give another one with --out")
    return Path(out)


def _publish(out: Path, runs: Sequence[Run], drawn: Sequence[Picture]) -> Path:
    text, html = _markdown(runs), page.html(runs, drawn)
    folder = RunFolder(out)
    for picture in drawn:
        if picture.png:
            folder.write_bytes(f"figures/{picture.name}.png", picture.png)
    folder.write_text("table.md", text)
    return folder.write_text("report.html", html)


def _markdown(runs: Sequence[Run]) -> str:
    lines = [f"# {page.TITLE}", ""]
    for run in runs:
        lines += [f"**{what(run)}**", "", *(f"- {s}" for s in findings(run.rows)), ""]
        if left := unfinished(run):
            lines += [left, ""]
    lines += [table.markdown([row for run in runs for row in run.rows])]
    lines += [f"- {name}: {meaning}" for name, meaning in DEFINITIONS.items()]
    return "\n".join(lines) + "\n"
