"""Checkpoints on disk, written whole or not at all; the only user of Orbax."""

import os
import shutil
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

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
        checkpointer.save(new, _arrays(tree))
    _settle(path)


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a checkpoint to `load`."""
    path, _ = _settle(path)
    return path.is_dir()


def load(path: str | os.PathLike[str], like: Tree) -> Tree:
    """Read a pytree written by `save`.

    Args:
        path: its folder.
        like: a pytree of the same structure, shapes and dtypes.

    Raises:
        ValueError: nothing there, or arrays of other number, shapes or dtypes.
    """
    path, _ = _settle(path)
    if not path.is_dir():
        raise ValueError(f"there is no checkpoint at {path}")
    expected = _arrays(like)
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata
        found = {} if metadata is None else metadata.tree
        if _shapes(found) != _shapes(expected):
            raise ValueError(
                f"the checkpoint {path} holds another network or an incomplete one: "
                f"{_difference(_shapes(found), _shapes(expected))}"
            )
        arrays = checkpointer.restore(path, expected)
    leaves = [arrays[key] for key in sorted(arrays)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def remove(path: str | os.PathLike[str]) -> None:
    """Delete a checkpoint, if there is one."""
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


def _arrays(tree: object) -> dict[str, np.ndarray]:
    """Leaves by place and name: plain, whatever library made the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        f"{i:05} {jax.tree_util.keystr(path, simple=True, separator='.')}": np.asarray(
            x
        )
        for i, (path, x) in enumerate(leaves)
    }


def _shapes(arrays) -> dict[str, tuple]:
    return {k: (tuple(a.shape), str(np.dtype(a.dtype))) for k, a in arrays.items()}


def _difference(found: dict, expected: dict) -> str:
    for key in sorted(set(found) | set(expected)):
        if found.get(key) != expected.get(key):
            there, wanted = (
                "{1} {0}".format(*x[key]) if key in x else "not there"
                for x in (found, expected)
            )
            return f"the array {key!r} is {there}, expected {wanted}"
    return "no difference"
