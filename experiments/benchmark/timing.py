"""Measure functions that do the same work, in turn."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Generator
from typing import Any

Measures = dict[str, float]  # a name that ends in seconds or bytes, and how many
Work = dict[str, Callable[[], Measures]]
Samples = dict[str, dict[str, list[float]]]  # by measure, then by row


class WorkerCrashedError(ValueError):
    """A worker's process stopped; the message has the reason."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A table: rows that do the same work; others are set against the first."""

    title: str
    work: Work
    measures: tuple[str, ...] = ("seconds",)
    most: int | None = None
    """Runs, at most."""


Comparisons = Generator[Comparison, None, None]


def make_timer(**functions: Callable[[], Any]) -> Callable[[], Measures]:
    """Return a function that times each of these, under its name.

    >>> list(make_timer(seconds=lambda: None)())
    ['seconds']
    """

    def run() -> Measures:
        measures = {}
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            measures[name] = time.perf_counter() - start
        return measures

    return run


def measure(comparison: Comparison, runs: int) -> tuple[Samples, list[str]]:
    """Return samples of each row, and the reasons for missing rows.

    The first turn (starting, compiling, warming) does not count. A row whose contender
    stops is left out; the others continue.
    """
    work, died = dict(comparison.work), []
    samples: Samples = {name: {row: [] for row in work} for name in comparison.measures}
    for turn in range(min(runs, comparison.most or runs) + 1):
        for row, do in list(work.items()):
            try:
                measures = do()
            except WorkerCrashedError as error:
                died.append(str(error))
                del work[row]
                for of_rows in samples.values():
                    del of_rows[row]
                continue
            if turn:
                for name, of_rows in samples.items():
                    of_rows[row].append(measures[name])
    return samples, died


def take_medians(samples: Samples) -> dict[str, dict[str, float]]:
    """Return the median of each row's samples."""
    return {
        name: {row: statistics.median(values) for row, values in of_rows.items()}
        for name, of_rows in samples.items()
    }
