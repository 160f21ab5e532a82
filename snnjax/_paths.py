"""Paths: of the local file system alone, where files are renamed and locked."""

import os
from pathlib import Path


def require_local_path(name: str, path: str | os.PathLike[str]) -> Path:
    """Return ``path``; raise ValueError if it has a scheme, as ``gs://`` of a bucket.

    Such a path would be a folder of that name in the working directory.
    """
    text = os.fspath(path)
    if "://" in text:
        raise ValueError(
            f"{name} must be a local path, got {text!r}; mount the bucket, or copy "
            "the files from and to it"
        )
    return Path(path)
