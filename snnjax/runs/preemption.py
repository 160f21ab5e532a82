"""Preemption: SIGTERM and SIGINT end a run at its next check, where all is saved.

Of several processes, a signal to one ends all at the same check.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from snnjax.runs import hosts

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_received: list[int] = []
_handling = False


class PreemptedError(Exception):
    """A signal asked the run to stop, and everything is saved.

    Attributes:
        code: exit code that the shell expects after this signal.
    """

    def __init__(self, number: int, where: str):
        self.code = 128 + number
        super().__init__(f"stopped by {signal.Signals(number).name} {where}")


@contextlib.contextmanager
def handle_signals() -> Iterator[None]:
    """Record the first signal within the block; a second one ends the process at once.

    The earlier handlers return with the end of the block: notebooks and tests have
    their own. Outside the main thread, where Python allows no handlers, and within
    another such block this does nothing.
    """
    global _handling
    if _handling or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _record) for number in _SIGNALS}
    _handling = True
    try:
        yield
    finally:
        _handling = False
        _received.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def received_signal() -> int:
    """Return the number of the signal that this process received, or 0."""
    return _received[0] if _received else 0


def raise_if_stopping(where: str, number: int | None = None) -> None:
    """Raise `PreemptedError` if any process received a signal.

    Args:
        where: place in the run, for the message: "before row 3".
        number: the signal that the processes have agreed on, 0 for none; None makes
            them agree, so all must call this at the same places.

    Raises:
        PreemptedError: a signal came.
    """
    if number is None:
        number = int(hosts.all_gather(received_signal()).max())
    if number:
        raise PreemptedError(number, where)


def _record(number: int, _: FrameType | None) -> None:
    if _received:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    _received.append(number)
