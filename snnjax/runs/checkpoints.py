"""The last checkpoints of a training run, written in the background."""

import contextlib
import importlib.metadata
import json
import logging
import operator
import os
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, SupportsIndex, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath

from snnjax import _checks
from snnjax._named_arrays import (
    Arrays,
    difference,
    digests,
    find_choices,
    find_other_choice,
    flatten_dict,
    unflatten,
)
from snnjax._paths import AnyPath, as_absolute, as_path
from snnjax.runs.store import compare_configs

Tree = TypeVar("Tree")

_PACKAGES = ("snnjax", "jax", "flax", "optax", "numpy")
# What Orbax puts into the folder of a step.
_PARTS = {"about", "tree", "_CHECKPOINT_METADATA", "commit_success.txt"}
_TEMPORARY = ".orbax-checkpoint-tmp"
# The folder is renamed before it is removed: a kill leaves no half of it.
REMOVED = ".snnjax-removed"


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
        config: identity of the run, as JSON values: seed, data, sizes.

    Raises:
        ValueError: keep below 1, a config that JSON cannot hold, or a folder that is a
            file, has checkpoints of another config or a numbered folder that is no
            checkpoint.

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
        self.folder = as_absolute(as_path("folder", folder))
        for path in _foreign(self.folder):
            if path == self.folder or path.name.isdecimal():  # Orbax would delete it
                kind = "a file" if path == self.folder else "no checkpoint"
                raise ValueError(f"{path} is {kind}; give a folder of checkpoints")
        self._manager: Any = None
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
        self._corrupt: set[int] = set()
        self._resources = contextlib.ExitStack()
        # What Orbax logs it raises as well.
        logger = logging.getLogger("absl")
        logger.addFilter(_is_not_orbax)
        self._resources.callback(logger.removeFilter, _is_not_orbax)
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
        self._refuse_other_run()

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: SupportsIndex, tree: object) -> None:
        """Save ``tree`` as the checkpoint of ``step``, in the background.

        The arrays are copied first: the next step may donate them.

        Raises:
            ValueError: a step below 0 or before the last one, which is another run's.
            OSError: this or the previous checkpoint could not be written. Complete
                ones remain, except one of this same step, which is deleted first.
        """
        number = -1
        with contextlib.suppress(TypeError):
            number = operator.index(step)  # of an array of one whole number too
        if number < 0:
            got = _checks.format_value(step)
            raise ValueError(f"step must be a whole number of at least 0, got {got}")
        arrays = _indexed(tree)
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
            "step": number,
            "config": self._config,
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
            "crc32": digests(arrays),
            "choices": find_choices(tree),
        }
        about["own_crc32"] = _own_digest(about)
        parts = ocp.args.Composite(
            # Orbax cannot hold arrays without elements.
            tree=ocp.args.StandardSave({k: x for k, x in arrays.items() if x.size}),
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
            ValueError: arrays of other number, shapes or dtypes, a network of other
                choices.
        """
        self.wait()
        expected, corrupt = _indexed(like), {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                about = self._about(step)
                choices = about.get("choices", {})
                if what := find_other_choice(choices, find_choices(like)):
                    raise ValueError(
                        f"the checkpoint of step {step} in {self.folder} holds "
                        f"another network: {what}; give the same network"
                    )
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
            for half in self.folder.glob(f"*{_TEMPORARY}*"):
                with contextlib.suppress(OSError):
                    epath.Path(half).rmtree()
            if self._manager is not None:
                with contextlib.suppress(Exception):
                    self._manager.reload()  # it counts what it could not write
            raise OSError(
                f"a checkpoint could not be written to {self.folder} "
                f"({_describe_error(error)}); make room or give another folder, and "
                f"resume from step {latest_step(self.folder) or 0}, the last complete "
                "one"
            ) from None

    def _about(self, step: int) -> dict[str, Any]:
        read = ocp.args.Composite(about=ocp.args.JsonRestore())
        try:
            about = self._manager.restore(step, args=read)["about"]
            own = about.pop("own_crc32")
        except Exception as error:  # Orbax documents no type for a corrupt file
            raise CorruptCheckpointError(_describe_error(error)) from None
        if own != _own_digest(about) or about["step"] != step:
            raise CorruptCheckpointError("the checksum of its description is wrong")
        return about

    def _refuse_other_run(self) -> None:
        for step in sorted(self._manager.all_steps()):
            with contextlib.suppress(CorruptCheckpointError):
                theirs = self._about(step)["config"]
                if different := compare_configs(theirs, self._config):
                    self.close()
                    raise ValueError(
                        f"the checkpoint of step {step} in {self.folder} is of another "
                        f"run: {different}; give another folder or the same options"
                    )

    def _arrays(self, step: int, about: Mapping[str, Any], expected: Arrays) -> Arrays:
        read = ocp.args.Composite(tree=ocp.args.StandardRestore())
        try:
            arrays = self._manager.restore(step, args=read)["tree"]
            arrays |= {name: x for name, x in expected.items() if not x.size}
            found = digests(arrays)
        except Exception as error:
            raise CorruptCheckpointError(_describe_error(error)) from None
        # An empty array that is not expected was not stored; its checksum is 0.
        crcs = about["crc32"].items()
        wrong = [name for name, crc in crcs if found.get(name, 0) != crc]
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


def latest_step(folder: AnyPath) -> int | None:
    """Return the step of the newest checkpoint in a folder, or None."""
    steps = folder.glob("[0-9]*")
    return max((int(p.name) for p in steps if p.name.isdecimal()), default=None)


def load_newest(folder: AnyPath, like: Tree) -> Tree:
    """Load the newest checkpoint of a folder.

    Raises:
        ValueError: as `RunCheckpoints.load`, or there is none.
    """
    loaded = None
    if latest_step(folder) is not None:
        with RunCheckpoints(folder) as checkpoints:
            loaded = checkpoints.load(like)
    if loaded is None:
        raise ValueError(f"there is no checkpoint at {folder}")
    return loaded


def remove(folder: str | os.PathLike[str]) -> None:
    """Delete the folder of `RunCheckpoints` or `checkpoint.save`, if it exists.

    Raises:
        ValueError: it holds something else; it is unchanged.
    """
    given = as_absolute(as_path("folder", folder))
    check_only_checkpoints(given)
    path = epath.Path(given)
    removed = path.with_name(path.name + REMOVED)
    if removed.exists():
        removed.rmtree()
    if path.exists():
        path.rename(removed)
        removed.rmtree()


def check_only_checkpoints(folder: AnyPath) -> None:
    """Raise ValueError if the folder is a file or holds anything but checkpoints."""
    if _foreign(folder):
        raise ValueError(f"{folder} is no folder of a checkpoint; give another path")


def _foreign(folder: AnyPath) -> list[AnyPath]:
    """Return what in the folder is neither a checkpoint nor left of one by a kill."""
    if not folder.is_dir():
        return [folder] if folder.exists() else []
    return [
        path
        for path in folder.iterdir()
        if _TEMPORARY not in path.name
        and not (
            path.name.isdecimal()
            and path.is_dir()
            and {part.name for part in path.iterdir()} <= _PARTS
        )
    ]


def _indexed(tree: Any) -> Arrays:
    """Return the leaves of a tree, each name preceded by its position."""
    return {f"{i:05} {k}": x for i, (k, x) in enumerate(flatten_dict(tree).items())}


def _own_digest(about: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(about, sort_keys=True).encode())


def _is_not_orbax(line: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in line.pathname


def _describe_error(error: BaseException) -> str:
    """Return an error of Orbax in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    if code := re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(int(code.group(1)))
    line = " ".join(text.split()).rstrip(".") or type(error).__name__
    return line if len(line) <= 200 else f"{line[:200]}..."
