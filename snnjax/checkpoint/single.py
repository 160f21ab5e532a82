"""One checkpoint in a folder of its own, written whole or not at all."""

import os
import shutil
from pathlib import Path
from typing import TypeVar

import jax
import orbax.checkpoint as ocp

from snnjax.checkpoint import weights
from snnjax.checkpoint.history import is_step
from snnjax.checkpoint.names import (
    difference,
    digests,
    ordered,
    unnamed,
    with_elements,
)
from snnjax.checkpoint.quiet import TEMPORARY, quietly, reason

Tree = TypeVar("Tree")

_NEW, _OLD = ".snnjax-new", ".snnjax-old"


def save(path: str | os.PathLike[str], tree: object) -> None:
    """Write the arrays of a pytree to the folder ``path``, in place of what is there.

    A kill at any moment leaves the old one or the new: it is written beside the folder,
    as ``path.snnjax-new``, and put in its place when complete, by the next call if need
    be. Of several processes one calls it, and waits for no other.

    Raises:
        ValueError: something else than a checkpoint is there, or a path that ends in
            ``.safetensors`` (`export`), ``.snnjax-new`` or ``.snnjax-old``.
        OSError: it cannot be written; what was there before still is.
    """
    arrays = ordered(tree)
    if Path(path).suffix in (weights.SUFFIX, _NEW, _OLD):
        raise ValueError(
            f"a checkpoint's folder has another ending, got {path}; `export` writes "
            f"{weights.SUFFIX} files"
        )
    path, new = _settle(path)
    _refuse_other(path)
    _remove_temporaries(new)
    about = {"crc32": digests(arrays)}
    try:
        with quietly(), _checkpointer() as checkpointer:
            checkpointer.save(new, with_elements(arrays), custom_metadata=about)
    except Exception as error:  # Orbax has no type of its own for a full disk
        _remove_temporaries(new)
        raise OSError(
            f"the checkpoint {path} could not be written ({reason(error)}); make room "
            "or permit writing there, and save again"
        ) from None
    _settle(path)


def _checkpointer() -> ocp.StandardCheckpointer:
    """Of this process alone; Orbax's own would wait until all processes save."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"p{me}"
    )
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a checkpoint to `load`."""
    path, _ = _settle(path)
    return _is_checkpoint(path) or (path.suffix == weights.SUFFIX and path.is_file())


def load(path: str | os.PathLike[str], like: Tree) -> Tree:
    """Read what `save` or `export` wrote.

    Args:
        path: the folder, or a ``.safetensors`` file.
        like: a pytree, or for a file an nnx model, of the same structure, shapes and
            dtypes; it is not changed.

    Raises:
        ValueError: nothing there, a damaged file, arrays of other number, shapes or
            dtypes, or in a ``.safetensors`` file NaN or infinity.
    """
    if Path(path).suffix == weights.SUFFIX:
        return weights.load(path, like)
    path, _ = _settle(path)
    if not path.is_dir():
        raise ValueError(f"there is no checkpoint at {path}")
    expected = ordered(like)
    stored = with_elements(expected)
    with quietly(), _checkpointer() as checkpointer:
        try:
            metadata = checkpointer.metadata(path)
            tree = getattr(metadata.item_metadata, "tree", None)
            what = difference(tree or {}, stored)
            arrays = {} if what else expected | checkpointer.restore(path, stored)
            # None in those written before there were checksums.
            crcs = (metadata.custom_metadata or {}).get("crc32")
        except Exception as error:  # what a damaged file makes Orbax raise is not told
            raise _damaged(path, reason(error)) from None
    if what:
        raise ValueError(
            f"the checkpoint {path} holds another network or an incomplete one: {what}"
        )
    if crcs is not None and crcs != digests(arrays):
        raise _damaged(path, "the checksum of an array does not fit")
    return unnamed(arrays, like, expected)


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(
        f"the checkpoint {path} is damaged ({why}); delete it, and make it again"
    )


def _remove_temporaries(new: Path) -> None:
    for left_by_a_kill in new.parent.glob(f"{new.name}{TEMPORARY}*"):
        shutil.rmtree(left_by_a_kill)


def remove(path: str | os.PathLike[str]) -> None:
    """Delete a checkpoint's folder, or a `History`'s, if there is one.

    Raises:
        ValueError: something else is there, which stays.
    """
    path, _ = _settle(path)
    if not (path.is_dir() and all(map(_is_of_history, path.iterdir()))):
        _refuse_other(path)
    if path.is_dir():
        # Away first: a kill would leave half of it, which is no checkpoint.
        path.rename(_beside(path, _OLD))
    _settle(path)


def _settle(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Put a complete ``path.snnjax-new`` in its place.

    Orbax leaves none that is not complete. What was there goes out of the way first, so
    that no kill finds it half removed.
    """
    path = Path(path).absolute()
    new, old = _beside(path, _NEW), _beside(path, _OLD)
    if _is_checkpoint(new):
        _refuse_other(path)
        _remove(old)
        if path.is_dir():
            path.rename(old)
        new.rename(path)
    _remove(old)
    return path, new


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}{ending}")


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)


def _refuse_other(path: Path) -> None:
    """Raise ValueError where something else than a checkpoint is in the way."""
    there = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if there and not _is_checkpoint(path):
        raise ValueError(f"{path} is no folder of a checkpoint; give another path")


def _is_checkpoint(path: Path) -> bool:
    return (path / "_CHECKPOINT_METADATA").is_file()


def _is_of_history(path: Path) -> bool:
    """A step, or what a kill left of one."""
    return (path.name.isdecimal() and is_step(path)) or TEMPORARY in path.name
