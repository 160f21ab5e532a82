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

    def split(x):
        if number * size > images:
            pad = ((0, number * size - images, 0), *((0, 0, 0),) * (x.ndim - 1))
            x = jax.lax.pad(x, jnp.zeros((), x.dtype), pad)
        return x.reshape(number, size, *x.shape[1:])

    parts = tuple(split(x) for x in arrays)
    result = jax.eval_shape(function, *(part[0] for part in parts))
    # The result buffer depends on the data: it is then allocated when they are ready,
    # not at the program's start, and varies over a mesh as they do.
    zero = functools.reduce(delay_until, arrays, jnp.zeros((), result.dtype))
    if add:

        def accumulate(total, xs):
            return total + function(*xs), None

        return jax.lax.scan(accumulate, jnp.full(result.shape, zero), parts)[0]

    def write(out, place):
        i, xs = place
        return jax.lax.dynamic_update_index_in_dim(out, function(*xs), i, 0), None

    room = jnp.full((number, *result.shape), zero)
    out, _ = jax.lax.scan(write, room, (jnp.arange(number), parts))
    return out.reshape(number * size, *out.shape[2:])[:images]
