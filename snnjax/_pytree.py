"""Dataclasses as pytrees, rebuilt without a second look; the names of leaves."""

import copy
import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")


def register(cls: type) -> None:
    """Register a dataclass; fields with ``metadata={"static": True}`` are static.

    As `jax.tree_util.register_dataclass`, but JAX rebuilds it without ``__init__``: it
    puts placeholders, masks and shapes where numbers were, and those would not pass.
    """
    fields = dataclasses.fields(cls)
    data = [f.name for f in fields if not f.metadata.get("static")]
    static = [f.name for f in fields if f.metadata.get("static")]
    keys = [jax.tree_util.GetAttrKey(name) for name in data]

    def flatten(instance):
        leaves = [getattr(instance, name) for name in data]
        return leaves, tuple(getattr(instance, name) for name in static)

    def flatten_with_keys(instance):
        leaves, rest = flatten(instance)
        return list(zip(keys, leaves, strict=True)), rest

    def unflatten(rest, leaves):
        instance = object.__new__(cls)
        for name, value in zip((*data, *static), (*leaves, *rest), strict=True):
            object.__setattr__(instance, name, value)
        return instance

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


def replace(instance: T, **fields: object) -> T:
    """A copy with other fields, unchecked."""
    new = copy.copy(instance)
    for name, value in fields.items():
        object.__setattr__(new, name, value)
    return new


def own_number(value: Any) -> Any:
    """What a user gave for a leaf, as a leaf of ours alone.

    Numbers become float32 arrays of NumPy, since making them must not start a JAX
    backend; NumPy's arrays are copied, or writing to one would change every network
    that was made of it. JAX's integers and weakly typed numbers become float32 too:
    they would be compiled for anew. All else stays as it is.
    """
    if isinstance(value, (int, float, np.number)):
        return np.asarray(value, np.float32)
    if isinstance(value, np.ndarray):
        whole = not np.issubdtype(value.dtype, np.inexact)
        return np.array(value, np.float32 if whole else value.dtype)
    if isinstance(value, jax.Array) and (
        value.weak_type or jnp.issubdtype(value.dtype, jnp.integer)
    ):
        return jax.lax.convert_element_type(value, jnp.float32)
    return value


def leaf_name(path: tuple[Any, ...]) -> str:
    """Of a leaf, by the keys that lead to it: ``"layer1.0.conv1.kernel"``.

    Flax's variables hold their arrays as ``.value``, which nobody needs to read.
    """
    value = jax.tree_util.GetAttrKey("value")
    keys = tuple(key for key in path if key != value)
    return jax.tree_util.keystr(keys, simple=True, separator=".")
