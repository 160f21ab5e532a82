"""The last checkpoints of a training run, written in the background."""

import contextlib
import importlib.metadata
import json
import operator
import os
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, SupportsIndex, TypeVar

import jax
import orbax.checkpoint as ocp

from snnjax import _checks
from snnjax._named_arrays import (
    difference,
    digests,
    drop_empty,
    find_choices,
    find_other_choice,
    indexed,
    unflatten,
)
from snnjax.runs._orbax_logging import TEMPORARY, describe_error, silence_orbax

Tree = TypeVar("Tree")

_FORMAT = 1
_PACKAGES = ("snnjax", "jax", "flax", "optax", "numpy")
# What Orbax puts into the folder of a step.
_PARTS = {"about", "tree", "_CHECKPOINT_METADATA", "commit_success.txt"}


class RunCheckpoints:
    """Last checkpoints of a run in one folder, each complete or absent.

    A checkpoint is a pytree (a `train.TrainState`, say: parameters, statistics,
    quantizers, optimizer and step), the step, the config, versions, and a checksum of
    every array. In `snnjax.train` the order of the data and the random keys are
    functions of the seed, which belongs into the config, and of the step: a resumed run
    reproduces the uninterrupted one bit for bit on the same device.

    Arrays are saved whole, so a run may resume on another number of devices. Of several
    processes only one opens the folder; it does not wait for others.

    Args:
        folder: created if it does not exist.
        keep: number of checkpoints to keep, at least 1; if the newest is corrupt, the
            previous one is loaded.
        config: identity of the run, as JSON values: seed, data, sizes. `load` and
            `save` refuse a folder with checkpoints of another.

    Raises:
        ValueError: keep below 1, a config that JSON cannot hold, or a folder that is a
            file or has a numbered folder that is no checkpoint.

    >>> import tempfile
    >>> import numpy as np
    >>> with RunCheckpoints(tempfile.mkdtemp(), config={"seed": 0}) as checkpoints:
    ...     checkpoints.save(1, {"w": np.ones(3)})
    ...     checkpoints.load({"w": np.zeros(3)})["w"].tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep: int = 2,
        config: Mapping[str, Any] | None = None,
    ):
        _checks.require_whole("keep", keep, 1)
        try:
            self._config = json.loads(json.dumps(dict(config or {})))
        except (TypeError, ValueError) as error:
            raise ValueError(f"config must hold JSON values: {error}") from None
        self.folder = Path(folder).absolute()
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file; give a folder")
        self._manager: Any = None
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(self.folder)
        self._corrupt: set[int] = set()
        self._verified = False
        self._resources = contextlib.ExitStack()
        self._resources.enter_context(silence_orbax())
        me = jax.process_index()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=False,
            cleanup_tmp_directories=True,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"p{me}"
            ),
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._resources.callback(self._manager.close)

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: SupportsIndex, tree: object) -> None:
        """Save ``tree`` as the checkpoint of ``step``, in the background.

        The arrays are copied first: the next step may donate them.

        Raises:
            ValueError: a step below 0 or before the last one, which is another run's;
                or the folder has checkpoints of another config.
            OSError: this or the previous checkpoint could not be written. Complete
                ones remain, except one of this same step, which is deleted first.
        """
        number = _whole(step)
        arrays = indexed(tree)
        self._refuse_other_run()
        with self._writing():
            while self._corrupt:
                self._manager.delete(self._corrupt.pop())
        last = self.latest
        if last is not None and number < last:
            raise ValueError(
                f"step {number} is before step {last}, the last in {self.folder}; "
                "resume from that (load), or give another folder"
            )
        about = {
            "format": _FORMAT,
            "step": number,
            "config": self._config,
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
            "crc32": digests(arrays),
            "choices": find_choices(tree),
        }
        about["own_crc32"] = _own_digest(about)
        parts = ocp.args.Composite(
            tree=ocp.args.StandardSave(drop_empty(arrays)),
            about=ocp.args.JsonSave(about),
        )
        with self._writing():
            if number in self._manager.all_steps():
                self._manager.wait_until_finished()
                self._manager.delete(number)
            self._manager.save(number, args=parts, force=True)

    def load(self, like: Tree) -> Tree | None:
        """Return the newest intact checkpoint, or None if the folder has none.

        Corrupt ones are removed, with a warning, if there is an intact one.

        Args:
            like: a pytree of the same structure, shapes and dtypes.

        Raises:
            CorruptCheckpointError: all are corrupt.
            ValueError: another config, or arrays of other number, shapes or dtypes.
        """
        self.wait()
        expected, corrupt = indexed(like), {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                about = self._about(step)
                self._refuse_other(step, about)
                self._verified = True
                self._refuse_other_choices(step, about, like)
                arrays = self._arrays(step, about, expected)
            except CorruptCheckpointError as error:
                corrupt[step] = str(error)
                continue
            for bad, why in corrupt.items():
                warnings.warn(
                    f"the checkpoint of step {bad} in {self.folder} is corrupt ({why}) "
                    f"and was removed; step {step} is loaded instead",
                    stacklevel=2,
                )
                self._manager.delete(bad)
            return unflatten(arrays, like, expected)
        if corrupt:
            # A caller that starts over replaces them with its first save.
            self._corrupt = set(corrupt)
            step, why = next(iter(corrupt.items()))
            raise CorruptCheckpointError(
                f"every checkpoint in {self.folder} is corrupt (that of step {step}: "
                f"{why}); delete the folder to start over"
            )
        return None

    def wait(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            OSError: as `save`.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and release the folder.

        Raises:
            OSError: as `save`.
        """
        with self._resources:
            self.wait()

    def __enter__(self) -> "RunCheckpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax has no type of its own for a full disk
            for half in self.folder.glob(f"*{TEMPORARY}*"):
                shutil.rmtree(half, ignore_errors=True)
            if self._manager is not None:
                with contextlib.suppress(Exception):
                    self._manager.reload()  # it counts what it could not write
            raise OSError(
                f"a checkpoint could not be written to {self.folder} "
                f"({describe_error(error)}); make room or give another folder, and "
                f"resume from step {max(_steps(self.folder), default=0)}, the last "
                "complete one"
            ) from None

    def _about(self, step: int) -> dict[str, Any]:
        read = ocp.args.Composite(about=ocp.args.JsonRestore())
        try:
            about = self._manager.restore(step, args=read)["about"]
            own = about.pop("own_crc32")
        except Exception as error:  # Orbax documents no type for a corrupt file
            raise CorruptCheckpointError(describe_error(error)) from None
        if own != _own_digest(about) or about["step"] != step:
            raise CorruptCheckpointError("the checksum of its description is wrong")
        return about

    def _refuse_other_run(self) -> None:
        """Check once, unless `load` has: what is saved later is of this run."""
        for step in () if self._verified else sorted(self._manager.all_steps()):
            with contextlib.suppress(CorruptCheckpointError):
                self._refuse_other(step, self._about(step))
        self._verified = True

    def _refuse_other(self, step: int, about: Mapping[str, Any]) -> None:
        theirs, ours = about["config"], self._config
        different = [
            f"{key} is {theirs.get(key, 'not given')!r} there and "
            f"{ours.get(key, 'not given')!r} now"
            for key in sorted(set(theirs) | set(ours))
            # As JSON: there NaN is NaN.
            if _json(theirs, key) != _json(ours, key)
        ]
        if different:
            raise ValueError(
                f"the checkpoint of step {step} in {self.folder} is of another run: "
                f"{'; '.join(different)}; give another folder or the same options"
            )

    def _refuse_other_choices(self, step, about, like) -> None:
        choices = about.get("choices", {})
        if what := find_other_choice(choices, find_choices(like)):
            raise ValueError(
                f"the checkpoint of step {step} in {self.folder} holds another "
                f"network: {what}; give another folder or the same network"
            )

    def _arrays(self, step, about, expected):
        kept = set(about["crc32"])
        if kept != set(expected):
            lost, new = sorted(kept - set(expected)), sorted(set(expected) - kept)
            raise ValueError(
                f"the checkpoint of step {step} in {self.folder} holds another "
                f"network: {len(lost)} arrays of it are not expected and {len(new)} "
                f"are missing, first {(lost + new)[0]!r}; give another folder or the "
                "same network"
            )
        read = ocp.args.Composite(tree=ocp.args.StandardRestore())
        try:
            arrays = self._manager.restore(step, args=read)["tree"]
            arrays |= {name: x for name, x in expected.items() if not x.size}
            found = digests(arrays)
        except Exception as error:
            raise CorruptCheckpointError(describe_error(error)) from None
        wrong = [name for name, crc in about["crc32"].items() if found.get(name) != crc]
        if wrong:
            raise CorruptCheckpointError(f"the checksum of {wrong[0]!r} is wrong")
        if what := difference(arrays, expected):
            raise ValueError(
                f"the checkpoint of step {step} in {self.folder} holds another "
                f"network: {what}; give another folder or the same network"
            )
        return arrays


class CorruptCheckpointError(ValueError):
    """A checkpoint is incomplete or altered."""


def _whole(step: SupportsIndex) -> int:
    try:
        number = operator.index(step)  # of an array of one whole number too
    except TypeError:
        got = _checks.format_value(step)
        raise ValueError(f"step must be a whole number, got {got}") from None
    if number < 0:
        raise ValueError(f"step must be at least 0, got {number}")
    return number


def _own_digest(about: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(about, sort_keys=True).encode())


def _json(config: Mapping[str, Any], key: str) -> str | None:
    return json.dumps(config[key], sort_keys=True) if key in config else None


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]


def is_step(path: Path) -> bool:
    """Return True if the names in the folder are those of a checkpoint of a run."""
    return path.is_dir() and {part.name for part in path.iterdir()} <= _PARTS


def _refuse_foreign(folder: Path) -> None:
    """Raise ValueError on other numbered folders, which Orbax would delete."""
    for path in (folder / str(step) for step in _steps(folder)):
        if not is_step(path):
            raise ValueError(
                f"{path} is no checkpoint; give a folder that holds nothing else"
            )
