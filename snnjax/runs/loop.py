"""A training loop that survives preemption, kills and corrupt checkpoints."""

import contextlib
import functools
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from snnjax.runs import hosts, preemption
from snnjax.runs.checkpoints import CorruptCheckpointError, RunCheckpoints

Step = TypeVar("Step")  # of a training loop: it has ``state``, ``step``, ``steps``


class Resumable:
    """One network in training, and its checkpoints.

    Attributes:
        name: name of the run, for messages.
        state: the state to start from; after the loop, a ``break`` out of it or a
            signal, the last one that was reached.
    """

    def __init__(self, name: str, state: Any, checkpoints: Any):
        self.name = name
        self.state = state
        self._checkpoints = checkpoints  # None on other hosts than the primary

    def watch(self, steps: Iterable[Step], *, seconds: float = 60.0) -> Iterator[Step]:
        """Yield the steps of a training loop, and save its state. See `watch`."""
        return watch([self], steps, seconds=seconds, unstack=lambda state: [state])

    def latest(self) -> int | None:
        """Return the step of the newest checkpoint, or None."""
        return hosts.run_on_primary(
            lambda: self._checkpoints and self._checkpoints.latest
        )


@contextlib.contextmanager
def resumable(
    folder: str | os.PathLike[str],
    state: Any,
    *,
    config: Mapping[str, Any] | None = None,
    keep: int = 2,
    warn: Callable[[str], object] = warnings.warn,
) -> Iterator[Resumable]:
    """Make a training loop of your own resume, save, and stop on a signal.

    ::

        with runs.resumable(folder, state, config={"seed": 0}) as run:
            steps = train.steps(model, dataset, ..., start=run.state)
            for progress in run.watch(steps, seconds=60):
                ...
        model = train.model_from_state(model, run.state)

    The block starts from the newest intact checkpoint in ``folder``, or from ``state``.
    `Resumable.watch` saves in the background every so many seconds and, on SIGTERM or
    SIGINT, saves, waits for the disk and raises `PreemptedError`. The same program,
    started again, resumes and reproduces the uninterrupted run bit for bit. Of several
    processes all call this; the primary host reads and writes.

    Args:
        folder: created if it does not exist.
        state: pytree to start from, such as `train.init` returns.
        config: identity of the run, as JSON values; another one's folder is refused.
        keep: number of checkpoints to keep.
        warn: called with a message if a checkpoint is corrupt.

    Raises:
        ValueError: the folder has checkpoints of another run or network.
        OSError: a checkpoint could not be written.
    """
    opened: list[RunCheckpoints] = []
    with preemption.handle_signals(), contextlib.ExitStack() as stack:
        name = os.fspath(folder)

        def load() -> Any:
            checkpoints = RunCheckpoints(folder, keep=keep, config=config)
            opened.append(stack.enter_context(checkpoints))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    found = checkpoints.load(state)
                except CorruptCheckpointError as error:
                    found = None
                    warn(f"{error}; training starts from the beginning")
            for warning in caught:
                warn(str(warning.message))
            return found

        loaded = hosts.load_on_primary(load, state)
        start = state if loaded is None else loaded
        yield Resumable(name, start, opened[0] if opened else None)
        # The last write may fail, and all processes must raise that.
        hosts.run_on_primary(stack.close)


def watch(
    resumables: Sequence[Resumable],
    steps: Iterable[Step],
    *,
    seconds: float = 60.0,
    unstack: Callable[[Any], Sequence[Any]],
) -> Iterator[Step]:
    """Yield the steps of networks that train side by side, and save their states.

    Args:
        resumables: the networks; each one's ``state`` is set at a save, at the end and
            where the loop is left.
        steps: their training loop: objects with ``state``, ``step`` and ``steps``.
        seconds: between two saves. A kill loses at most so much.
        unstack: splits ``progress.state`` into one state a network.

    Raises:
        PreemptedError: a signal came; the states are on the disk.
    """

    def set_states(progress: Any) -> None:
        for one, state in zip(resumables, unstack(progress.state), strict=True):
            one.state = state

    def save(step: int, wait: bool) -> None:
        opened = [one._checkpoints for one in resumables]
        for one, checkpoints in zip(resumables, opened, strict=True):
            checkpoints.save(step, one.state)
        for checkpoints in opened if wait else ():
            checkpoints.wait()

    saved, progress = time.monotonic(), None
    for done in steps:
        progress: Any = done
        try:
            yield progress
        except GeneratorExit:  # a break, which takes the last state with it
            set_states(progress)
            raise
        due = time.monotonic() - saved > seconds
        # The primary host's clock decides, and a signal to any of them.
        gathered = hosts.all_gather([preemption.received_signal(), due])
        signal = int(gathered[:, 0].max())
        if signal or gathered[0, 1]:
            set_states(progress)
            hosts.run_on_primary(functools.partial(save, progress.step, signal > 0))
            saved = time.monotonic()
        where = f"at {resumables[0].name}, step {progress.step} of {progress.steps}"
        preemption.raise_if_stopping(where, signal)
    if progress is not None:
        set_states(progress)
