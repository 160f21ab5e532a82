"""Recordings of a pass over a batch: what losses compare."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from snnjax.layers import Readout, Spiking, observe
from snnjax.layers.observe import observable_layers
from snnjax.models.protocol import check_result


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["logits", "spikes", "membranes", "mask"],
    meta_fields=["axis_name"],
)
@dataclasses.dataclass(frozen=True)
class Recording:
    """Recording of a network's pass over a batch, see `record`.

    Attributes:
        logits: ``[T, B, classes]``.
        spikes: ``{layer: [T, B, neurons...]}``.
        membranes: ``{layer: [T, B, neurons...]}``, potentials before firing; {} unless
            they were asked for.
        axis_name: mesh axis along which B is one of equal parts: distances are those of
            the whole batch.
        mask: True for the steps of each sequence, bool ``[T, B]``; None is all.
    """

    logits: Array
    spikes: Mapping[str, Array]
    membranes: Mapping[str, Array]
    axis_name: str | None = None
    mask: Array | None = None


# No argument is by keyword alone: transformations of nnx refuse such functions.
def record(
    model: nnx.Module,
    images: ArrayLike,
    timesteps: int = 4,
    train: bool | None = None,
    membranes: bool = False,
    axis_name: str | None = None,
    mask: Array | None = None,
) -> Recording:
    """Run a network, and record what the losses compare.

    Args:
        model: a network that is called as those of `models`, of `layers`.
        images: a batch, as the network takes it.
        timesteps: T.
        train: as of the network; None follows ``.train()`` and ``.eval()``.
        membranes: record potentials too, which are computed a second time for it.
        axis_name: of the recording.
        mask: of the recording.

    Raises:
        ValueError: a network that returns something else; with ``membranes``, a layer
            of neurons that is called more than once or in a loop of JAX's own, or that
            has no single potential.
    """
    observers = {}
    if membranes:
        layers = observable_layers(model).items()
        observers = {
            name: functools.partial(_see_potentials, name)
            for name, x in layers
            if isinstance(x, Spiking) and not isinstance(x, Readout)
        }
    with observe(model, observers, starts=True) as found:
        options = {} if train is None else {"train": train}
        result = model(images, timesteps=timesteps, **options)
        logits, spikes = check_result(result, images, timesteps)
    return Recording(logits, spikes, found, axis_name, mask)


def _see_potentials(name: str, layer: Spiking, x: Array, start: Any):
    if layer.is_seen:
        raise ValueError(
            f"{name or 'the layer'} is called more than once in a pass, and membranes "
            "are recorded of one call; call it once on the whole sequence, and use a "
            "layer of its own at each place"
        )
    return layer.potentials(x, start)
