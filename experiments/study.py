"""The study: train a baseline, quantize it in every way, measure how it fires.

    python -m experiments.study                 # digits, minutes on 2 cores
    python -m experiments.study --dataset cifar10 --data-dir DIR --width 16

Everything goes to the run folder (``--out``); the same command takes a stopped run up
where it was. ``--dry-run`` says what it would do and how long it would take.
"""

import functools
import time
from collections.abc import Iterator

import jax
import numpy as np
from flax import nnx
from rich.console import Console

from experiments import report, stopping
from experiments.common import (
    BATCHNORM_IMAGES,
    EVAL_BATCH,
    EVALUATED,
    MEMBRANES,
    WEIGHTS,
    Row,
    StudyConfig,
    grid,
    images_of,
    references,
    run_as_command,
    structure,
)
from experiments.console import Bar, Compilations, bar
from experiments.measure import measure
from experiments.run_folder import RunFolder, row_name
from experiments.training import Trainer
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

    def __init__(self, config: StudyConfig, folder: RunFolder, sets, shown: Bar):
        self.config = config
        self.folder = folder
        self.train_set, self.test_set = sets
        self.shown = shown
        self.trainer = Trainer(config, self.train_set, folder.path, shown)
        self.compilations = Compilations()
        self.done = {row_name(row): row for row in folder.rows()}

    def run(self) -> None:
        """Compute every row that is missing."""
        self.shown.print("accuracy      EMD  seconds  compiling  row")
        for part in [*references(self.config), *grid(self.config)]:
            self.compilations.label = structure(part)
            stopping.look(f"before {row_name(part)}, with {len(self.done)} rows done")
            if row_name(part) in self.done:
                # A kill may have come between the row and this.
                checkpoint.remove(self.trainer.states(row_name(part)))
                self.shown.advance(images_of(part, self.config, *self._sizes()))
            else:
                self._row(part)

    def _sizes(self) -> tuple[int, int]:
        return len(self.train_set), len(self.test_set)

    def _row(self, part: Row) -> None:
        name, start = row_name(part), time.monotonic()
        compiled = self.compilations.seconds
        model = self._network(part, name)
        self.shown.say(f"{name}: evaluating")
        found = train.evaluate(
            model,
            self.test_set,
            reference=self.baseline(part["seed"]),
            timesteps=self.config.timesteps,
            batch_size=EVAL_BATCH,
            on_step=lambda: self._evaluated(name),
        )
        compiled = self.compilations.seconds - compiled
        seconds = time.monotonic() - start
        row, fired = measure(part, self.config, model, found, self.folder, self.done)
        row["seconds"] = round(seconds, 3)
        self.folder.append(row, fired)
        checkpoint.remove(self.trainer.states(name))
        self.done[name] = row
        self.shown.print(
            f"{row['accuracy']:8.4f}  {row['emd_mean']:7.5f}  "
            f"{seconds - compiled:7.1f}  {compiled:9.1f}  {name}"
        )

    def _evaluated(self, name: str) -> None:
        self.shown.advance(EVAL_BATCH * EVALUATED)
        stopping.look(f"while {name} was evaluated")

    def _network(self, part: Row, name: str) -> SEWResNet:
        """The network of a row, trained where its mode says so."""
        if part["mode"] == "fp32":
            return self.baseline(part["seed"])
        model = self.quantized(part)
        if part["mode"] == "ptq_bn":
            self.shown.say(f"{name}: re-estimating BatchNorm")
            return calibrate.reestimate_batchnorm(
                model, self._batchnorm_batches(), timesteps=self.config.timesteps
            )
        if part["mode"] in ("qat", "control"):
            steps = self._steps(self.config.qat_epochs)
            rates = train.cosine(steps, self.config.qat_learning_rate)
            return self.trainer.train(name, model, rates, part["seed"])
        return model

    def _steps(self, epochs: int) -> int:
        return epochs * train.steps_per_epoch(self.train_set, self.config.batch_size)

    @functools.lru_cache(maxsize=4)  # noqa: B019 (one study lives as long as the run)
    def baseline(self, seed: int) -> SEWResNet:
        """The full-precision network, from its checkpoint or trained now."""
        name = f"fp32-s{seed}"
        path = self.folder.path / "checkpoints" / f"{name}.safetensors"
        model = make_model(self.config, self.train_set, seed)
        if checkpoint.exists(path):
            return checkpoint.load(path, model)
        rates = train.one_cycle(
            self._steps(self.config.epochs), self.config.learning_rate
        )
        model = self.trainer.train(name, model, rates, seed)
        checkpoint.export(path, model, self.config.numbers() | {"seed": seed})
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
        if part["target"] == "membrane":
            rules = {MEMBRANES: spec}
            return calibrate.quantize(model, rules, membrane_site=part["site"])
        return calibrate.quantize(model, {WEIGHTS: spec})

    def _batchnorm_batches(self) -> Iterator[jax.Array]:
        images = self.train_set.images[:BATCHNORM_IMAGES]
        size = min(EVAL_BATCH, len(images))
        for first in range(0, len(images) - size + 1, size):
            batch = images[first : first + size]
            yield data.normalize(batch, self.train_set.mean, self.train_set.std)
            self.shown.advance(size / 3)


