"""A study's run folder: the only state a study has.

Rows are appended to ``results.jsonl`` when they are complete, everything else is
written beside the target and renamed over it, so that a run killed at any moment
can be started again with the same command and goes on where it was.
"""

import contextlib
import io
import json
import os
import weakref
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from experiments import results_file
from experiments.common import Row, StudyConfig
from experiments.provenance import versions
from experiments.rows import row_name
from snnjax.firing import FiringCounts

try:
    import fcntl
except ImportError:  # Windows has no advisory locks; one process a folder then.
    fcntl = None

_LATENCY = "latency/"  # before the layer's name, in the file of its spike counts
# What a run killed before its config.json was written may leave behind.
_FIRST = {".lock", "config.json.part"}
# What reading a file of arrays raises when it is cut short, altered or not one at all.
_DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError),
    *(RuntimeError, zipfile.BadZipFile, zlib.error),
)


class Lost(ValueError):
    """The firing of a row is not there: a copy of the results, say."""


class Fired(NamedTuple):
    """What is kept of a row's firing.

    Attributes:
        counts: spike counts of each layer.
        latencies: ``{layer: int32 [neurons...]}``, steps before the first spike, summed
            over images.
    """

    counts: FiringCounts
    latencies: Mapping[str, ArrayLike]


