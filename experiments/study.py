"""The study: train a baseline, quantize it in every way, measure how it fires.

    python -m experiments.study                 # digits, minutes on 2 cores
    python -m experiments.study --preset paper-small --data-dir DIR

Everything goes to the run folder (``--out``); the same command takes a stopped run up
where it was. ``--dry-run`` says what it would do and how long it would take.

All devices are used, those of other processes too: what is trained alone shares them,
and rows of one program run side by side (``layout.py``, ``cluster.py``).
"""

import functools
import time
from collections.abc import Callable, Iterator

import jax
from flax import nnx
from rich.console import Console

from experiments import cluster, layout, report, stopping
from experiments.command_line import run_as_command
from experiments.common import Row, StudyConfig
from experiments.console import Bar, Compilations, bar, duration
from experiments.dry_run import dry_run, expect
from experiments.measure import measure
from experiments.presets import PRESETS
from experiments.rows import (
    ALL_MEMBRANES,
    ALL_WEIGHTS,
    BATCHNORM_IMAGES,
    EVAL_BATCH,
    EVALUATED,
    MEMBRANES,
    WEIGHTS,
    images_of,
    planned,
    structure,
)
from experiments.run_folder import RunFolder, commit, row_name
from experiments.training import Trainer, optimizer
from snnjax import calibrate, checkpoint, data, models, neurons, surrogate, train
from snnjax.data import Dataset
from snnjax.models import SEWResNet
from snnjax.quantize import QuantSpec

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


