"""Compiled programs on disk: found by the next process, and whole."""

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from experiments.command_line import keep_compiled
from snnjax import compilation_cache

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, jax
from snnjax import compilation_cache
compilation_cache.enable(sys.argv[1])
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
print(jax.jit(lambda x: 3 * x)(2.0))
for event in ("hits", "misses"):
    print(event, sum(e.endswith(f"/cache_{event}") for e in events))
"""


def ran(folder: Path) -> tuple[str, str]:
    """What a process of its own prints, and its warnings."""
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def entries(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*-cache")}


def entry(folder: Path, name: str, data: bytes, when: int = 0) -> Path:
    path = folder / f"{name}-cache"
    path.write_bytes(data)
    if when:
        os.utime(path, (when, when))
    return path


@pytest.mark.slow
def test_the_next_process_finds_it_and_what_a_kill_cut_short_is_made_again(tmp_path):
    folder = tmp_path / "new" / "compiled"
    assert ran(folder) == ("6.0\nhits 0\nmisses 1\n", "")
    ((name, whole),) = entries(folder).items()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert ran(folder) == ("6.0\nhits 1\nmisses 0\n", "")
    (folder / name).write_bytes(whole[: len(whole) // 2])
    assert ran(folder) == ("6.0\nhits 0\nmisses 1\n", "")
    assert list(entries(folder)) == [name]
    assert zlib.decompress(entries(folder)[name])
    assert ran(folder) == ("6.0\nhits 1\nmisses 0\n", "")


@pytest.mark.parametrize("bad", [b"", b"garbage", zlib.compress(b"a" * 999)[:-1]])
def test_what_is_broken_goes_and_what_is_whole_stays(tmp_path, bad):
    good = entry(tmp_path, "good", zlib.compress(b"program"))
    broken = entry(tmp_path, "broken", bad)
    other = tmp_path / "not-an-entry"
    other.write_bytes(b"garbage")
    compilation_cache.clean(tmp_path)
    assert good.exists()
    assert other.exists()
    assert not broken.exists()


def test_only_what_was_written_since_the_last_check_is_read(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        compilation_cache, "_is_complete", lambda path: read.append(path.name) or True
    )
    entry(tmp_path, "first", b"", when=1_000_000_000)
    compilation_cache.clean(tmp_path)
    assert read == ["first-cache"]
    entry(tmp_path, "second", b"")
    compilation_cache.clean(tmp_path)
    assert read == ["first-cache", "second-cache"]
    assert {path.name for path in tmp_path.iterdir()} == {
        *("first-cache", "second-cache", ".checked")
    }


def test_the_longest_unused_make_room(tmp_path):
    size = len(zlib.compress(b"0"))
    for number in range(5):
        entry(tmp_path, str(number), zlib.compress(b"0"), when=1_000_000_000 + number)
    compilation_cache.clean(tmp_path, max_bytes=2 * size)
    assert set(entries(tmp_path)) == {"3-cache", "4-cache"}


def test_a_folder_that_cannot_be_written_is_one_warning_of_a_command(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        compilation_cache.enable(tmp_path / "file")
    keep_compiled(tmp_path / "file")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path / 'file'} cannot be written")
    assert "--cache None" in line


def test_without_a_home_a_folder_is_asked_for(monkeypatch):
    monkeypatch.setattr(compilation_cache, "default_folder", lambda: None)
    with pytest.raises(ValueError, match="no home folder"):
        compilation_cache.enable()


def test_the_default_folder_is_the_users(monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert compilation_cache.default_folder() == Path("/cache/snnjax/compiled")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert compilation_cache.default_folder() == Path("/home/me/.cache/snnjax/compiled")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    assert compilation_cache.default_folder() == Path("mine")
