"""One pytree in a folder of its own, written completely or not at all."""

import os
import shutil
from pathlib import Path
from typing import TypeVar

import jax
import orbax.checkpoint as ocp

from snnjax._named_arrays import (
    difference,
    digests,
    drop_empty,
    find_choices,
    find_other_choice,
    indexed,
    unflatten,
)
from snnjax.runs._orbax_logging import TEMPORARY, describe_error, silence_orbax
from snnjax.runs.checkpoints import is_step

Tree = TypeVar("Tree")

_NEW, _OLD = ".snnjax-new", ".snnjax-old"
_WEIGHTS = ".safetensors"


def save(path: str | os.PathLike[str], tree: object) -> None:
    """Write the arrays of a pytree to the folder ``path``, replacing a checkpoint.

    A kill at any moment leaves the old one or the new: it is written to
    ``path.snnjax-new`` and renamed when complete, if need be by the next call. Of
    several processes only one calls this; it does not wait for others.

    Raises:
        ValueError: the folder holds something else, or the path ends in
            ``.safetensors`` (`checkpoint.export`), ``.snnjax-new`` or ``.snnjax-old``.
        OSError: it cannot be written; an earlier checkpoint is unchanged.
    """
    arrays = indexed(tree)
    if Path(path).suffix in (_WEIGHTS, _NEW, _OLD):
        raise ValueError(
            f"the folder of a checkpoint must not end in {Path(path).suffix}, "
            f"got {path}; "
            f"checkpoint.export writes {_WEIGHTS} files"
        )
    path, new = _commit_pending(path)
    _refuse_other(path)
    _remove_temporaries(new)
    about = {"crc32": digests(arrays), "choices": find_choices(tree)}
    try:
        with silence_orbax(), _checkpointer() as checkpointer:
            checkpointer.save(new, drop_empty(arrays), custom_metadata=about)
    except Exception as error:  # Orbax has no type of its own for a full disk
        _remove_temporaries(new)
        raise OSError(
            f"the checkpoint {path} was not written ({describe_error(error)}); make "
            "room or permit writing there, and save again"
        ) from None
    _commit_pending(path)


def _checkpointer() -> ocp.StandardCheckpointer:
    """Return a checkpointer of this process alone; the default waits for all."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"p{me}"
    )
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def exists(path: str | os.PathLike[str]) -> bool:
    """Return True if there is a checkpoint to `load`."""
    path, _ = _commit_pending(path)
    return _is_checkpoint(path)


def load(path: str | os.PathLike[str], like: Tree) -> Tree:
    """Load what `save` wrote.

    Args:
        path: the folder.
        like: a pytree of the same structure, shapes and dtypes; it is not changed.

    Raises:
        ValueError: no checkpoint, a corrupt one, or arrays of other number, shapes or
            dtypes.
    """
    path, _ = _commit_pending(path)
    if not path.is_dir():
        raise ValueError(f"there is no checkpoint at {path}")
    expected = indexed(like)
    stored = drop_empty(expected)
    with silence_orbax(), _checkpointer() as checkpointer:
        try:
            metadata = checkpointer.metadata(path)
            tree = getattr(metadata.item_metadata, "tree", None)
            what = difference(tree or {}, stored)
            arrays = {} if what else expected | checkpointer.restore(path, stored)
            about = metadata.custom_metadata or {}
            crcs, choices = about["crc32"], about.get("choices", {})
        except Exception as error:  # Orbax documents no type for a corrupt file
            raise _corrupt(path, describe_error(error)) from None
    if what:
        raise ValueError(
            f"the checkpoint {path} holds another network or an incomplete one: {what}"
        )
    if other := find_other_choice(choices, find_choices(like)):
        raise ValueError(f"the checkpoint {path} holds another network: {other}")
    if crcs != digests(arrays):
        raise _corrupt(path, "the checksum of an array is wrong")
    return unflatten(arrays, like, expected)


def _corrupt(path: Path, why: str) -> ValueError:
    return ValueError(
        f"the checkpoint {path} is corrupt ({why}); delete it, and save it again"
    )


def _remove_temporaries(new: Path) -> None:
    for left_by_a_kill in new.parent.glob(f"{new.name}{TEMPORARY}*"):
        shutil.rmtree(left_by_a_kill)


def remove(path: str | os.PathLike[str]) -> None:
    """Delete the folder of a checkpoint or of `RunCheckpoints`, if it exists.

    Raises:
        ValueError: it holds something else; it is unchanged.
    """
    path, _ = _commit_pending(path)
    if not (path.is_dir() and all(map(_is_of_run, path.iterdir()))):
        _refuse_other(path)
    if path.is_dir():
        # Renamed first: a kill would leave half of it, which is no checkpoint.
        path.rename(_sibling(path, _OLD))
    _commit_pending(path)


def _commit_pending(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Rename a complete ``path.snnjax-new`` to ``path``; return both paths.

    Orbax leaves no incomplete one. The old folder is renamed first, so that no kill
    leaves it half removed.
    """
    path = Path(path).absolute()
    new, old = _sibling(path, _NEW), _sibling(path, _OLD)
    if _is_checkpoint(new):
        _refuse_other(path)
        _remove(old)
        if path.is_dir():
            path.rename(old)
        new.rename(path)
    _remove(old)
    return path, new


def _sibling(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}{ending}")


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)


def _refuse_other(path: Path) -> None:
    """Raise ValueError if ``path`` holds anything but a checkpoint."""
    there = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if there and not _is_checkpoint(path):
        raise ValueError(f"{path} is no folder of a checkpoint; give another path")


def _is_checkpoint(path: Path) -> bool:
    return (path / "_CHECKPOINT_METADATA").is_file()


def _is_of_run(path: Path) -> bool:
    """Return True for a step's folder, or what a kill left of one."""
    return (path.name.isdecimal() and is_step(path)) or TEMPORARY in path.name
