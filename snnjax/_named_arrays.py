"""Pytrees as dicts of named arrays, the form in which files hold them."""

import zlib
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import _pytree

Tree = TypeVar("Tree")
Arrays = dict[str, np.ndarray]


def flatten_dict(tree: Any) -> Arrays:
    """Return the leaves by name, as copies on the host.

    Raises:
        ValueError: two leaves have one name.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    # Copies: a step may take the buffers while a thread still writes them.
    # In C order: safetensors writes the memory as it is.
    found = {
        _pytree.format_path(path): np.array(_plain(x), order="C") for path, x in leaves
    }
    if len(found) != len(leaves):
        raise ValueError(
            "two leaves of the tree have one name; give them different names"
        )
    return found


def find_choices(tree: Any) -> dict[str, Any]:
    """Return what is static in a tree, by path, as JSON values.

    The static fields of registered dataclasses, and the metadata of variables.
    """

    def is_node(x):
        return _pytree.is_registered(x) or hasattr(x, "get_metadata")

    found = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_node):
        if _pytree.is_registered(x):
            static = _pytree.described_fields(type(x), _pytree.static_fields(x))
            static = {name: str(value) for name, value in static.items()}
            found[_pytree.format_path(path)] = str({"kind": type(x).__name__} | static)
        elif choices := getattr(x, "get_metadata", dict)().get("choices"):
            found[_pytree.format_path(path)] = choices
    return found


def find_other_choice(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """Name the first of `find_choices` that differs; None if there is none."""
    for name in sorted(there.keys() & here.keys()):
        if there[name] != here[name]:
            return f"{name or 'the tree'} has {there[name]} there and {here[name]} here"
    return None


def unflatten(arrays: Mapping[str, np.ndarray], like: Tree, names: Arrays) -> Tree:
    """Return a tree of ``like``'s structure; ``names`` are its leaves' in order.

    Its leaves are JAX's, and NumPy's, which keep float64, where ``like`` has such.
    """
    old, structure = jax.tree.flatten(like)
    leaves = [_as_given(arrays[k], x) for k, x in zip(names, old, strict=True)]
    return jax.tree.unflatten(structure, leaves)


def _as_given(x: np.ndarray, like: Any) -> Any:
    if isinstance(like, np.ndarray):
        return x
    if isinstance(like, np.generic):
        return x[()]
    if isinstance(like, bool | int | float):  # JAX's would be of 32 bits
        return x.item()
    array = jnp.asarray(x)
    return (
        jax.random.wrap_key_data(array, impl=_key_impl(like))
        if _is_key(like)
        else array
    )


def _is_key(x: Any) -> bool:
    dtype = getattr(x, "dtype", None)
    return dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def _key_impl(x: Any) -> Any:
    """Return the kind of a random key, or of one that is only a shape."""
    found = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), x)
    return found[0]


def _plain(x: Any) -> Any:
    """Return the numbers of a random key, zeros of a shape; others unchanged."""
    if isinstance(x, jax.ShapeDtypeStruct):
        x = jax.eval_shape(jax.random.key_data, x) if _is_key(x) else x
        return np.broadcast_to(np.zeros((), x.dtype), x.shape)
    return jax.random.key_data(x) if _is_key(x) else x


def digests(arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Return the CRC-32 of each array's bytes."""
    # Bytes, not values: a view that every dtype has, bfloat16 too.
    plain = {k: np.ascontiguousarray(x).reshape(-1) for k, x in arrays.items()}
    return {name: zlib.crc32(x.view(np.uint8).data) for name, x in plain.items()}


def difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """Describe the first array of another shape or dtype; None if there is none."""
    for key in sorted(set(found) | set(expected)):
        there, wanted = (
            f"{np.dtype(x[key].dtype)} {tuple(x[key].shape)}" if key in x else "missing"
            for x in (found, expected)
        )
        if there != wanted:
            return f"the array {key!r} is {there}, expected {wanted}"
    return None
