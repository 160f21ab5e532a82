"""A file of rows, a JSON object a line: a line is there whole or not at all."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from experiments.common import Row


def read(path: Path) -> list[Row]:
    """The whole lines of a results file; one that is half written is not among them.

    Raises:
        ValueError: a line is not a JSON object.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError as error:
            raise no_row(path, number, f"JSON ({error})") from None
        if not isinstance(row, dict):
            raise no_row(path, number, "a JSON object")
        rows.append(row)
    return rows


def no_row(path: Path, number: int, what: str) -> ValueError:
    return ValueError(
        f"{path} line {number} is not {what}; remove that line and its row is computed "
        "again"
    )


def append(path: Path, row: Row) -> None:
    """Add a line that is on the disk when this returns.

    Raises:
        OSError: it could not be written; the file is as it was.
    """
    line = (json.dumps(row) + "\n").encode("utf-8")
    with naming(path), open(path, "ab", buffering=0) as results:
        before = results.tell()
        try:
            write(results, line)
        except BaseException:
            # What cannot be cut now is cut when the run is taken up.
            with contextlib.suppress(OSError):
                results.truncate(before)
            raise


def write(file: BinaryIO, data: bytes) -> None:
    """Write ``data`` to an unbuffered file, and wait for the disk.

    A buffer would try again as the file is closed, after what was written is cut.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """The system's errors tell which file it was about; writing does not know it."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def drop_half_line(path: Path) -> None:
    """Cut what a kill in the middle of a write left behind the last line."""
    if not path.exists():
        return
    written = path.read_bytes()
    end = written.rfind(b"\n") + 1
    if end != len(written):
        os.truncate(path, end)
