"""Serve commands: a worker runs one for each line of stdin."""

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

READY = "ready"
Commands = dict[str, Callable[[], object]]


def serve(make: Callable[[dict[str, Any]], Commands]) -> None:
    """Answer each command on stdin with the seconds and bytes that it took.

    Bytes are the peak of this process's memory meanwhile, less what it had before
    ``make``; where there is no /proc they are left out. What compiling and warming up
    left free is given back after the first command.

    Args:
        make: from the specification, the program's one argument, to functions that
            return when the work is done.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not pass for an answer
    before = _bytes("VmRSS")
    commands = make(json.loads(sys.argv[1]))
    print(READY, file=answers, flush=True)
    for turn, line in enumerate(sys.stdin):
        if turn == 1:
            _trim_memory()
        _reset_peak()
        start = time.perf_counter()
        commands[line.strip()]()
        answer: dict[str, float] = {"seconds": time.perf_counter() - start}
        peak = _bytes("VmHWM")
        if before is not None and peak is not None:
            answer["bytes"] = peak - before
        print(json.dumps(answer), file=answers, flush=True)


def _bytes(name: str) -> int | None:
    if sys.platform != "linux":
        return None
    with open("/proc/self/status") as status:
        return next(int(li.split()[1]) * 1024 for li in status if li.startswith(name))


def _trim_memory() -> None:
    """Have the allocator return what is free, where it can (glibc)."""
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)


def _reset_peak() -> None:
    """Reset the peak (VmHWM) to the memory in use."""
    if sys.platform == "linux":
        with open("/proc/self/clear_refs", "w") as clear:
            clear.write("5")
