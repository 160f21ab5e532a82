"""Input gradients of strided convolutions, without the zeros between the outputs.

XLA spreads dy over the stride with zeros between, and for that has a slow convolution
only. Pixels that have the same place within a stride are a phase, and see the same few
taps of the kernel: so all phases together are one convolution of stride 1, with a
channel for each, whose outputs are then put side by side.
"""

import jax
import jax.numpy as jnp
from jax import Array

from snnjax.conv.chunks import Padding


def input_gradient(
    dy: Array, w: Array, size: tuple[int, int], strides, padding: Padding
) -> Array:
    """Compute the gradient ``[N, H, W, C]`` of a convolution by its input.

    Args:
        dy: ``[N, H', W', K]``.
        w: ``[k, m, C, K]``.
        size: (H, W).
        strides: of both axes.
        padding: of both axes; the gradient needs the first side's.
    """
    k, m, c, out = w.shape
    if (k, m) == (1, 1) and padding == ((0, 0), (0, 0)):
        return _spread(dy @ w[0, 0].T, size, strides)
    taps, pads, counts = jnp.flip(w, (0, 1)), [], []
    for axis in (0, 1):
        k, s, low = w.shape[axis], strides[axis], padding[axis][0]
        # Pixel s a + p sees dy[a + d] through tap p + low - s d.
        first, last = -((k - 1 - low) // s), (s - 1 + low) // s
        number, count = last - first + 1, -(-size[axis] // s)
        before = s + low - k - s * first
        pad = [(0, 0)] * w.ndim
        pad[axis] = (before, s * number - k - before)
        taps = jnp.pad(taps, pad)
        pads.append((-first, count + last - dy.shape[1 + axis]))
        counts.append((number, s, count))
    (rows, s, height), (columns, t, width) = counts
    taps = taps.reshape(rows, s, columns, t, c, out)[:, ::-1, :, ::-1]
    taps = taps.transpose(0, 2, 5, 1, 3, 4).reshape(rows, columns, out, s * t * c)
    y = jax.lax.conv_general_dilated(
        dy, taps, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y = y.reshape(-1, height, width, s, t, c).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(-1, height * s, width * t, c)
    return y[:, : size[0], : size[1]]


def _spread(x: Array, size: tuple[int, int], strides) -> Array:
    """Put the pixels of x at every stride of an image of this size, zeros between."""
    config = [(0, 0, 0)]
    for total, n, stride in zip(size, x.shape[1:3], strides, strict=True):
        config.append((0, total - (n - 1) * stride - 1, stride - 1))
    return jax.lax.pad(x, jnp.zeros((), x.dtype), (*config, (0, 0, 0)))
