"""Training a row: saved now and then, watched, logged, and taken up where it was."""

import time
import warnings
from pathlib import Path

import numpy as np

from experiments import stopping
from experiments.common import StudyConfig
from experiments.console import Bar
from experiments.log import Log
from snnjax import checkpoint, train
from snnjax.data import Dataset
from snnjax.models import SEWResNet

LOG_STEPS = 50


class Trainer:
    """Trains the networks of one run; their states lie in the run's folder.

    Args:
        config: of the study.
        dataset: training images.
        folder: of the run.
        shown: where it is said how far it is.
    """

    def __init__(self, config: StudyConfig, dataset: Dataset, folder: Path, shown: Bar):
        self.config = config
        self.dataset = dataset
        self.folder = folder
        self.shown = shown
        self.log = Log(folder)

    def states(self, name: str) -> Path:
        """Where the states of a row in training lie."""
        return self.folder / "checkpoints" / f"{name}-partial"

    def train(
        self, name: str, model: SEWResNet, rates: np.ndarray, seed: int
    ) -> SEWResNet:
        """Train ``model``, from where it was last saved.

        Raises:
            ValueError: a loss or gradient is not finite.
            Stopped: a signal came, and the state is saved.
        """
        self.shown.say(f"{name}: compiling")
        state = train.init(model, train.sgd(self.config.weight_decay))
        with self._history(name) as history:
            kept = self._last(name, history, state)
            if kept is not None:
                state = kept
                self.shown.advance(int(state.step) * self.config.batch_size)
            self.log.resume(name, int(state.step))
            try:
                state = self._steps(name, model, rates, seed, state, history)
            except train.NonFinite as error:
                last = history.latest
                where = "from the beginning" if last is None else f"from step {last}"
                raise ValueError(
                    f"{name}: {error}; this row is as it was saved, and the same "
                    f"command goes on {where} ({history.folder})"
                ) from error
        self.log.close(name)
        if int(state.skipped):
            self.shown.print(f"{name}: {int(state.skipped)} steps skipped")
        return train.trained(model, state)

    def _history(self, name: str) -> checkpoint.History:
        config = self.config.numbers() | {"row": name}
        return checkpoint.History(self.states(name), keep=2, config=config)

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

    def _steps(self, name, model, rates, seed, state, history):
        config = self.config
        saved = logged = time.monotonic()
        done = int(state.step)
        for progress in train.fit(
            model,
            self.dataset,
            rates,
            seed=seed,
            batch_size=config.batch_size,
            timesteps=config.timesteps,
            weight_decay=config.weight_decay,
            augment=config.dataset != "digits",
            start=state,
            on_nonfinite=config.on_nonfinite,
            silent_above=config.silent_above,
        ):
            state, step = progress.state, progress.step
            self.shown.advance(config.batch_size)
            for layer in progress.silent:
                dead = float(progress.metrics.dead[layer])
                self.shown.print(
                    f"{name} step {step}: {layer} fell silent ({100 * dead:.1f} % of "
                    "its neurons below rate 0.05)"
                )
            loss, accuracy = progress.metrics.loss, progress.metrics.accuracy
            if self.shown.shows_now():
                self.shown.say(
                    f"{name}: step {step}/{progress.steps}, loss {float(loss):.3f}, "
                    f"accuracy {float(accuracy):.2f}"
                )
            if step % LOG_STEPS == 0 or step == progress.steps or progress.silent:
                now = time.monotonic()
                self.log.write(
                    name,
                    step,
                    steps=progress.steps,
                    loss=float(loss),
                    accuracy=float(accuracy),
                    learning_rate=float(rates[step - 1]),
                    images_per_second=round(
                        (step - done) * config.batch_size / max(now - logged, 1e-9), 1
                    ),
                    skipped=int(state.skipped),
                    silent=list(progress.silent),
                    dead={
                        k: round(float(x), 4) for k, x in progress.metrics.dead.items()
                    },
                )
                logged, done = now, step
            if time.monotonic() - saved > config.save_seconds or stopping.asked():
                history.save(step, state)
                saved = time.monotonic()
            if stopping.asked():
                history.wait()
                stopping.look(f"at {name}, step {step} of {progress.steps}")
        return state
