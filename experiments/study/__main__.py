"""The study: train a baseline, quantize it in every way, measure how it fires.

    python -m experiments.study                 # digits, minutes on 2 cores
    python -m experiments.study --preset paper-small --data-dir DIR

Everything goes to the run folder (``--out``); the same command resumes a stopped run.
``--dry-run`` prints what it would do and how long it would take. All devices are used,
those of other processes too.
"""

import contextlib
import dataclasses
import sys
import time
from typing import Any

import jax
from rich.console import Console

from experiments import report
from experiments.command_line import run_as_command
from experiments.console import Compilations, format_duration, show_bar
from experiments.provenance import commit, data_sum, versions
from experiments.study import dry_run, layout
from experiments.study.config import StudyConfig
from experiments.study.grid import RunSpec, planned
from experiments.study.images import load_images
from experiments.study.measure import Measurer, Result
from experiments.study.presets import presets
from experiments.study.recipe import Recipe, load_baselines
from experiments.study.store import StudyStore, on_primary
from snnjax import process, runs

_ABOUT = (
    "Train a SEW-ResNet, quantize its weights and membranes in every way, and measure "
    "accuracy and firing against the baseline. The same command resumes a stopped run."
)
_EXPECTED = (ValueError, OSError, runs.PreemptedError)  # in all processes, if in one


def run(config: StudyConfig, console: Console | None = None) -> StudyStore:
    """Run a study, or what is missing of it, and write its report.

    Raises:
        ValueError: bad config, no data, or a folder of another run; nothing is written
            then.
    """
    if not runs.is_primary():
        console = Console(quiet=True)
    console = console or Console()
    config = config.resolve()
    assert config.out is not None, "resolve() sets it"
    alike = {"dry_run": config.dry_run, "extend": config.extend}
    runs.check_same_options(config.numbers() | alike)
    num_devices = layout.count_devices(config)
    store = StudyStore(config.out)
    with console.status(f"loading {config.dataset}"):
        sets = runs.run_on_all_hosts(lambda: load_images(config))
        loaded = runs.run_on_all_hosts(lambda: load_baselines(config, sets[0], store))
    specs = planned(config)
    about = {"versions": versions(), "data": data_sum(*sets)}
    rows: list[dict[str, Any]] = []
    # Unlocked however it ends: a notebook keeps the frames of an error.
    with store:
        if not config.dry_run:
            rows = store.start_and_read(config.numbers(), specs, config.extend, **about)
        else:
            rows = store.read_rows_of(config)
        results = {result.spec.name: result for result in map(Result.from_row, rows)}
        missing = [spec for spec in specs if spec.name not in results]
        if config.dry_run:
            for spec in missing:
                console.print(spec.name)
            console.print(
                f"{len(specs) - len(missing)} of {len(specs)} rows are there."
            )
        # Digits take minutes, the others hours.
        takes_long = missing and config.dataset != "digits" and not config.tiny
        if config.dry_run or takes_long:
            dry_run.print_estimate(config, sets, missing, num_devices, console)
        if config.dry_run:
            where = f"Nothing was written; results would go to {config.out}."
            console.print(where, highlight=False)
            return store
        images = [len(one) for one in sets]
        session = _Session(store, about | {"images": images}, num_devices)
        work = {spec.name: spec.cost_in_images(config, *images) for spec in specs}
        with (
            runs.handle_signals(),
            show_bar(console, sum(work.values())) as bar,
            jax.default_matmul_precision(config.precision),
        ):
            recipe = Recipe(config, sets[0], store, bar, num_devices, loaded)
            measurer = Measurer(config, store, results, sets[1], bar, num_devices)
            bar.print("accuracy      EMD  seconds  compiling  row")
            for name in results:
                store.remove_checkpoints(name)  # a kill may come before that
                bar.advance(work[name])
            try:
                for group in layout.groups(missing, num_devices, images[1]):
                    runs.raise_if_stopping(
                        f"before {group[0].name}, with {len(results)} rows done"
                    )
                    _make_rows(group, recipe, measurer, session)
                    session.write()
                    process.drop_programs()
            except _EXPECTED:
                with contextlib.suppress(ValueError, OSError):  # there may be no room
                    session.write()
                raise
        with console.status("writing the report"):
            page, findings = _write_report(store)
    console.print(
        f"\n{len(missing)} rows in {format_duration(session.seconds)}, of which "
        f"{format_duration(session.compilations.seconds)} compiling.",
        highlight=False,
    )
    for sentence in findings:
        console.print(sentence, highlight=False, markup=False)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    return store


@on_primary
def _write_report(store: StudyStore) -> tuple[str, list[str]]:
    """Write the report; return its path and what it found."""
    path = report.write(store.path)
    return str(path), report.findings(report.load(store.path).judged_main)


def _make_rows(
    group: list[RunSpec], recipe: Recipe, measurer: Measurer, session: "_Session"
) -> None:
    """Make the networks of specs side by side, measure them, and append the rows."""
    start, compiled = time.monotonic(), session.compilations.seconds
    session.compilations.label = group[0].compile_key
    networks = recipe.make(group)
    baseline = recipe.baseline(group[0].baseline)
    earlier = recipe.load_epoch_before(group[0], networks[0])
    clean, noisy = (
        measurer.evaluate(group, networks, baseline, noisy=noisy)
        for noisy in (False, True)
    )
    before = None
    if earlier is not None:
        [before] = measurer.evaluate(group, [earlier], baseline)
    compiled = (session.compilations.seconds - compiled) / len(group)
    seconds = (time.monotonic() - start) / len(group)
    evaluations = zip(clean, noisy, strict=True)
    for spec, network, found in zip(group, networks, evaluations, strict=True):
        result = measurer.append(spec, network, *found, before, seconds)
        session.store.remove_checkpoints(spec.name)
        session.rows += 1
        recipe.bar.print(
            f"{result.accuracy:8.4f}  {result.emd_mean:7.5f}  "
            f"{seconds - compiled:7.1f}  {compiled:9.1f}  {spec.name}"
        )


@dataclasses.dataclass
class _Session:
    """The time of this start of a study, which is written beside those before."""

    store: StudyStore
    about: dict[str, Any]
    devices: int
    rows: int = 0

    def __post_init__(self):
        self.compilations = Compilations()
        self._info = runs.run_on_primary(self.store.info) | self.about
        self._earlier = self._info.pop("starts", [])
        self._commit = commit()
        self._start, self._cpu = time.monotonic(), time.process_time()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @on_primary
    def write(self) -> None:
        """Write the time until now to ``config.json``."""
        now = {
            "rows": self.rows,
            "seconds": round(self.seconds, 1),
            "cpu_seconds": round(time.process_time() - self._cpu, 1),
            "compile_seconds": round(self.compilations.seconds, 1),
            "compilations": self.compilations.counts,
            "devices": self.devices,
            "commit": self._commit,
        }
        starts = [*self._earlier, now]
        self.store.write_info(**self._info, starts=starts)


def command(config: StudyConfig) -> None:
    """Run the study as one of the processes that the command line describes."""
    runs.initialize(
        config.devices, config.coordinator, config.num_processes, config.process_id
    )
    # From the start: an interrupt may be lost in one of JAX's callbacks.
    signals = contextlib.nullcontext() if config.dry_run else runs.handle_signals()
    with signals, runs.abort_on_unexpected_error(*_EXPECTED):
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