def make_model(config: StudyConfig, dataset: Dataset, seed: int) -> SEWResNet:
    """The network before its training."""
    make = getattr(models, config.model)
    return make(
        dataset.num_classes,
        width=config.width,
        in_channels=dataset.images.shape[-1],
        neuron=neurons.LIF(
            v_reset=0.0 if config.reset == "hard" else None,
            surrogate=getattr(surrogate, config.surrogate),
        ),
        rngs=nnx.Rngs(seed),
    )


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
        self.trainer = Trainer(config, self.train_set, folder.path, shown, devices)
        self.compilations = Compilations()
        self.done = done

    def run(self, parts: list[Row], made: Callable[[], None]) -> None:
        """Compute the rows that are missing, and call ``made`` after each."""
        self.shown.print("accuracy      EMD  seconds  compiling  row")
        missing = [part for part in parts if row_name(part) not in self.done]
        for part in parts:
            if row_name(part) in self.done:
                self._forget(row_name(part))
                self.shown.advance(images_of(part, self.config, *self._sizes()))
        for group in layout.groups(missing, self.devices):
            self.compilations.label = structure(group[0])
            name = row_name(group[0])
            stopping.look(f"before {name}, with {len(self.done)} rows done")
            self._rows(group)
            made()

    def _forget(self, name: str) -> None:
        """The states of a row that is done; a kill may come between it and this."""

        def remove() -> None:
            checkpoint.remove(self.trainer.states(name))
            checkpoint.remove(self.trainer.epoch_before(name))

        cluster.by_first(remove)

    def _sizes(self) -> tuple[int, int]:
        return len(self.train_set), len(self.test_set)

    def _rows(self, group: list[Row]) -> None:
        start, compiled = time.monotonic(), self.compilations.seconds
        models = self._networks(group)
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        self.shown.say(f"{row_name(group[0])}{more}: evaluating")
        found = self._evaluate(group, models)
        before = self._epoch_before(group, models[0])
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
            self._forget(name)
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
            reference=self.baseline(group[0]["seed"]),
            timesteps=self.config.timesteps,
            batch_size=EVAL_BATCH,
            on_step=evaluated,
            mesh=layout.mesh_for(len(group), self.devices),
        )
        if len(group) == 1:
            return [train.evaluate(models[0], self.test_set, **options)]
        return train.evaluate_sweep(models, self.test_set, **options)

    def _epoch_before(self, group, model) -> train.Evaluation | None:
        """A control one epoch before its end: whether its firing still moves."""
        if group[0]["mode"] != "control" or self.config.qat_epochs == 1:
            return None
        path = self.trainer.epoch_before(row_name(group[0]))
        like = train.init(model, optimizer(self.config))

        def load() -> train.TrainState | None:
            return checkpoint.load(path, like) if checkpoint.exists(path) else None

        state = cluster.kept_by_first(load, like)
        if state is None:
            return None  # trained so far by an earlier version
        return self._evaluate(group, [train.trained(model, state)])[0]

    def _networks(self, group: list[Row]) -> list[SEWResNet]:
        """The networks of rows of one mode, trained where it says so."""
        mode, seed = group[0]["mode"], group[0]["seed"]
        if mode == "fp32":
            return [self.baseline(seed)]
        names, models = [row_name(part) for part in group], []
        for part in group:
            model = self.quantized(part)
            if mode == "ptq_bn":
                self.shown.say(f"{row_name(part)}: re-estimating BatchNorm")
                model = calibrate.reestimate_batchnorm(
                    model, self._batchnorm_batches(), timesteps=self.config.timesteps
                )
            models.append(model)
        if mode in ("qat", "control"):
            steps = self._steps(self.config.qat_epochs)
            rates = train.cosine(steps, self.config.qat_learning_rate)
            return self.trainer.train(names, models, rates, seed)
        return models

    def _steps(self, epochs: int) -> int:
        return epochs * train.steps_per_epoch(self.train_set, self.config.batch_size)

    @functools.lru_cache(maxsize=4)  # noqa: B019 (one study lives as long as the run)
    def baseline(self, seed: int) -> SEWResNet:
        """The full-precision network, from its checkpoint or trained now."""
        name = f"fp32-s{seed}"
        path = self.folder.path / "checkpoints" / f"{name}.safetensors"
        model = make_model(self.config, self.train_set, seed)
        graphdef, like = nnx.split(model)

        def load() -> nnx.State | None:
            there = checkpoint.exists(path)
            return nnx.state(checkpoint.load(path, model)) if there else None

        state = cluster.kept_by_first(load, like)
        if state is not None:
            return nnx.merge(graphdef, state)
        steps, peak = self._steps(self.config.epochs), self.config.learning_rate
        if self.config.schedule == "cosine":
            rates = train.cosine(steps, peak, self._steps(self.config.warmup_epochs))
        else:
            rates = train.one_cycle(steps, peak)
        [model] = self.trainer.train([name], [model], rates, seed)
        about = self.config.numbers() | {"seed": seed}
        cluster.by_first(lambda: str(checkpoint.export(path, model, about)))
        return model

    def quantized(self, part: Row) -> SEWResNet:
        """The baseline with the quantizers of a row, not yet trained with them."""
        model = self.baseline(part["seed"])
        if part["target"] == "none":
            return model
        spec = QuantSpec(
            method=part["method"],
            bits=part["bits"],
            clip=part["clip"],
            signed=part["signed"],
            grid=part["grid"] or "mid_rise",
        )
        everywhere = part["quantize_all"]
        if part["target"] == "membrane":
            rules = {ALL_MEMBRANES if everywhere else MEMBRANES: spec}
            return calibrate.quantize(model, rules, membrane_site=part["site"])
        return calibrate.quantize(model, {ALL_WEIGHTS if everywhere else WEIGHTS: spec})

    def _batchnorm_batches(self) -> Iterator[jax.Array]:
        images = self.train_set.images[:BATCHNORM_IMAGES]
        size = min(EVAL_BATCH, len(images))
        for first in range(0, len(images) - size + 1, size):
            batch = images[first : first + size]
            yield data.normalize(batch, self.train_set.mean, self.train_set.std)
            self.shown.advance(size / 3)


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
    folder = RunFolder(out)

    def take() -> None:
        nonlocal folder
        folder = RunFolder.open(config)

    cluster.by_first(take)
    # Freed however it ends: a notebook keeps the frames of an error, and so the lock.
    with folder:
        start, ran = time.monotonic(), commit()
        earlier = cluster.by_first(folder.info).get("starts", [])
        parts = planned(config)
        work = sum(images_of(part, config, *(len(s) for s in sets)) for part in parts)
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
                    "compile_seconds": round(study.compilations.seconds, 1),
                    "compilations": study.compilations.counts,
                    "devices": devices,
                    "commit": ran,
                }
                if left and cluster.is_first():
                    folder.write_info(config, starts=[*earlier, now])

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
        for sentence in report.findings(report.load(folder.path).main):
            console.print(sentence, highlight=False, markup=False)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    return folder


def command(config: StudyConfig) -> None:
    """`run`, as one of the processes that the command line tells of."""
    cluster.join(
        config.devices, config.coordinator, config.num_processes, config.process_id
    )
    with cluster.together(ValueError, OSError, stopping.Stopped):
        run(config)


def main() -> None:
    run_as_command(
        command,
        StudyConfig,
        program="python -m experiments.study",
        description=_ABOUT,
        presets=PRESETS,
    )


if __name__ == "__main__":
    main()
