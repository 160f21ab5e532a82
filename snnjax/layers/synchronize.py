"""Layers whose numbers are those of a whole batch, of which a device sees a part."""

from flax import nnx

from snnjax.layers.norm import BatchNorm
from snnjax.layers.spiking import Spiking


def synchronize(model: nnx.Module, axis_name: str | None) -> None:
    """Let the layers of ``model`` see all devices along an axis of `jax.shard_map`.

    BatchNorm's statistics are then those of the whole batch, and so is the size that
    scales the gradients of LSQ's and MINT's learned membrane bounds.

    Args:
        model: changed in place.
        axis_name: the axis, along which each device has an equal part of the batch;
            None takes it back.
    """
    for _, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm | Spiking):
            module.axis_name = axis_name
