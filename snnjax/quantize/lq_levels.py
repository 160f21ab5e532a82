r"""LQ-Net's levels for membranes and activations.

Codes are 0 and 1, so that zero is always a level, and a layer has one basis:
unsigned :math:`\hat x = \sum_j v_j e_j` with :math:`e_j \in \{0, 1\}`, :math:`2^b`
levels; signed :math:`\pm \sum_j v_j e_j` by :math:`b - 1` vectors, :math:`2^b - 1`
levels.

LQ-Net's own update solves least squares over all values at once. Membrane potentials
arise step by step inside a scan, each from the previous quantized one, and never exist
at once. Here the gradient learns the basis instead, as it learns LSQ's step.

Source: Zhang et al., `LQ-Nets <https://arxiv.org/abs/1807.10029>`_, 2018, section 3.2,
for the levels; Esser et al., `Learned Step Size Quantization
<https://arxiv.org/abs/1902.08153>`_, 2020, section 2.2, for the size of the gradient.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays, _checks
from snnjax._axes import match_varying_axes
from snnjax.quantize import checks
from snnjax.quantize.lqnet import make_code_table


def count_vectors(bits: int, *, signed: bool) -> int:
    """Count the basis vectors of ``bits`` bits: one per bit, signed one fewer.

    Raises:
        ValueError: bits not from 1, signed 2, to 8: the levels are kept in a table.
    """
    sign = "signed" if signed else "unsigned"
    checks.require_bits(bits, 2 if signed else 1, 8, f"{sign} lq_levels")
    return int(bits) - signed


def lq_levels_init(*, bits: int, clip: ArrayLike = 1.0, signed: bool = True) -> Array:
    r"""Make the basis of a uniform mid-tread grid up to ``clip``.

    .. math:: v_j = c \, 2^j / (2^n - 1)

    for :math:`n = b` basis vectors, signed :math:`b - 1`.

    Raises:
        ValueError: bits or clip out of range, a clip that is not one number.

    >>> lq_levels_init(bits=3, clip=1.5).tolist()
    [0.5, 1.0]
    """
    number = count_vectors(bits, signed=signed)
    _checks.require_positive("clip", clip)
    if np.ndim(clip):
        raise ValueError(f"clip must be one number, got {_checks.format_value(clip)}")
    ladder = 2.0 ** jnp.arange(number, dtype=jnp.float32)
    return ladder * (jnp.asarray(clip, jnp.float32) / (2**number - 1))


def lq_levels(x: ArrayLike, basis: ArrayLike, *, signed: bool = True) -> Array:
    r"""Round each number to its nearest level; a tie goes to the lower level.

    Gradient by ``x``: 1 from the lowest to the highest level, 0 outside, as LQ-Net's
    activations. By the basis, for the codes :math:`e` and the sign of the level:

    .. math:: \frac{\partial \hat x}{\partial v_j} =
        \frac{\pm e_j}{\sqrt{N (2^n - 1)}}

    summed over all of ``x``, whose size is :math:`N`.

    Args:
        x: any shape, floating point.
        basis: ``[n]``, of 1 to 8 numbers of either sign.
        signed: include the negatives of the levels.

    Returns:
        Levels in the shape and dtype of ``x``. NaN stays NaN.

    Raises:
        ValueError: integer ``x``, a basis of another shape.

    >>> basis = lq_levels_init(bits=3, clip=1.5)
    >>> lq_levels(jnp.array([-9.0, 0.1, 0.3, 9.0]), basis).tolist()
    [-1.5, 0.0, 0.5, 1.5]
    """
    x, basis = (
        _checks.require_floating("x", x),
        _checks.require_floating("basis", basis),
    )
    if basis.ndim != 1 or not 1 <= len(basis) <= 8:
        raise ValueError(f"basis must be [1 to 8] numbers, got shape {basis.shape}")
    work = _arrays.compute_dtype(x, basis)
    found = _lq_levels(*match_varying_axes(x.astype(work), basis.astype(work)), signed)
    return found.astype(x.dtype)


def _make_codes(number: int, signed: bool) -> np.ndarray:
    """Codes of all levels ``[levels, number]``, zero once."""
    table = make_code_table(number)
    return np.concatenate([-table[:0:-1], table]) if signed else table


def _encode(x: Array, basis: Array, signed: bool) -> tuple[Array, Array, Array]:
    """Find the index of each nearest level; return it, the sorted levels and codes."""
    codes = jnp.asarray(_make_codes(len(basis), signed), basis.dtype)
    levels = jnp.matmul(codes, basis, precision="highest")
    # Sort each time: learning may reorder levels or flip a basis vector's sign.
    order = jnp.argsort(levels)
    levels = levels[order]
    edges = (levels[1:] + levels[:-1]) / 2
    return jnp.searchsorted(edges, x), levels, codes[order]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _lq_levels(x, basis, signed):
    place, levels, _ = _encode(x, basis, signed)
    # A comparison with NaN is false: the search would put it on the top level.
    return jnp.where(jnp.isnan(x), x, levels[place])


def _lq_levels_fwd(x, basis, signed):
    return _lq_levels(x, basis, signed), (x, basis)


def _lq_levels_bwd(signed, residuals, cotangent):
    x, basis = residuals
    place, levels, codes = _encode(x, basis, signed)
    inside = (levels[0] <= x) & (x <= levels[-1])
    sums = jax.ops.segment_sum(cotangent.ravel(), place.ravel(), len(levels))
    share = 1 / np.sqrt(max(x.size, 1) * (2 ** len(basis) - 1))
    by_basis = jnp.matmul(sums, codes, precision="highest") * share
    return jnp.where(inside, cotangent, 0), by_basis.astype(basis.dtype)


_lq_levels.defvjp(_lq_levels_fwd, _lq_levels_bwd)
