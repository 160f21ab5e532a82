"""Kernels in whole numbers: codes, and for uneven levels a table of their weights."""

from typing import Any, NamedTuple

import numpy as np

from snnjax.layers import QuantConv, QuantLinear
from snnjax.layers.variables import value_of

_ROOM_BITS = 29  # of a sum of weights that are rounded to whole numbers
_WEIGHT_BITS = 24  # of such a weight


class Kernel(NamedTuple):
    """A kernel ``[k, m, C_in / groups, C]`` in whole numbers.

    Attributes:
        codes: the weights; with a table the indices of its rows.
        table: weights ``[levels, C]``, int32, or None.
        scale: [C]: what one of a weight times one of the input is worth.
        bits: of a code.
    """

    codes: np.ndarray
    table: np.ndarray | None
    scale: np.ndarray
    bits: int

    def flip(self, channels: np.ndarray) -> "Kernel":
        """Return it with the signs of these channels' weights changed."""
        signs = np.where(channels, -1, 1).astype(np.int32)
        if self.table is not None:
            return self._replace(table=self.table * signs)
        return self._replace(codes=narrow(self.codes * signs))


def encode_kernel(
    name: str,
    layer: QuantConv | QuantLinear,
    scale: np.ndarray,
    greatest: int,
    *,
    one_scale: bool,
) -> Kernel:
    """Return a layer's kernel in whole numbers.

    Codes of a uniform grid are its own. Levels of LQ-Net are rounded to multiples of a
    power of 2, as fine as the accumulator has room for; likewise the weights where a
    channel has several scales: by groups, or by the channels of the input.

    Args:
        name: of the layer, for errors.
        layer: quantized.
        scale: what one of the input is worth, one number or ``[C_in]``.
        greatest: magnitude of the input.
        one_scale: all channels are to have the same scale, as logits have.

    Raises:
        ValueError: a kernel in full precision.
    """
    if layer.quant is None:
        raise ValueError(
            f"{name} is in full precision between quantized layers; quantize it, to "
            "8 bits where accuracy allows no fewer: calibrate.quantize(model, "
            f'{{"{name}": QuantSpec(bits=8, clip="absmax")}})'
        )
    spec = layer.quant.get_value()
    codes, found = layer.encode()
    channels, is_linear = codes.shape[-1], codes.ndim == 2
    codes = codes[None, None] if is_linear else codes
    bits = int(np.max(np.asarray(spec.bits)))
    if spec.method == "lq_net":
        levels = np.asarray(found, np.float64)
        weights = levels[codes, np.arange(channels)]
        if scale.ndim == 0:
            unit = _find_unit(weights, greatest, one_scale)
            table = np.rint(levels / unit).astype(np.int32)
            return Kernel(codes.astype(np.uint8), table, unit * scale, bits)
    else:
        step = _find_step(spec, layer, found)
        sizes = (1,) if one_scale else (1, channels)
        if scale.ndim == 0 and step.size in sizes:
            step = np.broadcast_to(step.reshape(-1), (channels,))
            return Kernel(narrow(codes), None, step * scale, bits)
        weights = np.asarray(layer.quantized_kernel(train=False), np.float64)
        weights = weights[None, None] if is_linear else weights
    weights = weights * (scale[:, None] if scale.ndim else scale)
    unit = _find_unit(weights, greatest, one_scale)
    wide = narrow(np.rint(weights / unit))
    return Kernel(wide, None, unit, 8 * wide.dtype.itemsize)


def _find_step(spec: Any, layer: Any, scale: Any) -> np.ndarray:
    """Return the scale of codes in float64: the bound of the levels over its code."""
    scale = np.asarray(scale, np.float64)
    match spec.method:
        case "uniform":
            bound = spec.bounds(layer.kernel.get_value())
        case "mint":
            bound = value_of(layer.quant_scale)
        case "dorefa" if spec.bits != 1:
            bound = 1.0
        case _:
            return scale
    bound = np.asarray(bound, np.float64)
    if bound.size != scale.size:
        return scale
    bound = bound.reshape(scale.shape)
    return np.asarray(bound / np.rint(bound / scale))


def _find_unit(weights: np.ndarray, greatest: int, one_scale: bool) -> np.ndarray:
    """Return a power of 2 for each channel, in which weights are whole numbers."""
    columns = np.abs(weights).reshape(-1, weights.shape[-1])
    most, total = columns.max(0), columns.sum(0) * max(greatest, 1)
    least = np.maximum(most / 2.0 ** (_WEIGHT_BITS - 1), total / 2.0**_ROOM_BITS)
    if one_scale:
        least = np.full_like(least, least.max())
    return 2.0 ** np.ceil(np.log2(np.where(least > 0, least, 1.0)))


def narrow(codes: np.ndarray) -> np.ndarray:
    """Return whole numbers in the smallest of int8, int16 and int32 that holds them."""
    low, high = codes.min(initial=0), codes.max(initial=0)
    for dtype in (np.int8, np.int16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return codes.astype(dtype)
    return codes.astype(np.int32)
