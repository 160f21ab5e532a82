"""The last states of a training run, written in the background."""

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
from snnjax.checkpoint.names import (
    difference,
    digests,
    ordered,
    unnamed,
    with_elements,
)
from snnjax.checkpoint.quiet import TEMPORARY, quietly, reason

Tree = TypeVar("Tree")

_FORMAT = 1
_PACKAGES = ("snnjax", "jax", "flax", "optax", "numpy")
# What Orbax puts into the folder of a step.
_PARTS = {"about", "tree", "_CHECKPOINT_METADATA", "commit_success.txt"}


class History:
    """The last checkpoints of a run in one folder, each whole or not there.

    A checkpoint is a pytree (a `train.TrainState`, say: parameters, statistics,
    quantizers, optimizer and step), the step, the config, versions, and a checksum of
    every array. The order of the data and the random keys of a run by `train.fit` are
    functions of the seed, which belongs into the config, and of the step: a run that is
    resumed is the run that was never stopped, to the last bit on the same device.

    Arrays are saved as the host sees them, so a run may go on with another number of
    devices. Of several processes one opens a history; it does not wait for others.

    Args:
        folder: made if it is not there.
        keep: how many to keep, at least 1; one that is damaged is made up for by the
            one before.
        config: what makes the run this run, as JSON values: seed, data, sizes. `load`
            and `save` refuse a folder with checkpoints of another.

    Raises:
        ValueError: keep below 1, a config that JSON cannot hold, or a folder that is a
            file or has a numbered folder that is no checkpoint.

    >>> import tempfile
    >>> import numpy as np
    >>> with History(tempfile.mkdtemp(), config={"seed": 0}) as history:
    ...     history.save(1, {"w": np.ones(3)})
    ...     history.load({"w": np.zeros(3)})["w"].tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep: int = 2,
        config: Mapping[str, Any] | None = None,
    ):
        _checks.whole("keep", keep, 1)
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
        self._useless: set[int] = set()
        self._own = False
        self._open = contextlib.ExitStack()
        self._open.enter_context(quietly())
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
        self._open.callback(self._manager.close)

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: SupportsIndex, tree: object) -> None:
        """Write ``tree`` as that of ``step``; returns before it is on the disk.

        The arrays are copied first: the next step may take them.

        Raises:
            ValueError: a step below 0, or before the last: that is another run's; or
                another config is there, whose checkpoints this would push out.
            OSError: this or the one before could not be written; what was whole
                before still is, but for this same step, which makes room first.
        """
        number = _whole(step)
        arrays = ordered(tree)
        self._refuse_other_run()
        with self._writing():
            while self._useless:
                self._manager.delete(self._useless.pop())
        last = self.latest
        if last is not None and number < last:
            raise ValueError(
                f"step {number} is before step {last}, the last in {self.folder}: go "
                "on from that (load), or give another folder"
            )
        about = {
            "format": _FORMAT,
            "step": number,
            "config": self._config,
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
            "crc32": digests(arrays),
        }
        about["own_crc32"] = _own_digest(about)
        parts = ocp.args.Composite(
            tree=ocp.args.StandardSave(with_elements(arrays)),
            about=ocp.args.JsonSave(about),
        )
        with self._writing():
            if number in self._manager.all_steps():
                self._manager.wait_until_finished()
                self._manager.delete(number)
            self._manager.save(number, args=parts, force=True)

    def load(self, like: Tree) -> Tree | None:
        """The newest checkpoint that is whole, or None if there is none at all.

        One that is damaged is removed, with a warning, if there is a whole one.

        Args:
            like: a pytree of the same structure, shapes and dtypes.

        Raises:
            Damaged: all are; a ValueError.
            ValueError: another config, or arrays of other number, shapes or dtypes.
        """
        self.wait()
        expected, damaged = ordered(like), {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                about = self._about(step)
                self._refuse_other(step, about)
                self._own = True
                arrays = self._arrays(step, about, expected)
            except Damaged as error:
                damaged[step] = str(error)
                continue
            for bad, why in damaged.items():
                warnings.warn(
                    f"the checkpoint of step {bad} in {self.folder} is damaged ({why}) "
                    f"and was removed; that of step {step} takes its place",
                    stacklevel=2,
                )
                self._manager.delete(bad)
            return unnamed(arrays, like, expected)
        if damaged:
            # Whoever begins again all the same writes in their place.
            self._useless = set(damaged)
            step, why = next(iter(damaged.items()))
            raise Damaged(
                f"every checkpoint in {self.folder} is damaged (that of step {step}: "
                f"{why}); delete the folder to begin again"
            )
        return None

    def wait(self) -> None:
        """Return when everything is on the disk.

        Raises:
            OSError: as `save`.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and let go of the folder.

        Raises:
            OSError: as `save`.
        """
        with self._open:
            self.wait()

    def __enter__(self) -> "History":
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
                f"({reason(error)}); make room or give another folder, and go on "
                f"from step {max(_steps(self.folder), default=0)}, the last that is "
                "whole"
            ) from None

    def _about(self, step: int) -> dict[str, Any]:
        read = ocp.args.Composite(about=ocp.args.JsonRestore())
        try:
            about = self._manager.restore(step, args=read)["about"]
            own = about.pop("own_crc32")
        except Exception as error:  # what a damaged file makes Orbax raise is not told
            raise Damaged(reason(error)) from None
        if own != _own_digest(about) or about["step"] != step:
            raise Damaged("the checksum of its description does not fit")
        return about

    def _refuse_other_run(self) -> None:
        """Once, unless `load` has: what is saved later is of this run."""
        for step in () if self._own else sorted(self._manager.all_steps()):
            with contextlib.suppress(Damaged):
                self._refuse_other(step, self._about(step))
        self._own = True

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
            raise Damaged(reason(error)) from None
        wrong = [name for name, crc in about["crc32"].items() if found.get(name) != crc]
        if wrong:
            raise Damaged(f"the checksum of {wrong[0]!r} does not fit")
        if what := difference(arrays, expected):
            raise ValueError(
                f"the checkpoint of step {step} in {self.folder} holds another "
                f"network: {what}; give another folder or the same network"
            )
        return arrays


class Damaged(ValueError):
    """Checkpoints that cannot be trusted, and why."""


def _whole(step: SupportsIndex) -> int:
    try:
        number = operator.index(step)  # of an array of one whole number too
    except TypeError:
        got = _checks.shown(step)
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
    """Whether it is the folder of a checkpoint of a `History`, as far as names tell."""
    return path.is_dir() and {part.name for part in path.iterdir()} <= _PARTS


def _refuse_foreign(folder: Path) -> None:
    """Folders that are named as steps and are none would be deleted as old ones."""
    for path in (folder / str(step) for step in _steps(folder)):
        if not is_step(path):
            raise ValueError(
                f"{path} is no checkpoint; give a folder that holds nothing else"
            )
