"""Provenance of results: versions of packages, the commit, the data."""

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import numpy as np

from snnjax.data import Dataset


def versions() -> dict[str, str]:
    """Return the versions of the packages that results depend on."""
    names = ("snnjax", "jax", "jaxlib", "flax", "optax", "numpy", "ott-jax")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}


def commit() -> str | None:
    """Return the commit of the code, with "+" if it was changed; None if unknown."""
    command = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    here = Path(__file__).parent
    try:
        found = subprocess.run(command, cwd=here, capture_output=True, text=True)
    except OSError:  # there is no git
        return None
    return found.stdout.strip() or None


def data_sum(*sets: Dataset) -> str:
    """Return a checksum of images and labels."""
    found = hashlib.sha256()
    for each in sets:
        for array in (each.images, each.labels):
            found.update(repr((array.shape, array.dtype.str)).encode())
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()[:16]
