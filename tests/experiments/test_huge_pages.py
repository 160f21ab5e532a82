"""Huge pages: when a command starts itself again, and that it stays the same."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import huge_pages

ROOT = Path(__file__).parents[2]
SETTING = "glibc.malloc.hugetlb"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine where they help; changed by what it is called with."""

    def change(system="linux", library=("glibc", "2.36"), kernel="always [madvise]"):
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(platform, "libc_ver", lambda: library)
        monkeypatch.setattr(huge_pages, "_KERNEL", tmp_path / "enabled")
        (tmp_path / "enabled").write_text(kernel)

    change()
    return change


@pytest.mark.parametrize(
    "changes",
    [
        dict(system="darwin"),
        dict(library=("glibc", "2.34")),
        dict(library=("", "")),
        dict(kernel="[always] madvise never"),
        dict(kernel="always madvise [never]"),
    ],
)
def test_only_where_they_help(machine, changes):
    assert huge_pages.would_help("")
    machine(**changes)
    assert not huge_pages.would_help("")


def test_who_has_chosen_is_left_alone(machine):
    assert huge_pages.would_help("glibc.malloc.arena_max=1")
    assert not huge_pages.would_help(f"glibc.malloc.arena_max=1:{SETTING}=0")


def test_a_kernel_without_them(machine, tmp_path):
    (tmp_path / "enabled").unlink()
    assert not huge_pages.would_help("")


def test_a_function_called_in_another_program_starts_nothing(machine, monkeypatch):
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("started again"))
    huge_pages.reexec_with_huge_pages()


# As `python -m experiments.probe` would be, on a machine where they help.
PROBE = """
import os, sys
from experiments import huge_pages
if __name__ == "__main__":
    huge_pages._KERNEL = __import__("pathlib").Path(sys.argv[1])
    print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[2:], flush=True)
    huge_pages.reexec_with_huge_pages()
    print(sys.stdin.read(), sys.flags.optimize, flush=True)
    sys.exit(7)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_command_starts_itself_again_once_and_stays_the_same(tmp_path):
    package = tmp_path / "experiments"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "huge_pages.py").symlink_to(ROOT / "experiments" / "huge_pages.py")
    (package / "probe.py").write_text(PROBE)
    (tmp_path / "enabled").write_text("always [madvise] never")
    command = [sys.executable, "-O", "-m", "experiments.probe"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "enabled"), "--tiny", "two words"],
        cwd=tmp_path,
        env=os.environ | {"GLIBC_TUNABLES": "glibc.malloc.check=0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    said, _ = process.communicate("given")
    arguments = "['--tiny', 'two words']"
    assert process.returncode == 7
    assert said.splitlines() == [
        f"{process.pid} glibc.malloc.check=0 {arguments}",
        f"{process.pid} glibc.malloc.check=0:{SETTING}=1 {arguments}",
        "given 1",
    ]
