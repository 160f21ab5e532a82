"""Measure what calibration restores and distillation preserves, row by row."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
from rich.console import Console

from experiments.beyond import report
from experiments.beyond.arms import TRAINING, RunSpec, list_specs
from experiments.beyond.config import PARTS, PRESETS, BeyondConfig
from experiments.beyond.networks import Networks
from experiments.command_line import run_as_command
from experiments.console import show_bar
from experiments.provenance import data_sum, versions
from experiments.study.grid import count_together
from experiments.study.layout import chunks
from snnjax import process
from snnjax.runs import Row, Store

_ABOUT = (
    "Restore the firing that post-training quantization moved, by calibration without "
    "labels, and preserve it in quantization-aware training, by losses of a teacher's "
    "firing. The same command resumes a stopped run."
)


def run(config: BeyondConfig, console: Console | None = None) -> Path:
    """Measure the rows that are missing, and write the page; returns its folder.

    Raises:
        ValueError: the folder holds a run of another config, or is in use.
    """
    console = console or Console()
    config = config.resolve()
    assert config.out is not None, "resolve() sets it"
    specs = list_specs(config)
    if config.dry_run:
        _print_plan(config, specs, console)
        return config.out
    if config.rows is not None:
        _write_page(config, report.make_files(_read_rows(config.rows), config))
        return config.out
    networks = Networks(config, config.out)
    checksum = data_sum(networks.train_set, networks.test_set)
    with Store.open(config.out, config.numbers(), data=checksum) as store:
        _measure(config, networks, specs, store, console)
        files = report.make_files(store.rows(), config)
        for name, data in files.items():
            store.write_bytes(name, data)
    _write_page(config, files)
    page = config.out / f"{report.page_name(config)}.md"
    console.print(f"Report: {page}", soft_wrap=True)
    return config.out


def _read_rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _write_page(config: BeyondConfig, files: dict[str, bytes]) -> None:
    if config.page is None:
        return
    for name, data in files.items():
        is_page = name == f"{report.page_name(config)}.md"
        path = config.page if is_page else config.page.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _measure(
    config: BeyondConfig,
    networks: Networks,
    specs: list[RunSpec],
    store: Store,
    console: Console,
) -> None:
    done = {row["name"] for row in store.rows()}
    images = len(networks.test_set.images)
    with show_bar(console, len(specs)) as bar, jax.default_matmul_precision("highest"):
        bar.advance(sum(spec.name in done for spec in specs))
        for group in list_groups([s for s in specs if s.name not in done], images):
            seed = group[0].seed
            baseline = f"fp32-s{seed}"
            if baseline not in done:
                bar.set_description(baseline)
                networks.baseline(seed)
                row = {"part": "fp32", "seed": seed} | networks.measure_baseline(seed)
                _append(store, row | {"name": baseline})
                done.add(baseline)
            bar.set_description(group[0].name)
            for spec, row in zip(group, networks.measure(group), strict=True):
                _append(store, dataclasses.asdict(spec) | row | {"name": spec.name})
                if "failed" not in row:
                    bar.print(
                        f"{row['accuracy']:.4f}  EMD {row['emd_mean']:.5f}  paired "
                        f"{row['paired_shift_mean']:.5f}  {row['seconds']:6.1f} s  "
                        f"{spec.name}"
                    )
                bar.advance(1)
            process.drop_programs()


def list_groups(specs: Iterable[RunSpec], images: int) -> Iterator[list[RunSpec]]:
    """Yield rows of one quantizer and seed that are measured together.

    Those that train are alone, and so are all on few test images; see
    `experiments.study.grid.count_together`.
    """
    for (part, _, _), same in itertools.groupby(
        specs, lambda spec: (spec.part, spec.quantizer, spec.seed)
    ):
        mode = "qat" if part in TRAINING else "ptq"
        yield from chunks(list(same), 1, count_together(mode, images))


def _append(store: Store, row) -> None:
    store.append(row | {"versions": versions()}, {})


def _print_plan(config: BeyondConfig, specs: list[RunSpec], console: Console) -> None:
    assert config.out is not None
    rows = Store(config.out).rows() if (config.out / "results.jsonl").exists() else []
    done = {row["name"]: row for row in rows}
    for spec in specs:
        mark = "done   " if spec.name in done else "missing"
        console.print(f"{mark} {spec.name}", highlight=False, soft_wrap=True)
    missing = [spec for spec in specs if spec.name not in done]
    console.print(f"{len(specs)} rows, {len(missing)} missing.", highlight=False)
    for part in PARTS:
        known = [row["seconds"] for row in rows if row.get("part") == part]
        left = sum(spec.part == part for spec in missing)
        if known and left:
            hours = left * sum(known) / len(known) / 3600
            console.print(
                f"{part}: {left} rows, about {hours:.1f} hours by those measured.",
                highlight=False,
            )


def main() -> None:
    run_as_command(
        run,
        BeyondConfig,
        program="python -m experiments.beyond",
        description=_ABOUT,
        presets=PRESETS,
    )


if __name__ == "__main__":
    main()
