"""Images a few at a time, so that what is made of them stays in the cache."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from snnjax._order import delay_until

Padding = tuple[tuple[int, int], tuple[int, int]]

# Elements of the largest copy made of a chunk: 8 MB in float32. Smaller chunks make
# products too small for all cores, larger ones leave the last-level cache.
ELEMENTS = 2**21


def pad_images(x: Array, pads: Padding) -> Array:
    """Zeros around H and W of ``[N, H, W, C]``; negative numbers cut."""
    config = ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0))
    return jax.lax.pad(x, jnp.zeros((), x.dtype), config)


def choose_chunk_size(images: int, elements: int) -> int:
    """How many images at a time, if one makes ``each`` elements."""
    most = max(1, min(images, ELEMENTS // elements))
    divisor = next(n for n in range(most, 0, -1) if images % n == 0)
    # A number without divisors (a prime, say) is filled up with images of zeros.
    return divisor if 2 * divisor > most else most


def map_chunks(
    function: Callable[..., Array],
    arrays: tuple[Array, ...],
    elements: int,
    *,
    add: bool = False,
) -> Array:
    """``function`` of ``[N, ...]`` arrays, some images at a time.

    Args:
        function: of arrays ``[n, ...]`` to an array ``[n, ...]``, or with ``add`` to an
            array that is summed over the chunks; of images of zeros 0.
        arrays: ``[N, ...]``.
        each: elements of the largest array that it makes of an image.
        add: sum.
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
    # Room for the results is made when the data are there, not at the program's start,
    # and inside shard_map it varies over the mesh as they do.
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
