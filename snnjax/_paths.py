"""Paths of the local file system, and of buckets whose client is installed."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

# A pathlib.Path or, of a bucket, an etils.epath.Path, which has the same methods.
if TYPE_CHECKING:
    AnyPath = Path
else:
    AnyPath = Any


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


def as_path(name: str, path: str | os.PathLike[str]) -> AnyPath:
    """Return a local path, or Orbax's and TFDS's kind for a bucket: ``etils.epath``.

    Raises:
        ValueError: a scheme that etils does not know, or whose client (gcsfs for
            ``gs://``, s3fs for ``s3://``) is not installed.
    """
    text = os.fspath(path)
    if not is_remote(text):
        return Path(path)
    from etils import epath

    try:
        found = epath.Path(text)
        found.exists()
    except (ImportError, KeyError, NotImplementedError) as error:
        raise ValueError(
            f"{name} must be a local path, or of a bucket whose client is installed, "
            f"got {text!r} ({error}); install it, mount the bucket, or copy the files "
            "from and to it"
        ) from None
    return found  # pyrefly: ignore[bad-return]


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Return True for a path with a scheme."""
    return "://" in os.fspath(path)


def as_absolute(path: AnyPath) -> AnyPath:
    """Return a local path as an absolute one; others are."""
    return path if is_remote(path) else path.absolute()
