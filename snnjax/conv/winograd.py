"""3-tap convolutions of stride 1 by Winograd's minimal filtering along rows.

F(4, 3) makes 4 neighbouring outputs of a row from 6 inputs with 6 products, not 12. The
three taps of a column are summed inside the matrix product: its left side holds three
shifted copies of the transformed rows. So a 3x3 convolution is 6 matrix products with
half the multiplications. Tiles in both dimensions would save more of them, and lose it
again in copying: 36 products of smaller matrices were no faster, and took ten times as
long to compile. The transforms are matrix products too, for the compiler's sake: a
third of the time that sums of slices take.

The cost is rounding: in float32 the error is about 5e-6 of the largest result, against
3e-7 for a plain sum. Spikes are transformed exactly, because that matrix holds small
whole numbers.

Source: Lavin and Gray, `Fast Algorithms for Convolutional Neural Networks
<https://arxiv.org/abs/1509.09308>`_, 2016.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from snnjax._arrays import compute_dtype
from snnjax._order import delay_until
from snnjax.conv.chunks import Padding, map_chunks, pad_images

TILE, TAPS = 4, 3
PRODUCTS = TILE + TAPS - 1

# Transforms of outputs, kernel and inputs: A^T [(G g) * (B^T d)] is the
# correlation of 6 inputs d with 3 taps g. Interpolation at 0, 1, -1, 2, -2, infinity.
OUTPUT = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ]
)
KERNEL = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)


def convolve(x: Array, w: Array, padding: Padding) -> Array:
    """Convolve ``[N, H, W, C]`` with ``[k, 3, C, K]``, of any height k."""
    k, _, c, out = w.shape
    height, width = (
        n + sum(pad) - size + 1
        for n, pad, size in zip(x.shape[1:3], padding, w.shape, strict=False)
    )
    tiles = -(-width // TILE)
    dtype = compute_dtype(w)
    # Larger than the kernel, so computed when the data are ready, not at the start.
    kernels = jnp.einsum(
        "qj,ijck->qick", _as_matrix(KERNEL, dtype), delay_until(w, x).astype(dtype)
    )
    kernels = kernels.reshape(PRODUCTS, k * c, out)

    def process_chunk(x):
        inputs = _transform_inputs(x.astype(dtype), k, padding, height, tiles)
        products = jnp.einsum("qmc,qck->qmk", inputs, kernels)
        y = jnp.einsum("tq,qmk->tmk", _as_matrix(OUTPUT, dtype), products)
        y = y.astype(w.dtype).swapaxes(0, 1).reshape(-1, height, tiles * TILE, out)
        return y[:, :, :width]

    elements = PRODUCTS * height * tiles * max(k * c, out)
    return map_chunks(process_chunk, (x,), elements)


def kernel_gradient(x: Array, dy: Array, k: int, padding: Padding) -> Array:
    """Compute the gradient ``[k, 3, C, K]`` of `convolve` by transposed transforms."""
    (_, height, width, out), c = dy.shape, x.shape[-1]
    tiles = -(-width // TILE)
    dtype = compute_dtype(dy)

    def process_chunk(x, dy):
        inputs = _transform_inputs(x.astype(dtype), k, padding, height, tiles)
        dy = pad_images(dy.astype(dtype), ((0, 0), (0, tiles * TILE - width)))
        parts = _slice_tiles(dy, TILE, tiles).reshape(TILE, -1, out)
        cotangents = jnp.einsum("tq,tmk->qmk", _as_matrix(OUTPUT, dtype), parts)
        # The longer axis last fills XLA's vectors: half the time of the transpose.
        return jnp.einsum("qmk,qmc->qkc", cotangents, inputs)

    elements = PRODUCTS * height * tiles * max(k * c, out)
    sums = map_chunks(process_chunk, (x, dy), elements, add=True).reshape(
        PRODUCTS, out, k, c
    )
    return jnp.einsum("qj,qkic->ijck", _as_matrix(KERNEL, dtype), sums).astype(dy.dtype)


def _as_matrix(matrix, dtype):
    return jnp.asarray(matrix, dtype)


def _transform_inputs(x, k, padding, height, tiles):
    """Compute the left factors ``[6, N * height * tiles, k * C]`` of the products."""
    size, low = tiles * TILE + TAPS - 1, padding[1][0]
    x = pad_images(x, (padding[0], (low, size - x.shape[2] - low)))
    parts = _slice_tiles(x, PRODUCTS, tiles)
    rows = jnp.einsum("qi,i...->q...", _as_matrix(INPUT, x.dtype), parts)
    taps = [rows[:, :, i : i + height] for i in range(k)]
    return jnp.concatenate(taps, -1).reshape(PRODUCTS, -1, k * x.shape[-1])


def _slice_tiles(x, number, tiles):
    """Slice the first columns of every tile: ``[number, N, H, tiles, C]``."""
    last = TILE * (tiles - 1) + 1
    slices = [jax.lax.slice_in_dim(x, i, i + last, TILE, 2) for i in range(number)]
    return jnp.stack(slices)