class RunFolder:
    """The folder of one study: config, rows, spike counts, checkpoints, report.

    Made by ``RunFolder.open`` it is locked, until it is closed or forgotten; made by
    ``RunFolder(path)`` it is there to be read.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.results = self.path / "results.jsonl"
        self._unlock: weakref.finalize | None = None

    @classmethod
    def open(cls, config: StudyConfig, data: str | None = None) -> "RunFolder":
        """Create the folder of ``config``, or take up the run that is in it.

        Args:
            config: of the run.
            data: `data_sum` of what it is trained and evaluated on.

        Raises:
            ValueError: the folder holds something else, a run of another config or on
                other data, or is in use by another process. Nothing is written then.
        """
        if config.out is None:
            raise ValueError("the config has no run folder; resolve() gives it one")
        run = cls(config.out)
        run._refuse_foreign(config, data)
        run.path.mkdir(parents=True, exist_ok=True)
        run.lock()
        # Again: another process may have made its run here before we had the lock.
        run._refuse_foreign(config, data)
        # What a kill cut short; a run with nothing left would not write it again.
        for half in (*run.path.glob("*.part"), *run.path.glob("firing/*.part")):
            half.unlink()
        if not run._is_run():
            run.write_info(config, data=data)
        results_file.drop_half_line(run.results)
        return run

    def close(self) -> None:
        """Let another process write here."""
        if self._unlock is not None:
            self._unlock()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_run(self) -> bool:
        return (self.path / "config.json").exists()

    def _refuse_foreign(self, config: StudyConfig, data: str | None) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; give a folder with --out")
        if self._is_run():
            self._refuse_other(config)
            # Runs of earlier versions did not note it.
            if data and self.info().get("data", data) not in (data, None):
                raise ValueError(
                    f"{self.path} holds a run on other images or labels of "
                    f"{config.dataset}; give the data that it was begun with, or "
                    "another folder with --out"
                )
        elif {path.name for path in self.path.iterdir()} - _FIRST:
            raise ValueError(
                f"{self.path} is not empty and not a run folder (it has no "
                "config.json); give another folder with --out"
            )

    def _refuse_other(self, config: StudyConfig) -> None:
        info = self.info()
        if info["config_hash"] == config.hash():
            return
        theirs, ours = info["config"], config.numbers()
        lines = [
            f"  {key}: {theirs.get(key)!r} there, {ours.get(key)!r} now"
            for key in sorted(set(theirs) | set(ours))
            if theirs.get(key) != ours.get(key)
        ]
        raise ValueError(
            f"{self.path} holds a run of another config:\n" + "\n".join(lines) + "\n"
            "give another folder with --out, or the same options"
        )

    def lock(self) -> None:
        """Keep other processes from writing here; the folder must be there.

        Raises:
            ValueError: another one is.
        """
        if fcntl is None:
            return
        file = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        self._unlock = weakref.finalize(self, os.close, file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ValueError(f"another process is writing to {self.path}") from None

    def info(self) -> dict[str, Any]:
        """The contents of ``config.json``.

        Raises:
            ValueError: there is none, or it is not a study's.
        """
        path = self.path / "config.json"
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            what = "is no run folder (it has no config.json)"
            what = what if self.path.exists() else "does not exist"
            raise ValueError(f"{self.path} {what}; give a study's folder") from None
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}; is this a run?") from None
        if not (
            isinstance(info, dict)
            and {"config", "config_hash"} <= set(info)
            and isinstance(info["config"], dict)
        ):
            raise ValueError(
                f"{path} is not a study's: it has no config and config_hash"
            )
        return info

    def write_info(self, config: StudyConfig, **more: Any) -> None:
        """Write ``config.json``: config, its hash, versions, and ``more``."""
        info = {
            "config": config.numbers(),
            "config_hash": config.hash(),
            "versions": versions(),
            **more,
        }
        self.write_text("config.json", json.dumps(info, indent=2) + "\n")

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a file whole or not at all.

        Raises:
            ValueError: ``name`` leads out of the folder.
            OSError: it could not be written; what was there before still is.
        """
        path = self._inside(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        try:
            with results_file.naming(path), open(part, "wb", buffering=0) as file:
                results_file.write(file, data)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        return path

    def _inside(self, name: str) -> Path:
        """The file ``name``; names hold what files of others say."""
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise ValueError(
                f"{name!r} leads out of {self.path}; expected a file in it. If "
                f"{self.results} says so, remove that line"
            )
        return self.path / name

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file whole or not at all."""
        return self.write_bytes(name, text.encode("utf-8"))

    def rows(self) -> list[Row]:
        """The finished rows; one that is half written is not among them.

        Raises:
            ValueError: a line is not JSON, or not a row of this study, or one that is
                there already.
        """
        rows, names = results_file.read(self.results), set()
        of = self.info()["config_hash"] if rows and self._is_run() else None
        for number, row in enumerate(rows, 1):
            try:
                name, _ = row_name(row), (row["accuracy"], row["emd_mean"])
            except (KeyError, TypeError, ValueError) as error:
                what = f"a study's row ({error!r})"
                raise results_file.no_row(self.results, number, what) from None
            if row.get("config_hash", of) != of:
                what = f"a row of this run: it is of config {row['config_hash']}"
                raise results_file.no_row(self.results, number, what)
            if name in names:
                what = f"another row: {name} is there already"
                raise results_file.no_row(self.results, number, what)
            names.add(name)
        return rows

    def append(self, row: Row, fired: Fired) -> None:
        """Add a finished row: its spike counts first, then its line."""
        file = io.BytesIO()
        arrays: dict[str, Any] = dict(fired.counts.spikes)
        arrays["observations"] = np.int64(fired.counts.observations)
        for name, latencies in fired.latencies.items():
            arrays[_LATENCY + name] = latencies
        np.savez_compressed(file, **arrays)
        self.write_bytes(f"firing/{row_name(row)}.npz", file.getvalue())
        results_file.append(self.results, row)

    def fired(self, row: Row) -> Fired:
        """Spike counts and latencies of each layer of ``row``.

        Raises:
            Lost: its file is not there.
            ValueError: it is damaged, or not of this folder.
        """
        path = self._inside(f"firing/{row_name(row)}.npz")
        way_out = (
            f"delete it, and the line of {row_name(row)} in {self.results}: that row "
            "is computed again"
        )
        if not path.exists():
            raise Lost(f"{path} cannot be read (it is not there); {way_out}")
        try:
            with zipfile.ZipFile(path) as file:
                if (broken := file.testzip()) is not None:
                    raise ValueError(f"the checksum of {broken} does not fit")
            with np.load(path, allow_pickle=False) as arrays:
                counts = {name: arrays[name] for name in arrays.files}
            observations = int(counts.pop("observations"))
        except _DAMAGE as error:
            raise ValueError(f"{path} cannot be read ({error}); {way_out}") from error
        names = [name for name in counts if name.startswith(_LATENCY)]
        latencies = {name.removeprefix(_LATENCY): counts.pop(name) for name in names}
        return Fired(FiringCounts(counts, observations), latencies)
