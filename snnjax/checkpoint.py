"""Weights out and in: ``.safetensors`` files, and single pytrees in a folder.

`export` and `load` share weights with other programs; `save` and `load` keep any one
pytree. All are written completely or not at all, and nothing that is read is executed:
no file here is a pickle. For the checkpoints of a training run see `snnjax.runs`.
"""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax._named_arrays import (
    Arrays,
    difference,
    digests,
    flatten_dict,
    unflatten,
)
from snnjax._paths import AnyPath, as_absolute, as_path, is_remote
from snnjax.models import description
from snnjax.runs import jsonl
from snnjax.runs.checkpoints import (
    REMOVED,
    RunCheckpoints,
    check_only_checkpoints,
    latest_step,
    load_newest,
)
from snnjax.runs.checkpoints import remove as remove

Tree = TypeVar("Tree")

SUFFIX = ".safetensors"
# One entry of the file's metadata, as safetensors writes several in any order.
_ABOUT, _CRC = "snnjax", "crc32"
_HALF = "float16"  # names of arrays that were in float32


def export(
    path: str | os.PathLike[str],
    model: Any,
    config: Mapping[str, Any] | None = None,
    *,
    packed: bool = True,
    half: str | None = None,
) -> AnyPath:
    """Write all arrays of a network to a ``.safetensors`` file.

    Parameters, BatchNorm's statistics, quantizers and neuron constants, by names such
    as ``layer1.0.conv1.kernel``, with a checksum; and ``config`` to the same path
    with the ending ``.json``. Each file is written completely or not at all.

    A quantized kernel takes ``bits`` bits a weight, as codes by the name
    ``layer1.0.conv1.kernel.codes`` (`quantize.unpack` reads them). The network that
    `load` returns computes the same to the bit; the weights behind the levels, which
    further training would move, are in the file with ``packed=False`` only.

    Args:
        path: ends in ``.safetensors``; folders are created. Local, or ``gs://``,
            ``s3://`` where gcsfs, s3fs is installed.
        model: an nnx model, or a pytree.
        config: arguments that build the network, as JSON values. Without one an
            existing file of that name is unchanged.
        packed: write quantized kernels as codes.
        half: pattern of layers, as of `calibrate.quantize`: their kernels are rounded
            to float16, in half the room, and loaded as float32. Below 6e-8 they are 0.
            A threshold that is nearly reached may then be passed: measure what is
            loaded, accuracy and firing. Kernels that are packed stay codes.

    Returns:
        The path, a `pathlib.Path` or of a bucket an ``etils.epath.Path``.

    Raises:
        ValueError: another ending, a config that JSON cannot hold, a pattern that names
            no layer with a float32 kernel, or a number in one beyond float16.
        OSError: the disk is full, or permission is missing.
    """
    import safetensors.numpy

    path = _checked(path)
    files = {}
    if config is not None:
        try:
            text = json.dumps(dict(config), indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"config must hold JSON values: {error}") from None
        files[path.with_suffix(".json")] = f"{text}\n".encode()
    about, arrays = description.describe(model, packed=packed)
    if half is not None:
        rounded = _round_to_half(arrays, half)
        arrays, about = arrays | rounded, about | {_HALF: [*rounded]}
    about |= {_CRC: digests(arrays)}
    files[path] = safetensors.numpy.save(arrays, {_ABOUT: json.dumps(about)})
    for file, content in files.items():
        try:
            jsonl.write_file(file, content)
        except OSError as error:
            raise OSError(
                f"{file} could not be written ({error.strerror or error}); make room "
                "or permit writing there, and export again"
            ) from None
    return path


def save(path: str | os.PathLike[str], tree: object) -> None:
    """Write the arrays of a pytree to the folder ``path``, replacing a checkpoint.

    A kill at any moment leaves the old one or the new. Of several processes only one
    calls this; it does not wait for others.

    Raises:
        ValueError: the folder holds something else, or the path ends in
            ``.safetensors`` (`export`) or ``.snnjax-removed`` (`remove`).
        OSError: it cannot be written; an earlier checkpoint is unchanged.
    """
    path = as_absolute(as_path("path", path))
    if path.suffix in (SUFFIX, REMOVED):
        raise ValueError(
            f"the folder of a checkpoint must not end in {path.suffix}, got {path}; "
            f"export writes {SUFFIX} files"
        )
    check_only_checkpoints(path)
    with RunCheckpoints(path, keep=1) as checkpoints:
        checkpoints.save((checkpoints.latest or 0) + 1, tree)


