"""This process on its machine: settings for training on a CPU, its programs.

A training step allocates up to hundreds of megabytes and frees them at its end. The C
library returns them to the kernel, which hands them out again page by page, filled with
zeros: 28,000 page faults a step of SEW-ResNet8 of width 16, a fifth of its time. Here
the C library keeps what is freed, and the kernel gives pages of 2 MB.

XLA's default scheduler starts any operation that is ready, which keeps more arrays
alive at a time (T = 4: 1.1, T = 16: 2.6 times as many bytes) and is no faster, since
each operation takes all cores.
"""

import ctypes
import os
import platform
import re
import sys
from pathlib import Path
from typing import NamedTuple

_SCHEDULER = "xla_cpu_enable_concurrency_optimized_scheduler"
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_REGIONS = Path("/proc/self/maps")
_MOST_REGIONS = Path("/proc/sys/vm/max_map_count")
_RESERVED = 8 * 2**30  # bytes of address space, at most
# Of malloc.h and sys/mman.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_MADV_HUGEPAGE = 14


class Settings(NamedTuple):
    """The settings that `tune` made; False where it could not, or is asked not to.

    Attributes:
        keeps_memory: freed memory stays with the process.
        huge_pages: memory comes in pages of 2 MB.
        sequential: XLA runs one operation after another, each on all cores.
    """

    keeps_memory: bool
    huge_pages: bool
    sequential: bool


def tune() -> Settings:
    """Set up this process for training on a CPU; call it before the first array.

    On Linux with glibc, freed memory stays with the process from then on: its size does
    not shrink. ``SNNJAX_KEEP_MEMORY=0`` in the environment leaves memory alone, and an
    ``XLA_FLAGS`` that has XLA's scheduler flag keeps it. Nothing is set once JAX has
    started its backend, whose threads have their memory by then.

    >>> from snnjax import process
    >>> settings = process.tune()  # in front of the program
    """
    if _backend_has_started():
        return Settings(False, False, False)
    keeps_memory = _keep_freed_memory()
    return Settings(
        keeps_memory, keeps_memory and _use_huge_pages(), _run_sequentially()
    )


def release_freed_memory() -> None:
    """Return to the kernel what is free now, as compiling leaves it.

    Worth it once, behind the first steps of a training loop: they leave a hole of the
    size of their arrays, which the next steps do not fill. `train.fit` and
    `train.steps` do it.
    """
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def drop_programs() -> bool:
    """Drop all compiled programs if they map half of the regions that Linux allows.

    A process of Linux maps 65,530 regions of memory at most (``vm.max_map_count``). A
    program that XLA compiled takes about 7 and stays for good, and where there is none
    left XLA ends the process ("Unable to allocate section memory"). A loop that trains
    or calibrates hundreds of networks of different shapes calls this between them; what
    is needed again is compiled again, or found in `compilation_cache`.

    Returns:
        True if they were dropped; False too where the system does not tell.

    >>> from snnjax import process
    >>> process.drop_programs()
    False
    """
    try:
        limit = int(_MOST_REGIONS.read_text("ascii"))
        number = _REGIONS.read_bytes().count(b"\n")
    except (OSError, ValueError):
        return False
    if number <= limit // 2:
        return False
    import jax

    jax.clear_caches()
    return True


def _is_glibc() -> bool:
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def _backend_has_started() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()


def _keep_freed_memory() -> bool:
    """Let malloc take all memory from one heap that never shrinks."""
    if os.environ.get("SNNJAX_KEEP_MEMORY") == "0" or not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # XLA's threads allocate too. A heap of their own could hold 64 MB at most, and
    # larger arrays would come fresh from the kernel.
    wanted = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_ARENA_MAX: 1}
    return all([mallopt(name, value) == 1 for name, value in wanted.items()])


def _use_huge_pages() -> bool:
    """Extend the heap by addresses, not by memory, and ask for huge pages there."""
    if not _HUGE_PAGES.exists() or "[never]" in _HUGE_PAGES.read_text("ascii"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = min(memory // 2, _RESERVED)
    start = libc.malloc(size)
    if start is None:  # a limit of the address space
        return False
    libc.free(start)
    page = os.sysconf("SC_PAGE_SIZE")
    first = -(-start // page) * page
    length = (start + size - first) // page * page
    return libc.madvise(first, length, _MADV_HUGEPAGE) == 0


def _run_sequentially() -> bool:
    flags = os.environ.get("XLA_FLAGS", "")
    found = re.search(rf"{_SCHEDULER}=(\w+)", flags)
    if found is None:
        os.environ["XLA_FLAGS"] = f"{flags} --{_SCHEDULER}=false".strip()
    return found is None or found[1].lower() in ("false", "0")
