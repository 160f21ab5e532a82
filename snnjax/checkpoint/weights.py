"""Weights as ``.safetensors``, with the network's configuration beside them."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax.checkpoint.names import Arrays, difference, digests, named, unnamed
from snnjax.checkpoint.quiet import reason

Tree = TypeVar("Tree")

SUFFIX = ".safetensors"
_CRC = "snnjax_crc32"  # in the file's metadata


def export(
    path: str | os.PathLike[str], model: Any, config: Mapping[str, Any] | None = None
) -> Path:
    """Write all arrays of a network to a file that other programs read too.

    Parameters, BatchNorm's statistics, quantizers and neuron constants, by names such
    as ``layer1.0.conv1.kernel``, with a checksum; and ``config`` beside it, as ``path``
    with the ending ``.json``. Each file is written whole or not at all.

    Args:
        path: ends in ``.safetensors``; folders are made.
        model: an nnx model, or a pytree.
        config: what is needed to build the network again, as JSON values. Without one
            a file of that name stays as it is.

    Returns:
        The path.

    Raises:
        ValueError: another ending, or a config that JSON cannot hold.
        OSError: no room, or no permission.
    """
    import safetensors.numpy

    path = _checked(path)
    try:
        text = (
            None
            if config is None
            else json.dumps(dict(config), indent=2, allow_nan=False)
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"config must hold JSON values: {error}") from None
    arrays = named(_tree(model))
    about = {_CRC: json.dumps(digests(arrays))}
    if text is not None:
        _write(path.with_suffix(".json"), f"{text}\n".encode())
    _write(path, safetensors.numpy.save(arrays, about))
    return path


def load(path: str | os.PathLike[str], like: Tree) -> Tree:
    """Read what `export` wrote, or a file of such names, into ``like``'s structure."""
    path = _checked(path)
    arrays, crcs = _read(path)
    found = digests(arrays)
    wrong = [name for name, crc in crcs.items() if found.get(name) != crc]
    if wrong:
        raise ValueError(
            f"{path} is damaged: the checksum of {wrong[0]!r} does not fit; get the "
            "file again, or make it again"
        )
    tree = _tree(like)
    expected = named(tree)
    if what := difference(arrays, expected):
        raise ValueError(f"{path} holds another network: {what}")
    for name, x in arrays.items():
        real = jnp.issubdtype(x.dtype, jnp.floating)
        if real and not np.isfinite(x.astype(np.float64)).all():
            raise ValueError(
                f"{path}: the array {name!r} has NaN or infinity; take weights from "
                "before that happened"
            )
    state = unnamed(arrays, tree, expected)
    # A NumPy array stays one: JAX would make float32 of its float64.
    as_given = lambda x, old: jnp.asarray(x) if isinstance(old, jax.Array) else x  # noqa: E731
    state = jax.tree.map(as_given, state, tree)
    if isinstance(like, nnx.Module):
        return nnx.merge(nnx.split(like)[0], state, copy=True)
    return state


def config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `export` was given as ``config``.

    Raises:
        ValueError: it is not there, or no JSON object.
    """
    beside = _checked(path).with_suffix(".json")
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{beside} is not there; export the weights with a config"
        ) from None
    except ValueError as error:
        raise ValueError(f"{beside} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{beside} must hold a JSON object, got {found!r}")
    return found


def _tree(model: Any) -> Any:
    return nnx.split(model)[1] if isinstance(model, nnx.Module) else model


def _checked(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"the file must end in {SUFFIX}, got {path}")
    return path


def _read(path: Path) -> tuple[Arrays, dict[str, int]]:
    """The arrays, and their checksums where the file has them."""
    import safetensors

    try:
        with safetensors.safe_open(path, "numpy") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        crcs = json.loads(about.get(_CRC, "{}"))
        if not isinstance(crcs, dict):
            raise ValueError(f"its checksums are {crcs!r}")
        return arrays, crcs
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} is no safetensors file, or a damaged one ({error}); get the file "
            "again, or make it again"
        ) from None


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({reason(error)}); make room or permit "
            "writing there, and export again"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
