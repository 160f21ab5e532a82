"""Compiled programs that the next process finds: JAX's cache, its entries checked.

JAX never writes over an entry. One that a kill cut short would be warned of, and its
program compiled, in every later run: so new entries are checked here. JAX's own limit
of their size needs filelock, and fails for good after a kill at the wrong moment.
"""

import contextlib
import os
import zlib
from pathlib import Path

MAX_BYTES = 2_000_000_000  # a study on digits takes some 20 MB
_ZSTD = b"\x28\xb5\x2f\xfd"  # first bytes of a frame of zstandard


def default_folder() -> Path | None:
    """Return JAX's own setting, else a folder of the user's cache.

    None where the home folder is unknown.
    """
    if chosen := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "snnjax", "compiled") if os.path.isabs(base) else None


def enable(folder: str | os.PathLike[str] | None = None) -> Path:
    """Keep compiled programs in a folder; call this before the first array.

    The next process that compiles the same program reads it from there: a training step
    of SEW-ResNet18 is compiled in seconds, and read in a fraction of one. The folder
    takes 2 GB at most; what was longest unused makes room, when this is called.

    Args:
        folder: created if it does not exist, for its owner alone: whoever may write
            there can make this process run any program. None is `default_folder`.

    Returns:
        The folder.

    Raises:
        ValueError: none is given, and there is no home folder.
        OSError: it cannot be written; programs are not kept.

    >>> from snnjax import compilation_cache
    >>> folder = compilation_cache.enable()  # doctest: +SKIP
    """
    folder = default_folder() if folder is None else Path(folder)
    if folder is None:
        raise ValueError("there is no home folder to keep programs in; give a folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    clean(folder)
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


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
    entries = {}
    for path in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process cleans too
            entries[path] = path.stat()
    used = {path: max(s.st_atime_ns, s.st_mtime_ns) for path, s in entries.items()}
    for path in sorted(entries, key=lambda path: used[path], reverse=True):
        max_bytes -= entries[path].st_size
        unchecked = entries[path].st_mtime_ns >= checked
        if max_bytes < 0 or (unchecked and not _is_complete(path)):
            path.unlink(missing_ok=True)
    os.replace(begun, mark)


def _is_complete(path: Path) -> bool:
    try:
        data = path.read_bytes()
        decompress = zlib.decompressobj()
        if data.startswith(_ZSTD):  # JAX uses it where it is installed
            import zstandard  # pyrefly: ignore[missing-import]

            decompress = zstandard.ZstdDecompressor().decompressobj()
        decompress.decompress(data)
    except ImportError:
        return True
    except Exception:  # each library has errors of its own
        return False
    return decompress.eof
