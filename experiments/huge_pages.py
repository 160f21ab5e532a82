"""Transparent huge pages (2 MB instead of 4 kB) for commands on Linux.

A training step allocates hundreds of megabytes and frees them at its end. glibc returns
them to the kernel, which maps them again page by page: 37,000 to 390,000 page faults a
step, 15 to 30 % of its time. Where the kernel leaves huge pages to the programs
(``madvise``), glibc requests them if GLIBC_TUNABLES says so. It reads that once, as the
process starts; so the command re-executes itself, with the same process id, arguments
and open files.

GLIBC_TUNABLES=glibc.malloc.hugetlb=0 disables it.
"""

import contextlib
import os
import platform
import sys
from pathlib import Path

_SETTING = "glibc.malloc.hugetlb"
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def reexec_with_huge_pages() -> None:
    """Re-execute this command with huge pages if that helps; then never return."""
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if not (_is_command() and would_help(tunables)):
        return
    setting = f"{tunables}:{_SETTING}=1".lstrip(":")
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(OSError):  # it runs without them too
        os.execve(
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            os.environ | {"GLIBC_TUNABLES": setting},
        )


def would_help(tunables: str) -> bool:
    """Return True if glibc and the kernel leave the choice to the program."""
    library, version = platform.libc_ver()
    return (
        sys.platform == "linux"
        and library == "glibc"
        and tuple(int(part) for part in version.split(".")[:2]) >= (2, 35)
        and _SETTING not in tunables
        and _KERNEL.exists()
        and "[madvise]" in _KERNEL.read_text(encoding="ascii")
    )


def _is_command() -> bool:
    """Return True for ``python -m experiments...``, False for a notebook or test."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name.split(".")[0] == __package__
