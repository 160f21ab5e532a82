"""The folder of a run: an append-only table of rows, their arrays, and the config.

Rows are appended to ``results.jsonl`` when they are complete. Every other file is
written under a temporary name and renamed. So a run that is killed at any moment can be
started again with the same command, and resumes.
"""

import hashlib
import io
import json
import os
import weakref
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, TypeVar

import numpy as np
from jax.typing import ArrayLike

from snnjax._paths import require_local_path
from snnjax.runs import jsonl

try:
    import fcntl
except ImportError:  # Windows has no advisory locks: one process a folder there.
    fcntl = None

AnyStore = TypeVar("AnyStore", bound="Store")
Row = dict[str, Any]  # a JSON object of results

# Errors from reading a file of arrays that is cut short, altered or not one at all.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError),
    *(RuntimeError, zipfile.BadZipFile, zlib.error),
)


class MissingArraysError(ValueError):
    """The file of a row's arrays does not exist: a copy of the results, say."""


def config_hash(config: Mapping[str, Any]) -> str:
    """Return twelve hexadecimal digits of a config's JSON.

    >>> config_hash({"seed": 0, "width": 4}) == config_hash({"width": 4, "seed": 0})
    True
    """
    text = json.dumps(dict(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def compare_configs(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Describe the keys in which two configs differ; empty if they are equal."""
    return "; ".join(
        f"{key} is {theirs.get(key, 'not given')!r} there and "
        f"{ours.get(key, 'not given')!r} now"
        for key in sorted(set(theirs) | set(ours))
        # By JSON: there NaN is NaN.
        if (key in theirs) != (key in ours)
        or json.dumps(theirs[key]) != json.dumps(ours[key])
    )


class Store:
    """The folder of one run.

    ``Store.open`` creates or resumes it and locks it until it is closed or garbage
    collected; ``Store(path)`` reads. A row is a dict of JSON values; its name, which is
    unique and a file name, is ``row["name"]`` unless a subclass overrides `name_of`.

    Attributes:
        path: the folder.
        results: the file of the rows.

    >>> import tempfile
    >>> with Store.open(tempfile.mkdtemp(), {"seed": 0}) as store:
    ...     store.append({"name": "a", "accuracy": 0.5}, {"counts": np.arange(3)})
    ...     store.rows(), store.arrays("a")["counts"].tolist()
    ([{'name': 'a', 'accuracy': 0.5}], [0, 1, 2])
    """

    ARRAYS = "arrays"  # folder of the rows' arrays

    def __init__(self, path: str | os.PathLike[str]):
        self.path = require_local_path("path", path)
        self.results = self.path / "results.jsonl"
        self._unlock: weakref.finalize | None = None

    def name_of(self, row: Mapping[str, Any]) -> str:
        """Return the row's name.

        Raises:
            KeyError, TypeError, ValueError: it is not a row of such a run.
        """
        return row["name"]

    @classmethod
    def open(
        cls: type[AnyStore],
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        **info: Any,
    ) -> AnyStore:
        """Return a store that `start` has created or resumed, and locked."""
        store = cls(path)
        store.start(config, **info)
        return store

    def start(self, config: Mapping[str, Any], **info: Any) -> None:
        """Create the folder of a run, or resume the run in it; lock it.

        Args:
            config: what decides the results, as JSON values.
            info: more for ``config.json``. A value under ``data`` identifies the data.

        Raises:
            ValueError: the folder holds something else, a run of another config or on
                other data, or is in use by another process. Nothing is written then.
        """
        self._refuse_foreign(config, info)
        self.path.mkdir(parents=True, exist_ok=True)
        self.lock()
        # Another process may have created a run before we had the lock.
        self._refuse_foreign(config, info)
        # Partial files of a kill: a run with nothing left would not overwrite them.
        for part in (*self.path.glob("*.part"), *self.path.glob("*/*.part")):
            part.unlink()
        if not self._is_run():
            self.write_info(config, **info)
        jsonl.drop_partial_line(self.results)

    def close(self) -> None:
        """Release the lock."""
        if self._unlock is not None:
            self._unlock()

    def __enter__(self: AnyStore) -> AnyStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_run(self) -> bool:
        return (self.path / "config.json").exists()

    def _refuse_foreign(self, config: Mapping[str, Any], info: Mapping[str, Any]):
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; give a folder")
        if self._is_run():
            theirs = self.info()
            if theirs["config_hash"] != config_hash(config):
                different = compare_configs(theirs["config"], config)
                raise ValueError(
                    f"{self.path} holds a run of another config: {different}; give "
                    "another folder, or the same options"
                )
            if theirs.get("data") != info.get("data"):
                raise ValueError(
                    f"{self.path} holds a run on other data (checksum "
                    f"{theirs.get('data')} there, {info.get('data')} now); give the "
                    "same data, or another folder"
                )
        # A run killed before it wrote config.json may leave the lock and a part.
        elif any(
            path.name != ".lock" and not path.match("config.json*.part")
            for path in self.path.iterdir()
        ):
            raise ValueError(
                f"{self.path} is not empty and not a run folder (it has no "
                "config.json); give another folder"
            )

    def lock(self) -> None:
        """Lock the folder, which must exist, against other processes.

        Raises:
            ValueError: another process holds the lock.
        """
        if fcntl is None:
            return
        file = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        self._unlock = weakref.finalize(self, os.close, file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ValueError(
                f"another process is writing to {self.path}; wait for it, or give "
                "another folder"
            ) from None

    def info(self) -> dict[str, Any]:
        """Return the contents of ``config.json``.

        Raises:
            ValueError: there is none, or it is not a run's.
        """
        path = self.path / "config.json"
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            found = "is no run folder (it has no config.json)"
            found = found if self.path.exists() else "does not exist"
            raise ValueError(f"{self.path} {found}; give a run's folder") from None
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}; is this a run?") from None
        if not (
            isinstance(info, dict)
            and {"config", "config_hash"} <= set(info)
            and isinstance(info["config"], dict)
        ):
            raise ValueError(f"{path} is not a run's: it has no config and config_hash")
        return info

    def write_info(self, config: Mapping[str, Any], **info: Any) -> None:
        """Write ``config.json``: the config, its hash, and ``info``."""
        info = {"config": dict(config), "config_hash": config_hash(config), **info}
        self.write_text("config.json", json.dumps(info, indent=2) + "\n")

    def extend(self, config: Mapping[str, Any]) -> None:
        """Replace the config; rows of the earlier ones stay valid.

        The caller answers for it that they would be the same under the new one.
        """
        info = self.info()
        del info["config"]
        hashes = [*info.get("earlier_hashes", []), info.pop("config_hash")]
        if hashes[-1] != config_hash(config):
            info["earlier_hashes"] = list(dict.fromkeys(hashes))
            self.write_info(config, **info)

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a file completely or not at all.

        Raises:
            ValueError: ``name`` leads out of the folder.
            OSError: it could not be written; an earlier file is unchanged.
        """
        return jsonl.write_file(self._inside(name), data)

    def _inside(self, name: str) -> Path:
        """Return the path of ``name``, which may come from a file of somebody else."""
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise ValueError(
                f"{name!r} leads out of {self.path}; expected a file in it. If "
                f"{self.results} names it, remove that line"
            )
        return self.path / name

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file completely or not at all."""
        return self.write_bytes(name, text.encode("utf-8"))

    def rows(self) -> list[Row]:
        """Return the complete rows.

        Raises:
            ValueError: a line is not JSON, not a row of this run, or a row twice.
        """
        rows, names = jsonl.read(self.results), set()
        hashes = [None]
        if rows and self._is_run():
            info = self.info()
            hashes = [info["config_hash"], *info.get("earlier_hashes", [])]
        for number, row in enumerate(rows, 1):
            try:
                name = self.name_of(row)
            except (KeyError, TypeError, ValueError) as error:
                kind = f"a row ({error!r})"
                raise jsonl.line_error(self.results, number, kind) from None
            if row.get("config_hash", hashes[0]) not in hashes:
                kind = f"a row of this run: it is of config {row['config_hash']}"
                raise jsonl.line_error(self.results, number, kind)
            if name in names:
                kind = f"another row: {name} is there already"
                raise jsonl.line_error(self.results, number, kind)
            names.add(name)
        return rows

    def append(self, row: Mapping[str, Any], arrays: Mapping[str, ArrayLike]) -> None:
        """Add a complete row: its arrays first, then its line.

        Raises:
            ValueError: there is a row of its name; nothing is written.
        """
        name = self.name_of(row)
        path = self._inside(f"{self.ARRAYS}/{name}.npz")
        if path.exists() and any(self.name_of(old) == name for old in self.rows()):
            raise ValueError(f"{self.results} has a row {name} already")
        file, copies = io.BytesIO(), {name: np.asarray(x) for name, x in arrays.items()}
        np.savez_compressed(file, **copies)  # pyrefly: ignore[bad-argument-type]
        self.write_bytes(f"{self.ARRAYS}/{name}.npz", file.getvalue())
        jsonl.append(self.results, row)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return the arrays of the row ``name``.

        Raises:
            MissingArraysError: their file does not exist.
            ValueError: it is corrupt, or not in this folder.
        """
        path = self._inside(f"{self.ARRAYS}/{name}.npz")
        remedy = (
            f"delete it, and the line of {name} in {self.results}: that row is "
            "computed again"
        )
        if not path.exists():
            raise MissingArraysError(
                f"{path} cannot be read (it does not exist); {remedy}"
            )
        try:
            with zipfile.ZipFile(path) as file:
                if (broken := file.testzip()) is not None:
                    raise ValueError(f"the checksum of {broken} is wrong")
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except _UNREADABLE as error:
            raise ValueError(f"{path} cannot be read ({error}); {remedy}") from error
