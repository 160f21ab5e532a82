"""Files of recordings: .npz that any simulator can write, see docs/recordings.md."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from snnjax import _checks
from snnjax.firing.counts import FiringCounts, check_comparable

OBSERVATIONS = "__observations__"
GROUPS = "__groups__."
GROUP_OBSERVATIONS = "__group_observations__"
INPUTS_ID = "__inputs_id__"


def save_counts(counts: FiringCounts, path: str | os.PathLike) -> None:
    """Write counts to a ``.npz`` file, as docs/recordings.md describes it.

    Args:
        counts: of one recording.
        path: file to write, or to replace once all is written.

    Raises:
        ValueError: no ``FiringCounts``, counts that are traced or out of range, a layer
            whose name is kept for the format.
    """
    check_comparable(counts)
    reserved = [name for name in counts.spikes if str(name).startswith("__")]
    if reserved:
        raise ValueError(f"layers must not start with __, got {reserved}; rename them")
    arrays = {name: np.asarray(each) for name, each in counts.spikes.items()}
    arrays[OBSERVATIONS] = np.asarray(counts.observations)
    if counts.groups is not None:
        for name, each in counts.groups.items():
            arrays[GROUPS + name] = np.asarray(each)
        arrays[GROUP_OBSERVATIONS] = np.asarray(counts.group_observations)
    if counts.inputs_id is not None:
        arrays[INPUTS_ID] = np.asarray(counts.inputs_id)
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        # Not np.savez: it takes a layer called "file" for its own argument.
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_counts(path: str | os.PathLike) -> FiringCounts:
    """Read counts from a ``.npz`` file of `save_counts` or of another simulator.

    Whole numbers that are stored as floating point, as MATLAB does, are taken.

    Args:
        path: the file. Nothing in it is executed: pickled objects are refused.

    Returns:
        `FiringCounts`, with groups and ``inputs_id`` where the file has them.

    Raises:
        ValueError: one sentence with the path and what is wrong with the file.
    """
    arrays = _read(Path(path))
    try:
        return _assemble(arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for entry in archive.infolist():
                with archive.open(entry) as file:
                    name = entry.filename.removesuffix(".npy")
                    arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # of zip, zlib or NumPy: whatever a broken file causes
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            reason = "it has pickled objects, which are not read; store integer arrays"
        else:
            reason = f"it is no whole .npz file ({str(error).splitlines()[0]})"
        raise ValueError(f"{path}: {reason}") from None
    return arrays


def _assemble(arrays: Mapping[str, np.ndarray]) -> FiringCounts:
    if OBSERVATIONS not in arrays:
        raise ValueError(
            f"it has no {OBSERVATIONS}, time steps x inputs, got "
            f"{_checks.format_value(sorted(arrays))}"
        )
    special = {OBSERVATIONS, GROUP_OBSERVATIONS, INPUTS_ID}
    spikes, groups = {}, {}
    for name, array in arrays.items():
        if name.startswith(GROUPS):
            groups[name.removeprefix(GROUPS)] = _as_whole(name, array)
        elif name not in special:
            if name.startswith("__"):
                raise ValueError(f"{name} is no field of the format")
            spikes[name] = _as_whole(name, array)
    observations = _as_whole(OBSERVATIONS, arrays[OBSERVATIONS])
    if observations.size != 1:
        raise ValueError(
            f"{OBSERVATIONS} must be one number, got shape {observations.shape}"
        )
    sizes = arrays.get(GROUP_OBSERVATIONS)
    if sizes is not None:
        sizes = np.ravel(_as_whole(GROUP_OBSERVATIONS, sizes))
    inputs_id = arrays.get(INPUTS_ID)
    if inputs_id is not None:
        if inputs_id.size != 1 or inputs_id.dtype.kind not in "iuU":
            raise ValueError(
                f"{INPUTS_ID} must be one string or integer, got "
                f"{inputs_id.dtype} of shape {inputs_id.shape}"
            )
        inputs_id = inputs_id.item()
    counts = FiringCounts(
        spikes, int(observations.item()), groups or None, sizes, inputs_id
    )
    check_comparable(counts)
    return counts


def _as_whole(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        if not np.all(np.isfinite(array)) or np.any(array != np.floor(array)):
            raise ValueError(f"{name} must be whole numbers, got {array.dtype} others")
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got {array.dtype}")
    return array
