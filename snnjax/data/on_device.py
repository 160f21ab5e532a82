"""A data set on the device, from which the steps take their batches."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from snnjax import _pytree
from snnjax.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Images:
    """Images on the device, one a row: ``images[indices]`` is ``[B, H, W, C]``.

    Or event frames, ``[B, T, H, W, C]``.

    A TPU lays ``[N, H, W, C]`` out with the images innermost, and then copies all of
    them into another order before it takes a batch, in every step.

    Attributes:
        rows: uint8 ``[N, H * W * C]``, or with T.
        shape: (H, W, C), or (T, H, W, C).
    """

    rows: Array
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    def __getitem__(self, indices: Array) -> Array:
        """The images at these places."""
        return self.rows[indices].reshape(*indices.shape, *self.shape)


_pytree.register(Images)


def on_device(dataset: Dataset) -> tuple[Images, Array, Array, Array]:
    """Images, labels, mean and deviation as the steps take them."""
    images = dataset.images
    rows = Images(jnp.asarray(images.reshape(len(images), -1)), images.shape[1:])
    labels, mean = jnp.asarray(dataset.labels), jnp.asarray(dataset.mean)
    return rows, labels, mean, jnp.asarray(dataset.std)
