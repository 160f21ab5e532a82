"""Memory in pages of 2 MB instead of 4 kB, where glibc only needs to be told.

A training step takes hundreds of megabytes and gives them back at its end. glibc
returns them to the kernel, which hands them out anew page by page: 37,000 to 390,000
page faults a step, 15 to 30 % of its time. Where huge pages are left to the programs
(``madvise``), glibc asks for them if GLIBC_TUNABLES says so, and then the faults are
gone. It reads that once, as the process starts; so the command takes its own place,
with the same process id, arguments and open files.

GLIBC_TUNABLES=glibc.malloc.hugetlb=0 leaves all as it was.
"""

import contextlib
import os
import platform
import sys
from pathlib import Path

_SETTING = "glibc.malloc.hugetlb"
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use() -> None:
    """Start this command again with huge pages, where that helps; then not return."""
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if not (_is_command() and would_help(tunables)):
        return
    told = f"{tunables}:{_SETTING}=1".lstrip(":")
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(OSError):  # it runs without as well
        os.execve(
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            os.environ | {"GLIBC_TUNABLES": told},
        )


def would_help(tunables: str) -> bool:
    """Whether glibc and the kernel leave it to us, and nobody has chosen yet."""
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
    """Whether this process is ``python -m experiments...``, and no notebook or test."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name.split(".")[0] == __package__
