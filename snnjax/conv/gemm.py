"""Kernel gradients as one matrix product, in chunks that stay in the cache.

The left factor holds shifted copies of x side by side, one per tap.
"""

import jax
import jax.numpy as jnp
from jax import Array

from snnjax._arrays import compute_dtype
from snnjax.conv.chunks import Padding, map_chunks, pad_images


def columns_gradient(
    x: Array, dy: Array, kernel_size: tuple[int, int], strides, padding: Padding
) -> Array:
    """Compute the kernel gradient ``[k, m, C, K]`` of a convolution, any strides."""
    (k, m), (_, h, width, out), c = kernel_size, dy.shape, x.shape[-1]
    dtype = compute_dtype(dy)

    def process_chunk(x, dy):
        x, dy = pad_images(x.astype(dtype), padding), dy.astype(dtype)

        def slice_tap(i, j):
            stop = (i + strides[0] * (h - 1) + 1, j + strides[1] * (width - 1) + 1)
            stop = (x.shape[0], *stop, c)
            return jax.lax.slice(x, (0, i, j, 0), stop, (1, *strides, 1))

        taps = [slice_tap(i, j) for i in range(k) for j in range(m)]
        columns = jnp.concatenate(taps, -1)
        # The longer axis last fills XLA's vectors: half the time of the transpose.
        return dy.reshape(-1, out).T @ columns.reshape(-1, k * m * c)

    elements = h * width * max(k * m * c, out)
    sums = map_chunks(process_chunk, (x, dy), elements, add=True)
    return sums.reshape(out, k, m, c).transpose(1, 2, 3, 0).astype(dy.dtype)
