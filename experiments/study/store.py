"""A study's run folder: its rows, their firing, and its checkpoints."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from experiments.study.config import CHOICES, StudyConfig
from experiments.study.grid import RunSpec, name_row
from snnjax import checkpoint, runs
from snnjax.firing import FiringCounts
from snnjax.runs.store import compare_configs
from snnjax.train import TrainState

Args = ParamSpec("Args")
Value = TypeVar("Value")
Model = TypeVar("Model", bound=nnx.Module)

_LATENCY = "latency/"  # before the layer's name, in the file of a row's arrays


def on_primary(function: Callable[Args, Value]) -> Callable[Args, Value]:
    """Let the primary host alone run a function; all hosts return its JSON value."""

    @functools.wraps(function)
    def run(*args: Args.args, **options: Args.kwargs) -> Value:
        return runs.run_on_primary(lambda: function(*args, **options))

    return run


class RowFiring(NamedTuple):
    """Firing of a row's network.

    Attributes:
        counts: spike counts of each layer.
        latencies: ``{layer: int32 [neurons...]}``, steps before the first spike, summed
            over images.
    """

    counts: FiringCounts
    latencies: Mapping[str, ArrayLike]


class StudyStore(runs.Store):
    """The folder of one study: config, rows, firing, checkpoints, report.

    Hosts call together what the primary one does for all: `start_and_read`, and what
    changes or loads checkpoints.
    """

    ARRAYS = "firing"

    def name_of(self, row: Mapping[str, Any]) -> str:
        """Return the name that follows from the row's `RunSpec`."""
        for key in ("accuracy", "emd_mean"):  # of a network that was measured
            if key not in row:
                raise KeyError(key)
        return name_row(row)

    @on_primary
    def start_and_read(
        self,
        config: Mapping[str, Any],
        specs: Sequence[RunSpec],
        extend: bool,
        **info: Any,
    ) -> list[runs.Row]:
        """Start the study or go on with it, see `runs.Store.start`; return its rows.

        With ``extend`` it may have been begun with other `CHOICES`.

        Raises:
            ValueError: as `runs.Store.start`, or it has rows that are not of ``specs``.
        """
        earlier: dict[str, Any] = {}
        if extend and (self.path / "config.json").exists():
            earlier = self.info()["config"]
        chosen = {k: v for k, v in earlier.items() if k in CHOICES}
        self.start({**config, **chosen}, **info)
        rows, names = self.rows(), {spec.name for spec in specs}
        for name in map(name_row, rows):
            if name not in names:
                raise ValueError(
                    f"{self.path} holds {name}, which these options leave out; to "
                    "extend a study, give the options of before and more: "
                    f"{compare_configs(earlier, config)}"
                )
        self.extend(config)
        return rows

    @on_primary
    def read_rows_of(self, config: StudyConfig) -> list[runs.Row]:
        """Return the rows that are there, none if they are not of ``config``."""
        if not (self.path / "config.json").exists():
            return []
        earlier = StudyConfig.from_numbers(self.info()["config"])
        same = earlier.numbers_of_a_run() == config.numbers_of_a_run()
        return self.rows() if same else []

    def append_firing(self, row: Mapping[str, Any], firing: RowFiring) -> None:
        """Add a complete row: its firing first, then its line."""
        arrays: dict[str, ArrayLike] = dict(firing.counts.spikes)
        arrays["observations"] = np.int64(firing.counts.observations)
        for name, latencies in firing.latencies.items():
            arrays[_LATENCY + name] = latencies
        self.append(row, arrays)

    def firing(self, row: Mapping[str, Any]) -> RowFiring:
        """Return the firing of a row.

        Raises:
            MissingArraysError: its file does not exist.
            ValueError: it is corrupt, or not in this folder.
        """
        arrays = self.arrays(name_row(row))
        observations = int(arrays.pop("observations"))
        names = [name for name in arrays if name.startswith(_LATENCY)]
        latencies = {name.removeprefix(_LATENCY): arrays.pop(name) for name in names}
        return RowFiring(FiringCounts(arrays, observations), latencies)

    def weights_of(self, name: str) -> Path:
        """Return the file of a baseline's weights."""
        return self.path / "checkpoints" / f"{name}.safetensors"

    def states_of(self, name: str) -> Path:
        """Return the folder of the checkpoints of a run in training."""
        return self.path / "checkpoints" / f"{name}-partial"

    def epoch_before_of(self, name: str) -> Path:
        """Return the folder of a control's state as its last epoch began."""
        return self.path / "checkpoints" / f"{name}-epoch-before"

    @on_primary
    def export_weights(
        self, name: str, model: nnx.Module, about: Mapping[str, Any]
    ) -> None:
        """Write the weights of a baseline."""
        checkpoint.export(self.weights_of(name), model, about)

    def load_weights(self, name: str, model: Model) -> Model | None:
        """Return ``model`` with the weights of a baseline, None if it has no file."""
        path = self.weights_of(name)
        graphdef, like = nnx.split(model)

        def load() -> nnx.State | None:
            there = path.is_file()
            return nnx.state(checkpoint.load(path, model)) if there else None

        state = runs.load_on_primary(load, like)
        return None if state is None else nnx.merge(graphdef, state)

    @on_primary
    def save_epoch_before(self, name: str, state: TrainState) -> None:
        """Save a control's state as its last epoch begins."""
        checkpoint.save(self.epoch_before_of(name), state)

    def load_epoch_before(self, name: str, like: TrainState) -> TrainState | None:
        """Return a control's state as its last epoch began, None of a single epoch."""
        path = self.epoch_before_of(name)

        def load() -> TrainState | None:
            return checkpoint.load(path, like) if checkpoint.exists(path) else None

        return runs.load_on_primary(load, like)

    @on_primary
    def remove_checkpoints(self, name: str) -> None:
        """Remove the checkpoints of a run that is done."""
        checkpoint.remove(self.states_of(name))
        checkpoint.remove(self.epoch_before_of(name))