def exists(path: str | os.PathLike[str]) -> bool:
    """Return True if there is a checkpoint to `load`."""
    path = as_path("path", path)
    return path.is_file() if path.suffix == SUFFIX else latest_step(path) is not None


def load(path: str | os.PathLike[str], like: Any = None) -> Any:
    """Load what `export` or `save` wrote, or a file of such names.

    A file of a network of `snnjax.models` describes it, so that the path is enough. A
    network that is given must have the choices of the file (grids, signs, sites,
    resets, connections), as far as the file has them.

    Args:
        path: a ``.safetensors`` file, or a folder.
        like: a pytree, or for a file an nnx model, of the same structure, shapes and
            dtypes, perhaps abstract (`nnx.eval_shape`); it is not changed. None, for
            a file alone, builds the network.

    Returns:
        The pytree, or the network, in evaluation mode.

    Raises:
        ValueError: no checkpoint, a corrupt one, arrays of other number, shapes or
            dtypes, a network of other choices (the first is named), a file without a
            description where none is given, or NaN or infinity in a file.
    """
    path = as_path("path", path)
    if path.suffix != SUFFIX:
        if like is None:
            raise ValueError("like must be a pytree for a folder, got None")
        return load_newest(path, like)
    arrays, about = _read(path)
    try:
        like = description.restore(about, arrays, like)
        tree = description.as_tree(like)
        expected = flatten_dict(tree)
        if what := difference(arrays, expected):
            raise ValueError(f"it holds another network: {what}")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for name, x in arrays.items():
        real = jnp.issubdtype(x.dtype, jnp.floating)
        if real and not np.isfinite(x.astype(np.float64)).all():
            raise ValueError(
                f"{path}: the array {name!r} has NaN or infinity; take weights from "
                "an earlier step"
            )
    state = unflatten(arrays, tree, expected)
    if isinstance(like, nnx.Module):
        model = nnx.merge(nnx.split(like)[0], state, copy=True)
        model.eval()
        return model
    return state


def config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the ``config`` that `export` was given.

    Raises:
        ValueError: its file does not exist, or is no JSON object.
    """
    beside = _checked(path).with_suffix(".json")
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{beside} does not exist; export the weights with a config"
        ) from None
    except ValueError as error:
        raise ValueError(f"{beside} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{beside} must hold a JSON object, got {found!r}")
    return found


def _round_to_half(arrays: Arrays, layers: str) -> Arrays:
    """Return the float32 kernels of the layers that a pattern names, in float16."""
    found = {}
    for name, x in arrays.items():
        layer, _, kind = name.rpartition(".")
        named = kind == "kernel" and re.fullmatch(layers, layer)
        if named and x.dtype == np.float32:
            with np.errstate(over="ignore"):
                found[name] = x.astype(np.float16)
            if (np.isinf(found[name]) & np.isfinite(x)).any():
                raise ValueError(
                    f"half={layers!r}: {name} has numbers beyond float16's 65,504; "
                    "leave that layer out"
                )
    if not found:
        raise ValueError(f"half={layers!r} names no layer with a float32 kernel")
    return found


def _checked(path: str | os.PathLike[str]) -> AnyPath:
    path = as_path("path", path)
    if path.suffix != SUFFIX:
        raise ValueError(f"the file must end in {SUFFIX}, got {path}")
    return path


def _read(path: AnyPath) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays, and the description if the file has one."""
    import safetensors

    try:
        with contextlib.ExitStack() as stack:
            local = path
            if is_remote(path):
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                local = Path(folder) / path.name
                local.write_bytes(path.read_bytes())
            file = stack.enter_context(safetensors.safe_open(local, "numpy"))
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(metadata.get(_ABOUT, "{}"))
        if not isinstance(about, dict):
            raise ValueError(f"its description is {about!r}")
        crcs, half = about.get(_CRC, {}), about.get(_HALF, [])
        if not isinstance(crcs, dict):
            raise ValueError(f"its checksums are {crcs!r}")
        if not isinstance(half, list) or not all(
            isinstance(x, str) and x in arrays and arrays[x].dtype == np.float16
            for x in half
        ):
            raise ValueError(f"the names of its arrays in float16 are {half!r}")
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} is no safetensors file, or a corrupt one ({error}); get or "
            "export the file again"
        ) from None
    found = digests(arrays)
    wrong = [name for name, crc in crcs.items() if found.get(name) != crc]
    if wrong:
        raise ValueError(
            f"{path} is corrupt: the checksum of {wrong[0]!r} is wrong; get or export "
            "the file again"
        )
    for name in half:
        arrays[name] = arrays[name].astype(np.float32)
    return arrays, about
