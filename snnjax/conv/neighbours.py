"""Convolutions of stride 1 with few channels: neighbouring outputs as channels.

XLA for CPUs has a fast convolution for more than 16 channels, and a slow one for fewer.
A kernel that is R - 1 columns wider, with R times the outputs, one copy of the kernel
for each of R neighbouring columns, makes R outputs of a row at once: a convolution of
stride R whose output needs no copy. It multiplies (m + R - 1) / m times as often, and
some of it by zeros: 4 / 3 for two neighbours of a 3x3 kernel.
"""

import jax
import jax.numpy as jnp
from jax import Array

from snnjax.conv.chunks import Padding

# Channels from which XLA takes its fast convolution, and those fastest for an image.
_LEAST, _OF_IMAGES = 17, 64


def count_neighbours(inputs: int, outputs: int) -> int:
    """Count the neighbours that make enough channels; 1 where nothing is needed."""
    if max(inputs, outputs) >= _LEAST:
        return 1
    wanted, number = _OF_IMAGES if inputs <= 4 else _LEAST, 2
    while number * outputs < wanted:
        number *= 2
    return number


def convolve(x: Array, w: Array, padding: Padding) -> Array:
    """Convolve ``[N, H, W, C]`` with ``[k, m, C, K]``."""
    _, m, c, out = w.shape
    number = count_neighbours(c, out)
    low, high = padding[1]
    width = x.shape[2] + low + high - m + 1
    groups = -(-width // number)
    shifts = [((0, 0), (j, number - 1 - j), (0, 0), (0, 0)) for j in range(number)]
    wide = jnp.concatenate([jnp.pad(w, shift) for shift in shifts], -1)
    y = jax.lax.conv_general_dilated(
        x,
        wide,
        (1, number),
        (padding[0], (low, groups * number - width + high)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y = y.reshape(*y.shape[:2], groups * number, out)
    return y[:, :, :width]
