"""Files of integer networks: a zip of ``.npy`` arrays and one JSON text.

The arrays are whole numbers but for the layers in full precision at the two ends. The
JSON says what each is for. A table of whole numbers, ``program``, says the same to a
reader without a JSON parser: see docs/integer.md. Nothing that is read is executed.
"""

import dataclasses
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from snnjax.integer import border
from snnjax.integer.network import (
    IntegerNetwork,
    Layer,
    Neurons,
    Operation,
    accumulator_range,
)

SCHEMA, VERSION = "snnjax.integer", 1
JSON_NAME = "network.json"
# Codes of kinds and sites in the program.
KINDS = ("layer", "add", "and", "iand", "max_pool", "sum_pool", "flatten")
_JOINS = ("add", "and", "iand")
SITES = ("none", "post_reset", "pre_fire")
_COLUMNS = (
    *("kind", "first", "second", "window", "window_wide", "stride", "stride_wide"),
    *("pad", "pad_wide", "groups", "fires", "soft", "site", "low", "high", "half"),
    *("table", "per_position"),
)
_BORDERS = {"pixels": border.Pixels, "float_layer": border.FloatLayer}
_INTEGERS = ("codes", "table", "shift", "bias")
_OF_NEURONS = ("threshold", "reset", "leak", "step")
# What a part raises that is not as `save` wrote it: RuntimeError has the zip's
# encryption and compressions of others, and too deep a JSON.
_DAMAGES = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError),
    *(TypeError, ValueError, struct.error),
)
_DATE = (2020, 1, 1, 0, 0, 0)  # of a zip's members, so that equal files are equal


def save(network: IntegerNetwork, path: str | os.PathLike[str]) -> Path:
    """Write a network to an ``.npz`` file, completely or not at all.

    Raises:
        ValueError: a path of another ending.
        OSError: the disk is full, or permission is missing.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {path}")
    arrays: dict[str, np.ndarray] = {}
    described = _describe(network, arrays)
    arrays["program"] = make_program(network)
    for name, array in network.example.items():
        arrays[f"example.{name}"] = array
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(beside, "w") as file:
            # The text first, so that a look into the file shows what it is.
            _write(file, JSON_NAME, json.dumps(described, indent=1).encode())
            for name, array in arrays.items():
                _write(file, f"{name}.npy", _to_npy(array))
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def _write(file: zipfile.ZipFile, name: str, content: bytes) -> None:
    file.writestr(zipfile.ZipInfo(name, _DATE), content)


def _to_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    np.lib.format.write_array(buffer, little, allow_pickle=False)
    return buffer.getvalue()


def _describe(network: IntegerNetwork, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the JSON values, and put the arrays under their names."""
    kind = next(k for k, cls in _BORDERS.items() if isinstance(network.border, cls))
    nodes = []
    for node in network.nodes:
        if isinstance(node, Operation):
            nodes.append(dataclasses.asdict(node))
            continue
        entry = {"kind": "layer", **_fields(node, node.name, arrays)}
        del entry["neurons"]
        entry["units"] = entry.pop("unit")
        if node.neurons is not None:
            entry["neurons"] = _fields(node.neurons, node.name, arrays)
        low, high = network.ranges[node.source]
        entry["accumulator"] = accumulator_range(node, low, high)
        nodes.append(entry)
    readout = network.readout
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "rules": {
            "fires": "at the threshold or above",
            "shift right": "rounds to the nearest, half up",
            "leak": "(v - rest) * leak >> 15, rounded down",
            "membrane": "saturates at its width",
            "level": "the nearest; a tie to the even code, mid-rise up",
        },
        "timesteps": network.timesteps,
        "membrane_bits": network.membrane_bits,
        "most_positions": network.most_positions,
        "has_positions": network.has_positions,
        "ranges": network.ranges,
        "border": {"kind": kind, **_fields(network.border, "border", arrays)},
        "nodes": nodes,
        "readout": readout and _fields(readout, "readout", arrays),
    }


