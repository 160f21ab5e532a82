"""Training rows: saved now and then, watched, logged, and taken up where they were."""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import optax

from experiments import cluster, layout, stopping
from experiments.common import StudyConfig
from experiments.console import Bar
from experiments.log import Log
from snnjax import checkpoint, train
from snnjax.data import Dataset
from snnjax.models import SEWResNet
from snnjax.train import Progress, SweepProgress, TrainState, devices

LOG_STEPS = 50

# After a step: where it is, what fell silent in each row, and how to get the states.
Step = tuple[
    Progress | SweepProgress,
    Sequence[tuple[str, ...]],
    Callable[[], list[TrainState]],
]


def optimizer(config: StudyConfig) -> optax.GradientTransformation:
    """What `train.fit` makes of ``config``."""
    return train.OPTIMIZERS[config.optimizer](config.weight_decay)


def augments(config: StudyConfig) -> bool:
    """Whether training images are cropped and mirrored; a mirrored digit is none."""
    return config.augment and config.dataset != "digits"


class Trainer:
    """Trains the networks of one run; their states lie in the run's folder.

    Args:
        config: of the study.
        dataset: training images.
        folder: of the run.
        shown: where it is said how far it is.
        devices: how many a study takes.
    """

    def __init__(
        self,
        config: StudyConfig,
        dataset: Dataset,
        folder: Path,
        shown: Bar,
        devices: int = 1,
    ):
        self.config = config
        self.dataset = dataset
        self.folder = folder
        self.shown = shown
        self.devices = devices
        self.log = Log(folder)

    def states(self, name: str) -> Path:
        """Where the states of a row in training lie."""
        return self.folder / "checkpoints" / f"{name}-partial"

    def epoch_before(self, name: str) -> Path:
        """Where the state of a row lies as its last epoch began, where one is kept."""
        return self.folder / "checkpoints" / f"{name}-epoch-before"

    def forget(self, name: str) -> None:
        """Remove the states of a row, which is done."""

        def remove() -> None:
            checkpoint.remove(self.states(name))
            checkpoint.remove(self.epoch_before(name))

        cluster.by_first(remove)

    def train(
        self,
        names: Sequence[str],
        models: Sequence[SEWResNet],
        rates: np.ndarray,
        seed: int,
        *,
        epoch_before: bool = False,
    ) -> list[SEWResNet]:
        """Train the networks of rows, each from where it was last saved.

        Those that are after the same step go side by side, as far as devices go. With
        ``epoch_before`` their states are put aside as the last epoch begins.

        Raises:
            ValueError: a loss or gradient is not finite.
            Stopped: a signal came, and the states are saved.
        """
        self.shown.say(f"{names[0]}: compiling")
        with contextlib.ExitStack() as opened:
            histories: dict[str, checkpoint.History] = {}
            starts = [
                self._take_up(name, model, opened, histories)
                for name, model in zip(names, models, strict=True)
            ]
            together: dict[int, list[int]] = {}
            for i, start in enumerate(starts):
                together.setdefault(int(start.step), []).append(i)
            trained = list(models)
            for places in together.values():
                for chunk in layout.chunks(places, self.devices):
                    states = self._together(
                        [names[i] for i in chunk],
                        [models[i] for i in chunk],
                        [starts[i] for i in chunk],
                        rates,
                        seed,
                        histories,
                        epoch_before,
                    )
                    for i, state in zip(chunk, states, strict=True):
                        trained[i] = train.trained(models[i], state)
            # What is still being written may fail, and the others have to hear it.
            cluster.by_first(opened.close)
        return trained

    def _take_up(self, name, model, opened, histories) -> TrainState:
        """The state that a row was last saved in, or its first."""
        start = train.init(model, optimizer(self.config))

        def last() -> TrainState | None:
            config = self.config.numbers() | {"row": name}
            history = checkpoint.History(self.states(name), keep=2, config=config)
            histories[name] = opened.enter_context(history)
            found = self._last(name, history, start)
            self.log.resume(name, int((found or start).step))
            return found

        found = cluster.kept_by_first(last, start)
        if found is None:
            return start
        self.shown.advance(int(found.step) * self.config.batch_size)
        return found

    def _last(self, name, history, like):
        """The newest state that is whole; what is damaged is told."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                found = history.load(like)
            except checkpoint.Damaged as error:
                self.shown.print(f"{name}: {error}; it is trained from the beginning")
                found = None
        for warning in told:
            self.shown.print(f"{name}: {warning.message}")
        return found

    def _together(self, names, models, starts, rates, seed, histories, epoch_before):
        """The last states of networks that are trained side by side."""
        steps = self._steps(models, starts, rates, seed)
        if epoch_before:
            steps = self._put_aside(names, steps)
        try:
            states = self._watched(names, steps, rates, histories, starts)
        except train.NonFinite as error:
            name = names[error.config]
            last = cluster.by_first(lambda: histories[name].latest)
            where = "from the beginning" if last is None else f"from step {last}"
            raise ValueError(
                f"{name}: {error}; this row is as it was saved, and the same "
                f"command goes on {where} ({self.states(name)})"
            ) from error
        cluster.by_first(lambda: [self.log.close(name) for name in names])
        for name, state in zip(names, states, strict=True):
            if int(state.skipped):
                self.shown.print(f"{name}: {int(state.skipped)} steps skipped")
        return states

    def _steps(self, models, starts, rates, seed) -> Iterator[Step]:
        config = self.config
        options = dict(
            seed=seed,
            batch_size=config.batch_size,
            timesteps=config.timesteps,
            optimizer=config.optimizer,
            weight_decay=config.weight_decay,
            label_smoothing=config.label_smoothing,
            augment=augments(config),
            on_nonfinite=config.on_nonfinite,
            silent_above=config.silent_above,
            mesh=layout.mesh_for(len(models), self.devices),
        )
        if len(models) == 1:
            fit = partial(train.fit, start=starts[0], **options)
            for at in fit(models[0], self.dataset, rates):
                yield at, (at.silent,), lambda at=at: [at.state]
        else:
            sweep = partial(train.sweep, starts=starts, **options)
            for at in sweep(models, self.dataset, rates):
                yield at, at.silent, partial(train.unstacked, at.state)

    def _put_aside(self, names, steps) -> Iterator[Step]:
        """The same steps; the states as the last epoch begins are kept on the side."""
        per_epoch = train.steps_per_epoch(self.dataset, self.config.batch_size)
        for at, silent, states in steps:
            if at.step == at.steps - per_epoch:

                def save(states=states) -> None:
                    for name, state in zip(names, states(), strict=True):
                        checkpoint.save(self.epoch_before(name), state)

                cluster.by_first(save)
            yield at, silent, states

    def _watched(self, names, steps, rates, histories, starts):
        config = self.config
        saved = logged = time.monotonic()
        done = int(starts[0].step)
        states = lambda: starts  # noqa: E731
        for at, silent, states in steps:
            self.shown.advance(config.batch_size * len(names))
            metrics = at.metrics
            for i, (name, layers) in enumerate(zip(names, silent, strict=True)):
                for layer in layers:
                    dead = _of(metrics.dead[layer], i)
                    self.shown.print(
                        f"{name} step {at.step}: {layer} fell silent "
                        f"({100 * dead:.1f} % of its neurons below rate 0.05)"
                    )
            if self.shown.shows_now():
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                self.shown.say(
                    f"{names[0]}{more}: step {at.step}/{at.steps}, "
                    f"loss {_of(metrics.loss, 0):.3f}, "
                    f"accuracy {_of(metrics.accuracy, 0):.2f}"
                )
            if at.step % LOG_STEPS == 0 or at.step == at.steps or any(silent):
                now = time.monotonic()
                speed = (at.step - done) * config.batch_size / max(now - logged, 1e-9)
                self._log(names, at, silent, rates, speed)
                logged, done = now, at.step
            due = time.monotonic() - saved > config.save_seconds
            said = cluster.of_all([stopping.heard(), due])
            signal = int(said[:, 0].max())
            if said[0, 1] or signal:
                self._save(names, at.step, states(), histories, wait=bool(signal))
                saved = time.monotonic()
            stopping.stop(signal, f"at {names[0]}, step {at.step} of {at.steps}")
        return states()

    def _log(self, names, at, silent, rates, speed):
        metrics, skipped = at.metrics, devices.fetched(at.state.skipped)

        def write() -> None:
            for i, name in enumerate(names):
                self.log.write(
                    name,
                    at.step,
                    steps=at.steps,
                    loss=_of(metrics.loss, i),
                    accuracy=_of(metrics.accuracy, i),
                    learning_rate=float(rates[at.step - 1]),
                    images_per_second=round(speed, 1),
                    skipped=int(_of(skipped, i)),
                    silent=list(silent[i]),
                    dead={k: round(_of(x, i), 4) for k, x in metrics.dead.items()},
                )

        cluster.by_first(write)

    def _save(self, names, step, states, histories, wait):
        def save() -> None:
            for name, state in zip(names, states, strict=True):
                histories[name].save(step, state)
            for name in names if wait else ():
                histories[name].wait()

        cluster.by_first(save)


def _of(values, i: int) -> float:
    """A row's number: of one row it is an array of no axes."""
    return float(np.ravel(values)[i])
