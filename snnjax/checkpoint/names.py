"""A pytree as named arrays, which is how every file here holds it."""

import zlib
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import _pytree

Tree = TypeVar("Tree")
Arrays = dict[str, np.ndarray]


def named(tree: Any) -> Arrays:
    """Leaves by the names that lead to them, as copies on the host."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    # Copies: a step may take the buffers while a thread still writes them.
    # In C's order: safetensors writes memory as it lies.
    plain = ((_pytree.leaf_name(path), _plain(x)) for path, x in leaves)
    found = {name: np.array(x, order="C") for name, x in plain}
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
    old, structure = jax.tree.flatten(like)
    leaves = [
        jax.random.wrap_key_data(jnp.asarray(arrays[name]), impl=jax.random.key_impl(x))
        if _is_key(x)
        else arrays[name]
        for name, x in zip(names, old, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


def _is_key(x: Any) -> bool:
    dtype = getattr(x, "dtype", None)
    return dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def _plain(x: Any) -> Any:
    """A random key as the numbers it is made of."""
    return jax.random.key_data(x) if _is_key(x) else x


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