def _fields(part: Any, name: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return a part's fields; arrays by the name under which they are stored."""
    found = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if field.name == "unit":
            value = value.tolist()
        elif isinstance(value, np.ndarray):
            stored = f"{name}.{field.name}"
            arrays[stored] = value
            value = {"array": stored}
        elif dataclasses.is_dataclass(value):
            value = None
        found[field.name] = value
    return found


def make_program(network: IntegerNetwork) -> np.ndarray:
    """Return the nodes as rows of whole numbers, for readers without JSON.

    The columns are ``kind, first, second, window, window_wide, stride, stride_wide,
    pad, pad_wide, groups, fires, soft, site, low, high, half, table, per_position``.
    Sources are numbers of nodes, from 1; the border is 0. The first row is of the
    network: ``timesteps, membrane_bits, 1 if the border is one image for all steps``.
    """
    numbers = {network.border.name: 0}
    image = network.example and network.example["input"].ndim == 4
    rows = [[network.timesteps, network.membrane_bits, int(bool(image))]]
    for i, node in enumerate(network.nodes, start=1):
        row = dict.fromkeys(_COLUMNS, 0)
        if isinstance(node, Layer):
            sources, window, n = (node.source,), node.codes.shape[:2], node.neurons
            row |= {"groups": node.groups, "fires": int(n is not None)}
            row["table"] = int(node.table is not None)
            row["per_position"] = int(n is None and network.most_positions > 0)
            if n is not None:
                row |= {"soft": int(n.soft), "site": SITES.index(n.site)}
                row |= {"low": n.low, "high": n.high, "half": int(n.half)}
            kind = "layer"
        else:
            sources, window, kind = node.sources, node.window, node.kind
        row["kind"] = KINDS.index(kind)
        row |= dict(
            zip(("first", "second"), (numbers[s] for s in sources), strict=False)
        )
        for names, values in (
            (("window", "window_wide"), window),
            (("stride", "stride_wide"), node.strides),
            (("pad", "pad_wide"), node.padding),
        ):
            row |= dict(zip(names, values, strict=False))
        rows.append(list(row.values()))
        numbers[node.name] = i
    width = len(_COLUMNS)
    return np.array([row + [0] * (width - len(row)) for row in rows], np.int32)


def load(path: str | os.PathLike[str]) -> IntegerNetwork:
    """Read a network that `save` wrote. Needs no JAX.

    Raises:
        ValueError: no such file, a damaged or foreign one, a newer version, or numbers
            that the network's own rules forbid.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"path must be a file that is there, no file {path}")
    try:
        with zipfile.ZipFile(path) as file:
            members = {name: file.read(name) for name in file.namelist()}
        described = json.loads(members.pop(JSON_NAME))
    except (*_DAMAGES, zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
        reason = f"it is no integer network, or damaged ({_first_line(error)})"
        raise _refusal(path, reason) from None
    if not isinstance(described, dict) or described.get("schema") != SCHEMA:
        raise _refusal(path, f"its {JSON_NAME} is not of schema {SCHEMA}")
    if described.get("version") != VERSION:
        found = described.get("version")
        raise _refusal(path, f"it is of version {found}, and this reads {VERSION}")
    try:
        arrays = {
            name.removesuffix(".npy"): _from_npy(content)
            for name, content in members.items()
        }
        return _build(described, arrays)
    except _DAMAGES as error:
        reason = f"its parts do not fit: {_first_line(error)}"
        raise _refusal(path, reason) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _refusal(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} cannot be read: {reason}")


def _from_npy(content: bytes) -> np.ndarray:
    buffer = io.BytesIO(content)
    array = np.lib.format.read_array(buffer, allow_pickle=False)
    if buffer.read(1):
        raise ValueError("an array has bytes behind its end")
    return array


def _build(described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]):
    """Return the network; raise for whatever its rules forbid."""
    nodes: list[Layer | Operation] = []
    for entry in described["nodes"]:
        entry = dict(entry)
        if entry["kind"] != "layer":
            _require(entry["kind"] in KINDS, f"kind {entry['kind']!r} is unknown")
            nodes.append(Operation(**_tuples(entry)))
            continue
        del entry["kind"], entry["accumulator"]
        entry["unit"] = np.array(entry.pop("units"), np.float64)
        neurons = entry.pop("neurons", None)
        if neurons is not None:
            neurons = Neurons(**_take(neurons, arrays, _OF_NEURONS))
        nodes.append(Layer(**_take(entry, arrays, _INTEGERS), neurons=neurons))
    start = dict(described["border"])
    cls = _BORDERS[start.pop("kind")]
    readout = described["readout"]
    network = IntegerNetwork(
        border=cls(**_take(start, arrays, ("multiplier", "offset"))),
        nodes=tuple(nodes),
        readout=readout and border.FloatReadout(**_take(readout, arrays, ())),
        timesteps=_whole(described["timesteps"], 1, 2**31),
        membrane_bits=_whole(described["membrane_bits"], 8, 31),
        most_positions=_whole(described["most_positions"], 0, 2**31),
        has_positions=described["has_positions"] is True,
        example={
            name.removeprefix("example."): array
            for name, array in arrays.items()
            if name.startswith("example.")
        },
    )
    _check(network)
    program = make_program(network)
    _require(
        np.array_equal(arrays["program"], program), "the program is of another network"
    )
    return network


def _take(entry, arrays, integers) -> dict[str, Any]:
    """Return fields with their arrays; those named must be whole numbers."""
    found = {}
    for name, value in _tuples(entry).items():
        if isinstance(value, dict):
            array = arrays[value["array"]]
            kinds = "iu" if name in integers else "f"
            _require(array.dtype.kind in kinds, f"{value['array']} is {array.dtype}")
            if kinds == "f":
                _require(np.isfinite(array).all(), f"{value['array']} is not finite")
            value = array
        found[name] = value
    return found


def _tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}


def _whole(value: Any, least: int, end: int) -> int:
    _require(
        type(value) is int and least <= value < end, f"{value!r} is out of its range"
    )
    return value


def _check(network: IntegerNetwork) -> None:
    """Raise ValueError unless every node can run and no sum overflows."""
    there = {network.border.name}
    for node in network.nodes:
        is_layer = isinstance(node, Layer)
        sources = (node.source,) if is_layer else node.sources
        expected = 1 if is_layer or node.kind not in _JOINS else 2
        _require(len(sources) == expected and there.issuperset(sources), node.name)
        sizes = (*node.strides, *node.padding, *(() if is_layer else node.window))
        _require(all(type(n) is int and 0 <= n < 2**15 for n in sizes), node.name)
        _require(min(node.strides, default=1) >= 1, f"strides of {node.name}")
        if is_layer:
            _check_layer(node, network)
        there.add(node.name)
    if network.readout is not None:
        _require(network.readout.source in there, "what the last layer reads")
    else:
        last = network.nodes[-1]
        _require(isinstance(last, Layer) and last.neurons is None, "the last layer")


def _check_layer(layer: Layer, network: IntegerNetwork) -> None:
    name, channels = layer.name, layer.codes.shape[-1]
    _require(layer.codes.ndim == 4 and layer.groups >= 1, f"codes of {name}")
    _require(channels % layer.groups == 0, f"groups of {name}")
    each = {"shift": layer.shift, "bias": layer.bias}
    n = layer.neurons
    if n is not None:
        each |= {key: getattr(n, key) for key in _OF_NEURONS[:3]}
        _require(n.site in SITES and (n.site == "none") == (n.step is None), name)
        if n.step is not None:
            each["step"] = n.step
            _require((n.step >= 2).all() and (n.step % 2 == 0).all(), f"step of {name}")
        _require(((n.leak >= 0) & (n.leak < 2**15)).all(), f"leak of {name}")
    for key, array in each.items():
        fits = array.shape == (channels,) and array.dtype.itemsize <= 4
        _require(fits, f"{key} of {name} is {array.dtype} {array.shape}")
    _require((np.abs(layer.shift) <= 30).all(), f"shift of {name}")
    if layer.table is not None:
        _require(
            layer.codes.dtype == np.uint8 and layer.codes.max() < len(layer.table),
            f"codes of {name} are beyond its table",
        )
    low, high = accumulator_range(layer, *network.ranges[layer.source])
    _require(low > -(2**30) and high < 2**30, f"sums of {name} overflow")


def _require(condition: Any, message: str) -> None:
    if not condition:
        raise ValueError(message)
