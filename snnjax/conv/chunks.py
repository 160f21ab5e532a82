"""Process images in chunks, so that intermediate arrays stay in the cache."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from snnjax._order import delay_until

Padding = tuple[tuple[int, int], tuple[int, int]]

# Elements of the largest intermediate array of a chunk: 8 MB in float32. Products of
# smaller chunks do not occupy all cores; larger chunks exceed the last-level cache.
ELEMENTS = 2**21


def pad_images(x: Array, pads: Padding) -> Array:
    """Pad H and W of ``[N, H, W, C]`` with zeros; negative numbers crop."""
    config = ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0))
    return jax.lax.pad(x, jnp.zeros((), x.dtype), config)


def choose_chunk_size(images: int, elements: int) -> int:
    """Choose the number of images per chunk, if one makes ``elements`` elements."""
    most = max(1, min(images, ELEMENTS // elements))
    divisor = next(n for n in range(most, 0, -1) if images % n == 0)
    # A number of images without a good divisor is padded with images of zeros.
    return divisor if 2 * divisor > most else most


def map_chunks(
    function: Callable[..., Array],
    arrays: tuple[Array, ...],
    elements: int,
    *,
    add: bool = False,
) -> Array:
    """Apply ``function`` to ``[N, ...]`` arrays in chunks of images.

    Args:
        function: maps arrays ``[n, ...]`` to an array ``[n, ...]``, or with ``add`` to
            an array that is summed over the chunks; zeros for images of zeros.
        arrays: ``[N, ...]``.
        elements: elements of the largest array that it makes from one image.
        add: sum over the chunks.
    """
    images = arrays[0].shape[0]
    size = choose_chunk_size(images, elements)
    number = -(-images // size)
    if number == 1:
        return function(*arrays)

    def fill_up(x):
        pad = ((0, number * size - images, 0), *((0, 0, 0),) * (x.ndim - 1))
        return jax.lax.pad(x, jnp.zeros((), x.dtype), pad)

    if number * size > images:
        arrays = tuple(map(fill_up, arrays))

    def take(i):
        # Of the whole arrays, not of a reshaped copy: XLA would compute them once more.
        start = i * size
        return [jax.lax.dynamic_slice_in_dim(x, start, size) for x in arrays]

    result = jax.eval_shape(lambda: function(*take(0)))
    # The result buffer depends on the data: it is then allocated when they are ready,
    # not at the program's start, and varies over a mesh as they do.
    zero = functools.reduce(delay_until, arrays, jnp.zeros((), result.dtype))
    if add:

        def accumulate(i, total):
            return total + function(*take(i))

        return jax.lax.fori_loop(0, number, accumulate, jnp.full(result.shape, zero))

    def write(i, out):
        return jax.lax.dynamic_update_slice_in_dim(out, function(*take(i)), i * size, 0)

    shape = (number * size, *result.shape[1:])
    return jax.lax.fori_loop(0, number, write, jnp.full(shape, zero))[:images]