def dry_run(config: StudyConfig, sets: tuple[Dataset, Dataset], console: Console):
    """Print the rows, and the time and memory they will take, from a few real steps."""
    parts = [*references(config), *grid(config)]
    for part in parts:
        console.print(row_name(part))
    train_set, test_set = sets
    model = make_model(config, train_set, config.seeds[0])
    tx = train.sgd(config.weight_decay)
    step = train.make_train_step(
        train.split(model)[0],
        tx,
        timesteps=config.timesteps,
        augment=config.dataset != "digits",
    )
    arguments = (
        *train.on_device(train_set),
        np.arange(config.batch_size, dtype=np.int32),
        np.float32(0),
        jax.random.key(0),
    )
    state = train.init(model, tx)
    with console.status("compiling and timing a training step"):
        start = time.monotonic()
        compiled = step.lower(state, *arguments).compile()
        compile_seconds = time.monotonic() - start
        seconds = []
        for _ in range(4):
            start = time.monotonic()
            state, metrics = compiled(state, *arguments)
            metrics.loss.block_until_ready()
            seconds.append(time.monotonic() - start)
    each = min(seconds) / config.batch_size
    sizes = (len(train_set), len(test_set))
    running = each * sum(images_of(part, config, *sizes) for part in parts)
    # A structure compiles a training, an evaluation and a BatchNorm step.
    compiling = 1.7 * compile_seconds * len({structure(part) for part in parts})
    used = compiled.memory_analysis()
    memory = "memory this backend does not tell"
    if used is not None:
        memory = (
            f"{used.temp_size_in_bytes / 1e6:.0f} MB beside "
            f"{used.argument_size_in_bytes / 1e6:.0f} MB of data and parameters"
        )
    console.print(
        f"{len(parts)} rows; a training step of {config.batch_size} images takes "
        f"{min(seconds):.2f} s and {memory}.\n"
        f"Expected time: {duration(running)}, and {duration(compiling)} of compiling. "
        f"Nothing was written; results would go to {config.out}.",
        highlight=False,
    )


def duration(seconds: float) -> str:
    """Seconds in the unit that people think in.

    >>> duration(5400)
    '1.5 hours'
    """
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def run(config: StudyConfig, console: Console | None = None) -> RunFolder:
    """Run a study, or what is missing of it, and write its report.

    Raises:
        ValueError: bad config, no data, or a folder that is not this run's; nothing is
            written then.
    """
    console = console or Console()
    config = config.resolve()
    out = config.out
    assert out is not None, "resolve() names it"
    with console.status(f"loading {config.dataset}"):
        sets = load_data(config)
    if config.dry_run:
        dry_run(config, sets, console)
        return RunFolder(out)
    # Freed however it ends: a notebook keeps the frames of an error, and so the lock.
    with RunFolder.open(config) as folder:
        start = time.monotonic()
        parts = [*references(config), *grid(config)]
        work = sum(images_of(part, config, *(len(s) for s in sets)) for part in parts)
        with (
            stopping.watched(),
            bar(console, work) as shown,
            jax.default_matmul_precision(config.precision),
        ):
            study = Study(config, folder, sets, shown)
            missing = len(parts) - len(study.done)
            study.run()
        seconds = time.monotonic() - start
        if missing:
            # One entry for each time the study was started: it may have been stopped.
            entry = {
                "rows": missing,
                "seconds": round(seconds, 1),
                "compile_seconds": round(study.compilations.seconds, 1),
                "compilations": study.compilations.counts,
            }
            folder.write_info(config, starts=[*folder.info().get("starts", []), entry])
        with console.status("writing the report"):
            page = report.write(folder.path)
    console.print(
        f"\n{missing} rows in {duration(seconds)}, of which "
        f"{duration(study.compilations.seconds)} compiling.",
        highlight=False,
    )
    for sentence in report.findings(folder.rows()):
        console.print(sentence, highlight=False, markup=False)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    return folder


def main() -> None:
    run_as_command(
        run, StudyConfig, program="python -m experiments.study", description=_ABOUT
    )


if __name__ == "__main__":
    main()
