"""Networks of one structure and other numbers, trained side by side."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from snnjax.data import Dataset
from snnjax.train import checks, devices
from snnjax.train.loop import train_steps
from snnjax.train.steps import Metrics, TrainState, split


class SweepProgress(NamedTuple):
    """Where `sweep` is, after a step.

    Attributes:
        state: of all networks, with an axis of them in front; `unstacked` makes a list
            of it.
        step: steps done.
        steps: of how many.
        metrics: of this step, NumPy arrays with that axis.
        silent: of each network, the layers that fell silent in this step.
    """

    state: TrainState
    step: int
    steps: int
    metrics: Metrics
    silent: tuple[tuple[str, ...], ...]


def sweep(
    models: Sequence[nnx.Module],
    dataset: Dataset,
    learning_rates: np.ndarray,
    *,
    seed: int,
    batch_size: int,
    mesh: Mesh | None = None,
    starts: Sequence[TrainState] | None = None,
    **options: Any,
) -> Iterator[SweepProgress]:
    """Train networks that differ in numbers only: weights, bits, clips, slopes.

    One compiled step for all. On a mesh different networks are on different devices
    along ``config``, in one program and without a word between them; a device that has
    several, or the only one there is, runs them one after another in that step. Each
    network's run is that of `fit` by itself.

    Args:
        models: as many as the devices along ``config``, or a multiple; not changed.
        dataset: training images.
        learning_rates: one for each step.
        seed: of the order of batches and of the augmentation, the same for all.
        batch_size: images a step, of each network.
        mesh: of ``make_mesh(configs=...)``; None is one device.
        starts: resume from these states of the same runs, all after the same step.
        options: those of `fit`.

    Yields:
        `SweepProgress` after each step. The next step donates its state.

    Raises:
        NonFinite: a loss or gradient is not finite; ``config`` is the network's place.
        ValueError: as `fit`; no networks, networks of several structures, a number of
            them that the devices along ``config`` cannot share, other starts.
    """
    models = list(models)
    check_alike(models, mesh)
    if isinstance(starts, TrainState):
        raise ValueError(
            "starts must be a list of states, got one state of all networks; "
            "unstacked(state) makes a list of it"
        )
    if starts is not None:
        starts = list(starts)
        steps = sorted({int(start.step) for start in starts})
        if len(starts) != len(models) or len(steps) != 1:
            raise ValueError(
                f"starts must be {len(models)} states after the same step, got "
                f"{len(starts)} after the steps {steps}"
            )
    for state, step, metrics, silent in train_steps(
        models,
        dataset,
        learning_rates,
        seed=seed,
        batch_size=batch_size,
        starts=starts,
        mesh=mesh,
        sweep=True,
        **options,
    ):
        yield SweepProgress(state, step, len(learning_rates), metrics, tuple(silent))


def check_alike(models: Sequence[nnx.Module], mesh: Mesh | None) -> None:
    """Raise ValueError unless the networks can be side by side on the mesh."""
    for model in models:
        checks.check_model(model)
    devices.check_mesh(mesh)
    side_by_side = devices.config_devices(mesh)
    if not models or len(models) % side_by_side:
        raise ValueError(
            f"models must be a multiple of {side_by_side}, the devices along config, "
            f"got {len(models)}; make_mesh(configs=...) takes a divisor of their number"
        )
    structures = [_structure(model) for model in models]
    for i, structure in enumerate(structures):
        if structure != structures[0]:
            raise ValueError(
                f"the networks of a sweep must have one structure, and network {i} "
                "differs from the first: layers, sizes, dtypes, neurons, quantizers' "
                "methods, grids and signs, and LQ-Net's bits must be the same, other "
                "bits and bounds may differ"
            )


def _structure(model: nnx.Module) -> tuple:
    graphdef, *state = split(model)
    return graphdef, checks.form(*state)
