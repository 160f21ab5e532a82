"""A study's run folder: its rows, their firing, and where its checkpoints are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from experiments.study.grid import name_row
from snnjax.firing import FiringCounts
from snnjax.runs import Store

_LATENCY = "latency/"  # before the layer's name, in the file of a row's arrays


class RowFiring(NamedTuple):
    """Firing of a row's network.

    Attributes:
        counts: spike counts of each layer.
        latencies: ``{layer: int32 [neurons...]}``, steps before the first spike, summed
            over images.
    """

    counts: FiringCounts
    latencies: Mapping[str, ArrayLike]


class StudyStore(Store):
    """The folder of one study: config, rows, firing, checkpoints, report."""

    ARRAYS = "firing"

    def name_of(self, row: Mapping[str, Any]) -> str:
        """Return the name that follows from the row's `RunSpec`."""
        for key in ("accuracy", "emd_mean"):  # of a network that was measured
            if key not in row:
                raise KeyError(key)
        return name_row(row)

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
