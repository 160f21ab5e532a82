"""The study: train a baseline, quantize it in every way, measure how it fires.

    python -m experiments.study                 # digits, minutes on 2 cores
    python -m experiments.study --preset paper-small --data-dir DIR

Everything goes to the run folder (``--out``); the same command takes a stopped run up
where it was. ``--dry-run`` says what it would do and how long it would take.

All devices are used, those of other processes too: what is trained alone shares them,
and rows of one program run side by side (``layout.py``, ``cluster.py``).
"""

import contextlib
import sys
import time
from collections.abc import Callable

import jax
from rich.console import Console

from experiments import cluster, layout, report, stopping
from experiments.command_line import run_as_command
from experiments.common import Row, StudyConfig
from experiments.console import Bar, Compilations, bar, duration
from experiments.dry_run import dry_run, expect
from experiments.measure import measure
from experiments.networks import Networks, make_model
from experiments.presets import presets
from experiments.provenance import commit, data_sum
from experiments.rows import (
    EVAL_BATCH,
    EVALUATED,
    images_of,
    planned,
    row_name,
    structure,
)
from experiments.run_folder import RunFolder
from snnjax import data, train
from snnjax.data import Dataset

_ABOUT = (
    "Train a SEW-ResNet, quantize its weights and membranes in every way, and measure "
    "accuracy and firing against the baseline. The same command takes a stopped run "
    "up where it was."
)


def load_data(config: StudyConfig) -> tuple[Dataset, Dataset]:
    """Training and test images of ``config``."""
    limits = (256, 128) if config.tiny else (None, None)
    train_set, test_set = (
        data.load(config.dataset, split, data_dir=config.data_dir, limit=limit)
        for split, limit in zip(("train", "test"), limits, strict=True)
    )
    train.steps_per_epoch(train_set, config.batch_size)
    return train_set, test_set


class Study:
    """One run: its data, its folder, and what it has computed so far."""

    def __init__(
        self,
        config: StudyConfig,
        folder: RunFolder,
        sets,
        shown: Bar,
        done: dict[str, Row],
        devices: int = 1,
    ):
        self.config = config
        self.folder = folder
        self.train_set, self.test_set = sets
        self.shown = shown
        self.devices = devices
        self.networks = Networks(config, self.train_set, folder.path, shown, devices)
        self.compilations = Compilations()
        self.done = done

    def run(self, parts: list[Row], made: Callable[[], None]) -> None:
        """Compute the rows that are missing, and call ``made`` after each."""
        self.shown.print("accuracy      EMD  seconds  compiling  row")
        missing = [part for part in parts if row_name(part) not in self.done]
        for part in parts:
            if row_name(part) in self.done:
                # A kill may come between a row and this.
                self.networks.trainer.forget(row_name(part))
                self.shown.advance(images_of(part, self.config, *self._sizes()))
        for group in layout.groups(missing, self.devices):
            self.compilations.label = structure(group[0])
            name = row_name(group[0])
            stopping.look(f"before {name}, with {len(self.done)} rows done")
            self._rows(group)
            made()

    def _sizes(self) -> tuple[int, int]:
        return len(self.train_set), len(self.test_set)

    def _rows(self, group: list[Row]) -> None:
        start, compiled = time.monotonic(), self.compilations.seconds
        models = self.networks.of(group)
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        self.shown.say(f"{row_name(group[0])}{more}: evaluating")
        found = self._evaluate(group, models)
        earlier = self.networks.epoch_before(group[0], models[0])
        before = None if earlier is None else self._evaluate(group, [earlier])[0]
        compiled = (self.compilations.seconds - compiled) / len(group)
        seconds = (time.monotonic() - start) / len(group)
        for part, model, one in zip(group, models, found, strict=True):
            name = row_name(part)

            def finish(part=part, model=model, one=one) -> Row:
                row, fired = measure(
                    part, self.config, model, one, self.folder, self.done, before
                )
                row |= {"devices": self.devices, "seconds": round(seconds, 3)}
                self.folder.append(row, fired)
                return row

            row = cluster.by_first(finish)
            self.networks.trainer.forget(name)
            self.done[name] = row
            self.shown.print(
                f"{row['accuracy']:8.4f}  {row['emd_mean']:7.5f}  "
                f"{seconds - compiled:7.1f}  {compiled:9.1f}  {name}"
            )

    def _evaluate(self, group, models) -> list[train.Evaluation]:
        name = row_name(group[0])

        def evaluated():
            self.shown.advance(EVAL_BATCH * EVALUATED * len(group))
            stopping.look(f"while {name} was evaluated")

        options = dict(
            reference=self.networks.baseline(group[0]["seed"]),
            timesteps=self.config.timesteps,
            batch_size=EVAL_BATCH,
            on_step=evaluated,
            mesh=layout.mesh_for(len(group), self.devices),
        )
        if len(group) == 1:
            return [train.evaluate(models[0], self.test_set, **options)]
        return train.evaluate_sweep(models, self.test_set, **options)


