"""Orbax's errors in one sentence, and its log lines filtered."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator

TEMPORARY = ".orbax-checkpoint-tmp"


@contextlib.contextmanager
def silence_orbax() -> Iterator[None]:
    """Drop Orbax's log lines within the block: what it logs it raises as well."""

    def not_orbax(line: logging.LogRecord) -> bool:
        return f"{os.sep}orbax{os.sep}" not in line.pathname

    logger = logging.getLogger("absl")
    logger.addFilter(not_orbax)
    try:
        yield
    finally:
        logger.removeFilter(not_orbax)


def describe_error(error: BaseException) -> str:
    """Return an error's describe_error in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    if code := re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(int(code.group(1)))
    line = " ".join(text.split()).rstrip(".") or type(error).__name__
    return line if len(line) <= 200 else f"{line[:200]}..."
