"""Progress of a long run: a bar with the time left, and the time of compiling."""

import collections
import contextlib
import time
from collections.abc import Iterator

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

_COMPILED = "/jax/core/compile/backend_compile_duration"
_COMPILE_TIMES = "/jax/core/compile/"


class Compilations:
    """Counts what XLA compiles, by function and by what the study is doing.

    Attributes:
        label: what the study is doing now.
        counts: ``{function: {label: compilations}}`` of the train and eval steps.
        seconds: spent tracing, lowering and compiling, all functions together.
    """

    FUNCTIONS = ("train_step", "eval_step")

    def __init__(self):
        self.label = ""
        self.counts = {name: collections.Counter() for name in self.FUNCTIONS}
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._record)

    def _record(self, event: str, duration_secs: float, **details: str | int) -> None:
        if event.startswith(_COMPILE_TIMES):
            self.seconds += duration_secs
        if event == _COMPILED:
            for name in self.FUNCTIONS:
                if details.get("fun_name") in (name, f"jit({name})"):
                    self.counts[name][self.label] += 1


class Bar:
    """One progress bar for the whole run, in images that pass through the network.

    The description names what runs and, in training, loss and accuracy.
    """

    def __init__(self, progress: Progress, total: float):
        self._progress = progress
        self._task = progress.add_task("starting", total=total)
        self._refreshed = 0.0

    def set_description(self, text: str) -> None:
        """Set the text that tells what runs now."""
        self._progress.update(self._task, description=text)

    def advance(self, images: float) -> None:
        """Count images done."""
        self._progress.advance(self._task, images)

    def should_refresh(self) -> bool:
        """Return True if it is time to show new numbers: some four times a second."""
        now = time.monotonic()
        due = now - self._refreshed > 0.25
        self._refreshed = now if due else self._refreshed
        return due

    def print(self, line: str) -> None:
        """Print a line that stays, above the bar."""
        self._progress.console.print(
            line, highlight=False, markup=False, soft_wrap=True
        )


@contextlib.contextmanager
def show_bar(console: Console, total: float) -> Iterator[Bar]:
    """Show a bar until the block ends."""
    # Where there is no room the description is cut, not the times.
    text = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
        TextColumn("{task.description}", table_column=text),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, expand=True) as progress:
        yield Bar(progress, total)


def format_duration(seconds: float) -> str:
    """Format seconds in their largest unit.

    >>> format_duration(5400)
    '1.5 hours'
    """
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