def _check_alike(config: StudyConfig) -> None:
    """Processes of other options would wait for each other without end."""
    asked = config.numbers() | {"dry_run": config.dry_run}
    first = cluster.by_first(lambda: asked)
    other = [name for name in asked if asked[name] != first[name]]

    def check() -> None:
        if other:
            raise ValueError(
                "all processes must be started with the same options, and "
                f"{', '.join(other)} of this one differ from the first's"
            )

    cluster.by_all(check)


def run(config: StudyConfig, console: Console | None = None) -> RunFolder:
    """Run a study, or what is missing of it, and write its report.

    Raises:
        ValueError: bad config, no data, or a folder that is not this run's; nothing is
            written then.
    """
    console = console or Console()
    if not cluster.is_first():
        console = Console(quiet=True)
    config = config.resolve()
    out = config.out
    assert out is not None, "resolve() names it"
    _check_alike(config)
    devices = layout.devices_of(config)
    with console.status(f"loading {config.dataset}"):
        sets = cluster.by_all(lambda: load_data(config))
    if config.dry_run:
        model = make_model(config, sets[0], config.seeds[0])
        dry_run(config, sets, model, console)
        return RunFolder(out)
    folder, checksum = RunFolder(out), data_sum(*sets)

    def take() -> None:
        nonlocal folder
        folder = RunFolder.open(config, checksum)

    cluster.by_first(take)
    # Freed however it ends: a notebook keeps the frames of an error, and so the lock.
    with folder:
        start, used, ran = time.monotonic(), time.process_time(), commit()
        earlier = cluster.by_first(folder.info).get("starts", [])
        parts = planned(config)
        images = [len(each) for each in sets]
        work = sum(images_of(part, config, *images) for part in parts)
        done = {row_name(row): row for row in cluster.by_first(folder.rows)}
        left = [part for part in parts if row_name(part) not in done]
        # Hours are told before they begin; a study of digits takes minutes.
        if left and config.dataset != "digits" and not config.tiny:
            model = make_model(config, sets[0], config.seeds[0])
            expect(config, sets, model, left, console)
        with (
            stopping.watched(),
            bar(console, work) as shown,
            jax.default_matmul_precision(config.precision),
        ):
            study, before = Study(config, folder, sets, shown, done, devices), len(done)

            def entry() -> None:
                """How long the study has run since it was started, until now."""
                now = {
                    "rows": len(done) - before,
                    "seconds": round(time.monotonic() - start, 1),
                    "cpu_seconds": round(time.process_time() - used, 1),
                    "compile_seconds": round(study.compilations.seconds, 1),
                    "compilations": study.compilations.counts,
                    "devices": devices,
                    "commit": ran,
                }
                if left and cluster.is_first():
                    told = {"data": checksum, "images": images}
                    folder.write_info(config, **told, starts=[*earlier, now])

            try:
                study.run(parts, entry)
            finally:
                entry()
        seconds = time.monotonic() - start

        def finish() -> str:
            with console.status("writing the report"):
                return str(report.write(folder.path))

        page = cluster.by_first(finish)
    console.print(
        f"\n{len(left)} rows in {duration(seconds)}, of which "
        f"{duration(study.compilations.seconds)} compiling.",
        highlight=False,
    )
    if cluster.is_first():
        for sentence in report.findings(report.load(folder.path).judged_main):
            console.print(sentence, highlight=False, markup=False)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    return folder


def command(config: StudyConfig) -> None:
    """`run`, as one of the processes that the command line tells of."""
    cluster.join(
        config.devices, config.coordinator, config.num_processes, config.process_id
    )
    # From the beginning: an interrupt may be lost in one of JAX's callbacks.
    watched = contextlib.nullcontext() if config.dry_run else stopping.watched()
    with watched, cluster.together(ValueError, OSError, stopping.Stopped):
        run(config)


def main() -> None:
    run_as_command(
        command,
        StudyConfig,
        program="python -m experiments.study",
        description=_ABOUT,
        presets=presets(tiny="--tiny" in sys.argv),
    )


if __name__ == "__main__":
    main()
