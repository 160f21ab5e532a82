"""JSON lines and whole files: each is complete or absent, also after a kill."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from snnjax._paths import AnyPath, is_remote


def read(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a file; a last one without newline is skipped.

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
            raise line_error(path, number, f"JSON ({error})") from None
        if not isinstance(row, dict):
            raise line_error(path, number, "a JSON object")
        rows.append(row)
    return rows


def line_error(path: Path, number: int, expected: str) -> ValueError:
    """Return the error for a line that is not ``expected``."""
    return ValueError(
        f"{path} line {number} is not {expected}; remove that line and its row is "
        "computed again"
    )


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line, which is on the disk when this returns.

    Raises:
        OSError: it could not be written; the file is unchanged.
    """
    line = (json.dumps(row) + "\n").encode("utf-8")
    with add_filename(path), open(path, "ab", buffering=0) as file:
        before = file.tell()
        try:
            write_synced(file, line)
        except BaseException:
            # If this fails too, `drop_partial_line` cuts it when the run resumes.
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def write_file(path: AnyPath, data: bytes) -> AnyPath:
    """Write a file completely or not at all.

    Raises:
        OSError: it could not be written; an earlier file is unchanged.
    """
    if is_remote(path):  # an object of a bucket appears whole
        with add_filename(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return path
    # A name of its own: another process may write the same file.
    part = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        with add_filename(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "wb", buffering=0) as file:
                write_synced(file, data)
            os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    return path


def write_synced(file: BinaryIO, data: bytes) -> None:
    """Write ``data`` to an unbuffered file, and wait for the disk.

    A buffer would try again as the file is closed, after a partial write is cut.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


@contextlib.contextmanager
def add_filename(path: AnyPath) -> Iterator[None]:
    """Add the file's name to errors of the system, which writing does not know."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def drop_partial_line(path: Path) -> None:
    """Cut a last line without newline, which a kill during a write leaves."""
    if not path.exists():
        return
    written = path.read_bytes()
    end = written.rfind(b"\n") + 1
    if end != len(written):
        os.truncate(path, end)
