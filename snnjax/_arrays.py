"""Dtypes and ranks of arithmetic, explicit so that strict promotion modes work."""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike


def promote_dtypes(*dtypes: DTypeLike) -> jnp.dtype:
    """Return the dtype that holds all of these, by JAX's standard promotion."""
    with jax.numpy_dtype_promotion("standard"):
        return functools.reduce(jnp.promote_types, dtypes, jnp.dtype(dtypes[0]))


def compute_dtype(*arrays: Array) -> jnp.dtype:
    """Return the dtype to compute in: that of the arrays, float32 at least."""
    # JAX has no promotion of 8-bit floats; all of them are in float32.
    wide = (x.dtype for x in arrays if x.dtype.itemsize > 1)
    return promote_dtypes(jnp.float32, *wide)


def match_rank(x: Array, rank: int) -> Array:
    """Prepend axes of size 1 up to this rank; a scalar stays a scalar."""
    return x.reshape((1,) * (rank - x.ndim) + x.shape) if x.ndim else x


def widen(x: ArrayLike) -> Array:
    """Return numbers in float32 at least."""
    x = jnp.asarray(x)
    return x.astype(compute_dtype(x))


def match_mask(mask: Array | None, x: Array) -> Array | None:
    """Append axes of size 1 to a mask ``[T, B]`` for ``x`` ``[T, B, ...]``."""
    return None if mask is None else mask.reshape(*mask.shape, *(1,) * (x.ndim - 2))


@jax.custom_jvp
def sum_over_first(x: Array) -> Array:
    """Sum floats over the first axis, as ``jnp.sum(x, 0)``.

    XLA for CPUs adds them one by one, in strides of all the other axes, and adds again
    in each use of a sum that is written out; a matrix product with ones takes a tenth.
    """
    return jax.lax.platform_dependent(
        x, cpu=_multiply_by_ones, default=lambda x: jnp.sum(x, axis=0)
    )


@sum_over_first.defjvp
def _sum_tangents(x, tangent):
    # Its transpose is a broadcast.
    return sum_over_first(*x), jnp.sum(*tangent, axis=0)


def _multiply_by_ones(x: Array) -> Array:
    return jnp.tensordot(jnp.ones(x.shape[0], x.dtype), x, 1, precision="highest")


@jax.jit  # a division by a constant, with and without gradients
def mean_over_first(x: Array) -> Array:
    """Average floats over the first axis, see `sum_over_first`."""
    return sum_over_first(x) / x.shape[0]


def mean_over_time(x: ArrayLike, mask: Array | None = None) -> Array:
    """Average ``[T, B, ...]`` over the steps of each sequence, in float32 at least.

    ``mask`` ``[T, B]`` is True for the steps of each sequence; None is all.
    """
    x = widen(x)
    steps = match_mask(mask, x)
    if steps is None:
        return jnp.mean(x, axis=0)
    return jnp.sum(jnp.where(steps, x, 0), 0) / jnp.sum(steps, 0).astype(x.dtype)
