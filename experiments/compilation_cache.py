"""Compiled programs are kept on disk, so that a run begun again need not compile.

JAX does this, given a folder. Its key holds the program, the versions, the flags and
the processor's features, so that machines may share a home. Two things are added:

- JAX writes an entry in place and never over another. One that a kill cut short would
  be warned of, and its program compiled anew, in every run to come: so what was
  written since the last start is checked here, and what is broken removed.
- JAX forgets nothing: here the entries that lay unused for longest make room.
"""

import contextlib
import os
import sys
import zlib
from pathlib import Path

import jax

ROOM = 2_000_000_000  # bytes; a study on digits takes some 20 MB
_ENTRIES = "*-cache"
_ZSTD = b"\x28\xb5\x2f\xfd"  # how a frame of zstandard begins


def usual_folder() -> Path | None:
    """JAX's own setting, else a folder of the user's cache; none without a home."""
    if chosen := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "snnjax", "compiled") if os.path.isabs(base) else None


def enable(folder: Path | None) -> None:
    """Keep compiled programs in ``folder``; to be called before the first array."""
    if folder is None:
        return
    try:
        # Whoever may write here may have this process run what he likes.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        clean(folder)
    except OSError as error:
        print(
            f"warning: {folder} cannot be written ({error.strerror}), so compiled "
            "programs are not kept; give another folder with --cache, or --cache None",
            file=sys.stderr,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def clean(folder: Path, room: int = ROOM) -> None:
    """Remove what is broken, and the longest unused where all is more than ``room``.

    Raises:
        OSError: the folder cannot be written.
    """
    mark = folder / ".checked"
    checked = mark.stat().st_mtime_ns if mark.exists() else 0
    # Before the check, by the files' clock: what is written meanwhile stays unchecked.
    begun = folder / f".checking-{os.getpid()}"
    begun.touch()
    found = []
    for path in folder.glob(_ENTRIES):
        with contextlib.suppress(FileNotFoundError):  # another process cleans as well
            found.append((path, path.stat()))
    found.sort(key=lambda f: max(f[1].st_atime_ns, f[1].st_mtime_ns), reverse=True)
    for path, status in found:
        room -= status.st_size
        unchecked = status.st_mtime_ns >= checked
        if room < 0 or (unchecked and not _whole(path)):
            path.unlink(missing_ok=True)
    os.replace(begun, mark)


def _whole(path: Path) -> bool:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    if data.startswith(_ZSTD):
        return _whole_zstd(data)
    decompress = zlib.decompressobj()
    try:
        decompress.decompress(data)
    except zlib.error:
        return False
    return decompress.eof


def _whole_zstd(data: bytes) -> bool:
    """JAX takes zstandard where that is installed, and its key says which it took."""
    try:
        import zstandard  # pyrefly: ignore[missing-import]
    except ImportError:
        return True
    decompress = zstandard.ZstdDecompressor().decompressobj()
    try:
        decompress.decompress(data)
    except zstandard.ZstdError:
        return False
    return decompress.eof
