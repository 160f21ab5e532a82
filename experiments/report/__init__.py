"""The report of a study, from its run folder alone: table, findings, figures, page.

    python -m experiments.report RUN                  rewrites a run's report
    python -m experiments.report RUN RUN ...          compares runs on one page
    python -m experiments.report RUN --publish DIR    its results, to be committed

A study calls the functions here. Rows become one frame, judged once a run
(``Run.judged``); tables, claims and figures are groups and pairs of its rows. The words
are in ``templates``; the page and its charts are those of `snnjax.report`.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.report import figures, page, results, table
from experiments.report.figures import Picture
from experiments.report.findings import findings  # the function, not the module
from experiments.report.judged import judge
from experiments.report.run import Run, describe_run, describe_unfinished, load
from experiments.study.names import checkpoint_name
from experiments.study.store import StudyStore
from snnjax.report import charts

__all__ = ["compare", "findings", "load", "publish", "write"]

LARGEST = 3_000_000  # bytes of a checkpoint that is published: it goes into git
# Figures of the results page. The others need spike counts, which are not published.
_PUBLISHED = ("over_bits", "layers")


def write(run_path: Path, out: Path | None = None) -> Path:
    """Write the report of one run; returns its page.

    That is report.html, table.md, results.md, details.md and figures/*.png.

    Everything is drawn before anything is written; each file is replaced atomically.

    Args:
        run_path: the run folder.
        out: where to write (default: into the run folder).
    """
    run = load(run_path)
    folder = Path(run_path) if out is None else _require_no_run(out)
    text, details = results.summarize(run), results.detail(run)
    page = _write(folder, [run], figures.draw_run(run))
    StudyStore(folder).write_text("results.md", text)
    StudyStore(folder).write_text("details.md", details)
    return page


def publish(run_path: Path, out: Path, name: str | None = None) -> Path:
    """Write a run's results, finished or not, to be committed; returns the page.

    That is ``NAME.md`` and ``NAME_details.md``, with figures, rows and config in
    ``NAME/``, and the baselines in ``checkpoints/``, if they are not too large; NAME is
    the data set if none is given. The copies of rows and config may themselves be
    published again.

    Raises:
        ValueError: ``run_path`` is no run folder, ``out`` is one, ``name`` is neither
            the data set nor begins with it and ``_``, or ``out`` holds another config's
            results of that name, or other baselines of that size. Nothing is written
            then.
    """
    run, folder = load(run_path), StudyStore(_require_no_run(out))
    dataset = run.config.dataset
    name = dataset if name is None else name
    if not re.fullmatch(rf"{dataset}(_(?!details$)[a-z0-9]+)?", name):
        raise ValueError(
            f"name must be {dataset}, or {dataset}_MORE with small letters and digits "
            f"(not details) for MORE, got {name!r}"
        )
    own, there = run.info["config_hash"], folder.path / name
    new = not (there / "config.json").exists()
    if not new:
        other = StudyStore(there).info()["config_hash"]
        if other not in (own, *run.info.get("earlier_hashes", [])):
            raise ValueError(
                f"{there} holds the results of config {other}, and this run is of "
                f"{own}; publish by another name or remove these first"
            )
    text = results.summarize(run, figures=name, details=f"{name}_details.md")
    files = {
        f"{name}_details.md": results.detail(run, name).encode(),
        f"{name}/results.jsonl": "".join(
            f"{json.dumps(row)}\n" for row in run.rows
        ).encode(),
        f"{name}/config.json": f"{json.dumps(run.info, indent=2)}\n".encode(),
    }
    for picture in figures.draw_run(run, only=_PUBLISHED):
        files[f"{name}/{picture.name}.png"] = charts.to_png(picture.chart)
    baselines = _read_baselines(run)
    for file, data in baselines.items() if new else ():
        path = folder.path / file
        if path.exists() and path.read_bytes() != data:
            raise ValueError(
                f"{path} is a baseline of another study; publish into another folder"
            )
    for file, data in (files | baselines).items():
        folder.write_bytes(file, data)
    return folder.write_text(f"{name}.md", text)


def _read_baselines(run: Run) -> dict[str, bytes]:
    """Return the baselines that are small enough, by the names of their copies."""
    config, found = run.config, {}
    for path in (run.folder.path / "checkpoints").glob("fp32-*.safetensors"):
        if path.stat().st_size <= LARGEST:
            seed = int(path.stem.removeprefix("fp32-s"))
            name = checkpoint_name(config.dataset, config.model, config.width, seed)
            found[f"checkpoints/{name}.safetensors"] = path.read_bytes()
    return found


def compare(run_paths: Sequence[Path], out: Path) -> Path:
    """Write one page that compares runs into ``out``; returns the page.

    Raises:
        ValueError: a path is no run folder or given twice, or ``out`` is a run folder.
    """
    out = _require_no_run(out)
    runs = [load(path) for path in run_paths]
    if len({run.folder.path.resolve() for run in runs}) < len(runs):
        raise ValueError("a run folder is given twice; give each one once")
    if len({run.name for run in runs}) < len(runs):
        runs = [dataclasses.replace(r, name=str(r.folder.path)) for r in runs]
    return _write(out, runs, figures.draw_runs(runs))


def _require_no_run(out: Path) -> Path:
    """Return ``out`` unless it is a run folder, whose own report would be lost."""
    if (Path(out) / "config.json").exists():
        raise ValueError(f"{out} is a run folder; give another folder")
    return Path(out)


def _write(out: Path, runs: Sequence[Run], drawn: Sequence[Picture]) -> Path:
    rows = [row | {"run": run.name} for run in runs for row in run.rows]
    judged = runs[0].judged if len(runs) == 1 else judge(rows)
    text, html = _markdown(runs, judged), page.html(runs, judged, drawn)
    pngs = {p.name: charts.to_png(p.chart) for p in drawn if p.chart is not None}
    folder = StudyStore(out)
    for name, png in pngs.items():
        folder.write_bytes(f"figures/{name}.png", png)
    folder.write_text("table.md", text)
    return folder.write_text("report.html", html)


def _markdown(runs: Sequence[Run], judged: pd.DataFrame) -> str:
    parts = [f"# {page.TITLE}"]
    for run in runs:
        parts += [f"**{describe_run(run)}**", *findings(run.judged_main)]
        parts += [left] if (left := describe_unfinished(run)) else []
    return "\n\n".join([*parts, table.markdown(judged)])
