"""The process's settings: memory that stays, and what is left alone."""

import os
import platform
import subprocess
import sys

import jax
import pytest

from snnjax import process

needs_glibc = pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="needs glibc"
)

# 64 MB are 16,384 pages of 4 kB, which a program takes from the kernel one by one.
PROGRAM = """
import resource, threading
from snnjax import process
settings = process.tune()

def count_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def fill():
    b"x" * 2**26

fill()
begun = count_faults()
for _ in range(4):
    fill()
thread = threading.Thread(target=fill)
thread.start()
thread.join()
print(*settings, count_faults() - begun, __import__("os").environ.get("XLA_FLAGS"))
"""


def run(program, **environment):
    keep = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS",)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=keep | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@needs_glibc
def test_freed_memory_is_used_again():
    keeps, _, sequential, faults, flags = run(PROGRAM)
    assert (keeps, sequential) == ("True", "True")
    assert int(faults) < 4000
    assert flags == "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def test_memory_is_left_alone_if_asked():
    keeps, huge, _, faults, _ = run(PROGRAM, SNNJAX_KEEP_MEMORY="0")
    assert (keeps, huge) == ("False", "False")
    if sys.platform == "linux":
        assert int(faults) > 4000


def test_the_users_scheduler_stays():
    flag = "--xla_cpu_enable_concurrency_optimized_scheduler=true"
    *_, sequential, _, flags = run(PROGRAM, XLA_FLAGS=flag)
    assert (sequential, flags) == ("False", flag)


def test_nothing_is_set_once_jax_has_begun():
    program = """
import jax
jax.devices()
from snnjax import process
print(*process.tune(), process._backend_has_started())
"""
    assert run(program) == ["False", "False", "False", "True"]


@pytest.mark.parametrize(
    ("limit", "regions", "dropped"), [(10, 6, True), (10, 5, False), (None, 99, False)]
)
def test_programs_are_dropped_where_regions_run_out(
    limit, regions, dropped, tmp_path, monkeypatch
):
    for name, text in (("_MOST_REGIONS", limit), ("_REGIONS", "a region\n" * regions)):
        path = tmp_path / name
        monkeypatch.setattr(process, name, path)
        if text is not None:
            path.write_text(f"{text}")
    cleared = []
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(True))
    assert process.drop_programs() is dropped
    assert len(cleared) == dropped


@pytest.mark.parametrize("kernel", [None, "always madvise [never]"])
def test_huge_pages_are_asked_for_only_where_the_kernel_has_them(
    kernel, tmp_path, monkeypatch
):
    switch = tmp_path / "enabled"
    if kernel is not None:
        switch.write_text(kernel)
    monkeypatch.setattr(process, "_HUGE_PAGES", switch)
    monkeypatch.setattr(process.ctypes, "CDLL", None)  # no call of the C library
    assert process._use_huge_pages() is False
