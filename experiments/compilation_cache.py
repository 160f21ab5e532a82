"""The persistent compilation cache of JAX for commands, with its entries checked.

JAX writes an entry in place and never over another. One that a kill cut short would be
warned of, and its program compiled, in every later run: so entries written since the
last start are checked here, and broken ones removed. So are the least recently used
beyond `MAX_BYTES`. JAX's own limit (``jax_compilation_cache_max_size``) needs filelock,
and after a kill between an entry and its time stamp it writes no entry any more.
"""

import contextlib
import os
import sys
import zlib
from pathlib import Path

MAX_BYTES = 2_000_000_000  # a study on digits takes some 20 MB
_ZSTD = b"\x28\xb5\x2f\xfd"  # first bytes of a frame of zstandard


def default_folder() -> Path | None:
    """Return JAX's own setting, else a folder of the user's cache, or None."""
    if chosen := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "snnjax", "compiled") if os.path.isabs(base) else None


def enable(folder: Path | None) -> None:
    """Keep compiled programs in ``folder``; call this before the first array."""
    if folder is None:
        return
    try:
        # Whoever may write here can make this process run any program.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        clean(folder)
    except OSError as error:
        print(
            f"warning: {folder} cannot be written ({error.strerror}), so compiled "
            "programs are not kept; give another folder with --cache, or --cache None",
            file=sys.stderr,
        )
        return
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def clean(folder: Path, max_bytes: int = MAX_BYTES) -> None:
    """Remove broken entries written since the last call, and the least recently used.

    Raises:
        OSError: the folder cannot be written.
    """
    mark = folder / ".checked"
    checked = mark.stat().st_mtime_ns if mark.exists() else 0
    # Before the check, by the files' clock: what is written meanwhile stays unchecked.
    begun = folder / f".checking-{os.getpid()}"
    begun.touch()
    found = []
    for path in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process cleans too
            status = path.stat()
            used = max(status.st_atime_ns, status.st_mtime_ns)
            found.append((used, path, status))
    for _, path, status in sorted(found, reverse=True):
        max_bytes -= status.st_size
        unchecked = status.st_mtime_ns >= checked
        if max_bytes < 0 or (unchecked and not _is_complete(path)):
            path.unlink(missing_ok=True)
    os.replace(begun, mark)


def _is_complete(path: Path) -> bool:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    if not data.startswith(_ZSTD):
        decompress, errors = zlib.decompressobj(), zlib.error
    else:  # JAX compresses with zstandard where that is installed
        try:
            import zstandard  # pyrefly: ignore[missing-import]
        except ImportError:
            return True
        decompress = zstandard.ZstdDecompressor().decompressobj()
        errors = zstandard.ZstdError
    try:
        decompress.decompress(data)
    except errors:
        return False
    return decompress.eof
