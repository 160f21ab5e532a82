"""Levels of a quantized kernel: the nearest ones, and the two on either side."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx


def find_levels(layer: Any) -> Callable[[np.ndarray, np.ndarray, int], np.ndarray]:
    """Return ``nearest(channels, values, row)`` to a layer's levels, in float64.

    A level is kept as the layer gives it, float32, so that the layer quantizes it to
    itself.
    """
    spec = layer.quant.get_value()
    kernel = np.asarray(layer.kernel.get_value())
    if spec.method == "lq_net":
        table = _reachable_levels(layer)

        def nearest_of_table(channels, values, row):
            apart = np.abs(table[:, channels] - values)
            return np.take_along_axis(
                table[:, channels], np.nanargmin(apart, axis=0)[None], axis=0
            )[0]

        return nearest_of_table
    high, low, step = (
        np.broadcast_to(np.asarray(x, np.float64), kernel.shape).reshape(
            -1, kernel.shape[-1]
        )
        for x in _grid(layer, spec)
    )

    def nearest(channels, values, row):
        unit, top, least = (x[row, channels] for x in (step, high, low))
        # From the lowest level on, so that mid-rise and mid-tread are one.
        index = np.rint((values - least) / unit)
        return least + np.clip(index, 0, np.rint((top - least) / unit)) * unit

    return nearest


def _grid(layer, spec):
    """Return the highest and lowest level and their distance, by weight."""
    w = layer.kernel.get_value()
    wide = jnp.full_like(w, 1e9)
    scale = None if layer.quant_scale is None else layer.quant_scale.get_value()
    high, low = spec(wide, scale), spec(-wide, scale)
    bits = np.asarray(spec.bits, np.float64)
    if spec.method == "lsq" or spec.grid == "mid_tread":
        levels = 2.0**bits - 1
        if spec.method == "lsq" or not spec.signed:
            levels = 2.0**bits
    else:
        levels = 2.0**bits
    step = (np.asarray(high, np.float64) - np.asarray(low, np.float64)) / (levels - 1)
    return high, low, step


def _reachable_levels(layer) -> np.ndarray:
    """Return LQ-Net's levels ``[L, C]``; NaN for those beyond the clip.

    Weights are clipped before they are encoded, and what is clipped may be another
    level's.
    """
    levels = np.asarray(layer.encode()[1], np.float64)
    copy = nnx.clone(layer)
    shape = (len(levels), *(1,) * (layer.kernel.ndim - 2), levels.shape[-1])
    copy.kernel = nnx.Param(jnp.asarray(levels, jnp.float32).reshape(shape))
    found = np.asarray(copy.quantized_kernel(train=False), np.float64)
    return np.where(found.reshape(levels.shape) == levels, levels, np.nan)


def find_neighbours(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return for each weight the levels below and above it, float64.

    Beyond the last level they are the two outermost ones.
    """
    spec = layer.quant.get_value()
    w = np.asarray(layer.kernel.get_value(), np.float64)
    if spec.method == "lq_net":
        columns = w.reshape(-1, w.shape[-1])
        below, above = np.empty_like(columns), np.empty_like(columns)
        for c, levels in enumerate(_reachable_levels(layer).T):
            levels = np.unique(levels[~np.isnan(levels)])
            place = np.clip(np.searchsorted(levels, columns[:, c]), 1, len(levels) - 1)
            below[:, c], above[:, c] = levels[place - 1], levels[place]
        return below.reshape(w.shape), above.reshape(w.shape)
    high, low, step = (np.asarray(x, np.float64) for x in _grid(layer, spec))
    most = np.rint((high - low) / step) - 1
    below = low + np.clip(np.floor((w - low) / step), 0, most) * step
    return below, below + step
