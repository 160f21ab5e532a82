"""Bounds of uniform levels, taken from the weights by a rule."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from snnjax.quantize.nearest import round_up_to_multiple, smallest_scale
from snnjax.quantize.powers import power_of_two
from snnjax.quantize.uniform import count_parts, uniform

PERCENTILE = 99.9  # of the magnitudes
_CANDIDATES = 128  # bounds that "mse" tries, up to the largest magnitude


def fit_clip(
    w: Array,
    rule: str,
    *,
    bits: ArrayLike,
    signed: bool,
    grid: str | None,
    per_channel: bool,
    group_size: int | None,
) -> Array:
    """Return the bounds of weights ``[..., C_out]`` by a rule.

    One number, ``[C_out]`` per channel, or ``[groups, C_out]``. A ``grid`` of None is
    powers of two.
    """
    rows, shape, count = _in_rows(w, per_channel, group_size)
    size = jnp.abs(rows)
    largest = jnp.max(size, axis=0)
    bits = jnp.ravel(jnp.asarray(bits, w.dtype))
    if bits.size > 1 and group_size is not None:
        bits = jnp.tile(bits, rows.shape[-1] // bits.size)  # of each group
    elif bits.size > 1 and not per_channel:
        raise ValueError(
            f"bits of each channel need a bound of each where clip is {rule!r}, got "
            f"bits of shape {bits.shape}; make it with per_channel=True, or give clip "
            "a number"
        )
    if rule == "percentile":
        find = jnp.percentile
        if count is not True:
            size, find = jnp.where(count, size, jnp.nan), jnp.nanpercentile
        clip = find(size, PERCENTILE, axis=0).astype(w.dtype)
    elif rule == "mse":
        if grid is None:
            quantize = functools.partial(power_of_two, bits=bits)
        else:
            quantize = functools.partial(uniform, bits=bits, signed=signed, grid=grid)
        clip = _least_error(rows, largest, quantize, count)
    else:
        clip = largest
    # Most weights may be zero, and the percentile with them.
    clip = jnp.where(clip > 0, clip, largest)
    clip = jnp.maximum(clip, jnp.asarray(2 * smallest_scale(w.dtype), w.dtype))
    if grid is None:
        return clip.reshape(shape)
    parts = count_parts(bits, signed=signed, grid=grid)
    return round_up_to_multiple(clip, parts).reshape(shape)


def _in_rows(w, per_channel, group_size):
    """Return the weights ``[n, bounds]`` of each bound, and the shape of the bounds.

    Third is which weights count: a last group that is not full has copies behind it.
    """
    if group_size is None:
        if not per_channel:
            return w.reshape(-1, 1), (), True
        return w.reshape(-1, w.shape[-1]), w.shape[-1:], True
    columns = w.reshape(-1, w.shape[-1])
    groups = -(-len(columns) // group_size)
    rest = groups * group_size - len(columns)
    whole = (groups * group_size, w.shape[-1])
    count = jnp.broadcast_to((jnp.arange(whole[0]) < len(columns))[:, None], whole)
    columns = jnp.pad(columns, ((0, rest), (0, 0)), mode="edge")
    rows, count = (
        x.reshape(groups, group_size, -1).swapaxes(0, 1).reshape(group_size, -1)
        for x in (columns, count)
    )
    return rows, (groups, w.shape[-1]), count


def _least_error(rows, largest, quantize, count):
    # Relative to the largest, so that squares do not under- or overflow.
    unit = jnp.where(largest > 0, largest, 1)
    rows = rows / unit[None]

    def error(clip):
        errors = jnp.square(rows - quantize(rows, clip=clip))
        return jnp.sum(jnp.where(count, errors, 0), axis=0)

    clips = jnp.arange(1, _CANDIDATES + 1, dtype=rows.dtype) / _CANDIDATES
    return clips[jnp.argmin(jax.lax.map(error, clips), axis=0)] * largest


def spread_groups(clip: Array, shape: tuple[int, ...], group_size: int) -> Array:
    """Repeat bounds ``[groups, C_out]`` for each weight, in the kernel's shape."""
    columns = math.prod(shape[:-1])
    return jnp.repeat(clip, group_size, axis=0)[:columns].reshape(shape)
