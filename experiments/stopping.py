"""SIGTERM and SIGINT end a run where nothing is lost: at its next look at them.

Of several processes one that hears a signal ends all, at the same look.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from experiments import cluster

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_heard: list[int] = []
_watching = False


class Stopped(Exception):
    """The run was asked to stop, and has saved what it had.

    Attributes:
        code: what the shell expects of a process that this signal ended.
    """

    def __init__(self, number: int, where: str):
        self.code = 128 + number
        super().__init__(f"stopped by {signal.Signals(number).name} {where}")


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Within the block a first signal only sets a flag, if the run looks at it.

    A second one ends the process at once. Handlers are put back afterwards: notebooks
    and tests have their own. Outside the main thread Python allows none.
    """
    global _watching
    if _watching or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _hear) for number in _SIGNALS}
    _watching = True
    try:
        yield
    finally:
        _watching = False
        _heard.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def heard() -> int:
    """The signal that this process got, or 0."""
    return _heard[0] if _heard else 0


def look(where: str) -> None:
    """End the run if it was asked to, at a place where everything is saved.

    All processes must look at the same places.

    Raises:
        Stopped: a signal came.
    """
    stop(int(cluster.of_all(heard()).max()), where)


def stop(number: int, where: str) -> None:
    """End the run if ``number`` is a signal's.

    Raises:
        Stopped: it is.
    """
    if number:
        raise Stopped(number, where)


def _hear(number: int, _: FrameType | None) -> None:
    if _heard:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    _heard.append(number)
