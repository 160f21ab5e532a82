"""A pytree as named arrays, which is how every file here holds it."""

import zlib
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from snnjax import _pytree

Tree = TypeVar("Tree")
Arrays = dict[str, np.ndarray]


def named(tree: Any) -> Arrays:
    """Leaves by the names that lead to them, as copies on the host."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    # Copies: a step may take the buffers while a thread still writes them.
    # In C's order: safetensors writes memory as it lies.
    found = {_pytree.leaf_name(path): np.array(x, order="C") for path, x in leaves}
    if len(found) != len(leaves):
        raise ValueError("two leaves of the tree have one name; name them apart")
    return found


def ordered(tree: Any) -> Arrays:
    """As `named`, each name behind its place."""
    return {f"{i:05} {name}": x for i, (name, x) in enumerate(named(tree).items())}


def with_elements(arrays: Arrays) -> Arrays:
    """Those that Orbax can hold; of the others shape and dtype are all there is."""
    return {name: x for name, x in arrays.items() if x.size}


def unnamed(arrays: Mapping[str, np.ndarray], like: Tree, names: Arrays) -> Tree:
    """The tree of ``like``'s structure, whose ``names`` these arrays have."""
    leaves = [arrays[name] for name in names]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def digests(arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """CRC-32 of each array's bytes."""
    return {name: _digest(x) for name, x in arrays.items()}


def _digest(x: np.ndarray) -> int:
    # Bytes, not values: a view that every dtype has, bfloat16 too.
    return zlib.crc32(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)


def shapes(arrays: Mapping[str, Any]) -> dict[str, tuple]:
    """Shape and dtype of each."""
    return {k: (tuple(a.shape), str(np.dtype(a.dtype))) for k, a in arrays.items()}


def difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """The first array that is not as expected, in words; None if all are."""
    found, expected = shapes(found), shapes(expected)
    for key in sorted(set(found) | set(expected)):
        if found.get(key) != expected.get(key):
            there, wanted = (
                "{1} {0}".format(*x[key]) if key in x else "not there"
                for x in (found, expected)
            )
            return f"the array {key!r} is {there}, expected {wanted}"
    return None
