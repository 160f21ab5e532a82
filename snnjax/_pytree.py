"""Register dataclasses as pytrees (no validation on unflatten); format leaf paths."""

import copy
import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")

_REGISTERED: set[type] = set()


def register(cls: type, *, leaves_from_numbers: bool = False) -> None:
    """Register a dataclass; fields with ``metadata={"static": True}`` are static.

    With ``leaves_from_numbers`` Python numbers in it are float32 leaves.

    Like `jax.tree_util.register_dataclass`, but JAX rebuilds it without ``__init__``:
    transformations put placeholders, masks and shapes in place of numbers, and the
    checks there would refuse them.
    """
    _REGISTERED.add(cls)
    fields = dataclasses.fields(cls)
    data = [f.name for f in fields if not f.metadata.get("static")]
    static = [f.name for f in fields if f.metadata.get("static")]
    keys = [jax.tree_util.GetAttrKey(name) for name in data]

    def flatten(instance):
        leaves = [getattr(instance, name) for name in data]
        if leaves_from_numbers:
            leaves = [np.float32(x) if type(x) in (int, float) else x for x in leaves]
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


def check(instance: Any) -> None:
    """Raise ValueError as the constructor does, which rebuilding left out."""
    post_init = getattr(instance, "__post_init__", None)
    if post_init is not None:
        copy.copy(instance).__post_init__()


def is_registered(x: Any) -> bool:
    """Return True if ``x`` is an instance of a dataclass of `register`."""
    return type(x) in _REGISTERED


def data_fields(cls: type) -> list[str]:
    """Return the names of a registered dataclass's fields that are leaves."""
    fields = dataclasses.fields(cls)
    return [f.name for f in fields if not f.metadata.get("static")]


def static_fields(instance: Any) -> dict[str, Any]:
    """Return the static fields of a registered dataclass."""
    fields = dataclasses.fields(instance)
    static = [f.name for f in fields if f.metadata.get("static")]
    return {name: getattr(instance, name) for name in static}


def described_fields(kind: type, static: dict[str, Any]) -> dict[str, Any]:
    """Return the static fields that a description of an instance has.

    All but those with ``metadata={"later": True}`` that have their default: files that
    were written before there were such fields describe the same instance.
    """
    later = {
        f.name: f.default for f in dataclasses.fields(kind) if f.metadata.get("later")
    }
    return {
        name: x for name, x in static.items() if name not in later or x != later[name]
    }


def build(cls: type[T], fields: dict[str, Any]) -> T:
    """Return an instance with these fields, unchecked."""
    instance = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(instance, name, value)
    return instance


def replace(instance: T, **fields: object) -> T:
    """Copy a dataclass with other fields, without its checks."""
    new = copy.copy(instance)
    for name, value in fields.items():
        object.__setattr__(new, name, value)
    return new


def to_leaf(value: Any) -> Any:
    """Convert a user's number to a leaf that nobody else can write to.

    Python and NumPy numbers become float32 NumPy arrays, because a JAX array would
    start a JAX backend. NumPy arrays are copied: a later write would change every
    network made with it. JAX integers and weakly typed numbers become float32, because
    each dtype compiles its own program. Anything else is returned unchanged.
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


def format_path(path: tuple[Any, ...]) -> str:
    """Name of a leaf from its key path, such as ``"layer1.0.conv1.kernel"``.

    The ``.value`` of Flax variables is left out.
    """
    value = jax.tree_util.GetAttrKey("value")
    keys = tuple(key for key in path if key != value)
    return jax.tree_util.keystr(keys, simple=True, separator=".")
