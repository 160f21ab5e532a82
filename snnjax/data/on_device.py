"""A data set on the device, from which the steps take their batches."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from snnjax import _pytree
from snnjax.data.dataset import Dataset
from snnjax.data.transforms import network_input


@dataclasses.dataclass(frozen=True)
class DeviceDataset:
    """A `Dataset` as arrays on the device, one image a row.

    A TPU lays ``[N, H, W, C]`` out with the images innermost, and then copies all of
    them into another order before it takes a batch, in every step. So images are rows.

    Attributes:
        rows: ``[N, H * W * C]``, or with T for sequences, uint8 or float32.
        labels: int32 ``[N]``.
        mean: float32 ``[C]``.
        std: float32 ``[C]``.
        shape: (H, W, C), or (T, H, W, C) for event frames, (T, F) for trains.
        lengths: steps of each sequence, int32 ``[N]``, or None.
    """

    rows: Array
    labels: Array
    mean: Array
    std: Array
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    lengths: Array | None = None

    def mask(self, indices: Array) -> Array | None:
        """Return True for the steps of these sequences, bool ``[T, B]``, or None."""
        if self.lengths is None:
            return None
        return jnp.arange(self.shape[0])[:, None] < self.lengths[indices][None]

    def images(self, indices: Array) -> Array:
        """Return the images or sequences at these places, ``[B, ...]``."""
        return self.rows[indices].reshape(*indices.shape, *self.shape)

    def classes(self, indices: Array) -> Array:
        """Return the labels at these places ``[B]``."""
        return self.labels[indices]

    def network_input(self, images: Array) -> Array:
        """Return ``images`` as a network takes them, see `data.network_input`."""
        return network_input(images, self.mean, self.std)


_pytree.register(DeviceDataset)


def on_device(dataset: Dataset) -> DeviceDataset:
    """Put a data set on the device, as the steps of `snnjax.train` take it."""
    images = dataset.images
    return DeviceDataset(
        jnp.asarray(images.reshape(len(images), -1)),
        jnp.asarray(dataset.labels),
        jnp.asarray(dataset.mean),
        jnp.asarray(dataset.std),
        images.shape[1:],
        None if dataset.lengths is None else jnp.asarray(dataset.lengths),
    )
