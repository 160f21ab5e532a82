"""One checkpoint in a folder of its own, written whole or not at all."""

import os
import shutil
from pathlib import Path
from typing import TypeVar

import orbax.checkpoint as ocp

from snnjax.checkpoint import weights
from snnjax.checkpoint.names import difference, ordered, unnamed

Tree = TypeVar("Tree")


def save(path: str | os.PathLike[str], tree: object) -> None:
    """Write the arrays of a pytree to the folder ``path``, in place of what is there.

    A kill at any moment leaves the old one or the new: it is written beside the folder,
    as ``path.new``, and put in its place when complete, by the next call if need be.
    """
    path, new = _settle(path)
    for left_by_a_kill in path.parent.glob(f"{new.name}.orbax-checkpoint-tmp*"):
        shutil.rmtree(left_by_a_kill)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(new, ordered(tree))
    _settle(path)


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a checkpoint to `load`."""
    path, _ = _settle(path)
    return path.is_dir() or (path.suffix == weights.SUFFIX and path.is_file())


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
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata
        found = {} if metadata is None else metadata.tree
        if what := difference(found, expected):
            raise ValueError(
                f"the checkpoint {path} holds another network or an incomplete one: "
                f"{what}"
            )
        try:
            arrays = checkpointer.restore(path, expected)
        except (ValueError, OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise ValueError(
                f"the checkpoint {path} is damaged ({reason}); delete it, and make it "
                "again"
            ) from error
    return unnamed(arrays, like, expected)


def remove(path: str | os.PathLike[str]) -> None:
    """Delete a checkpoint, or a `History`, if there is one."""
    path, _ = _settle(path)
    if path.is_dir():
        shutil.rmtree(path)


def _settle(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Put a complete ``path.new`` in its place; Orbax leaves none that is not."""
    path = Path(path).absolute()
    new = path.with_name(f"{path.name}.new")
    if new.is_dir():
        if path.is_dir():
            shutil.rmtree(path)
        new.rename(path)
    return path, new
