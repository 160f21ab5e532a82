"""Argument checks of the spike train distances.

Traced values are unknown inside jit; only their shapes and dtypes are checked.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks


def as_train(name: str, x: ArrayLike) -> Array:
    """Convert to an array ``[T, ...]``.

    Raises:
        ValueError: no time, T = 0, or values other than 0 and 1 (outside ``jit``).
    """
    x = _checks.require_real(name, x)
    shape = x.shape
    if not shape or not shape[0]:
        raise ValueError(
            f"{name} must be [T, ...] with T at least 1, time first, got shape {shape}"
        )
    if x.dtype != jnp.bool_ and not _checks.all_satisfy(
        x, lambda x: (x == 0) | (x == 1)
    ):
        raise ValueError(
            f"{name} must be 0 and 1, got {x.min()} to {x.max()}; an ADD block's "
            "output is not a spike train, its neurons' spikes are"
        )
    return jnp.asarray(x)


def as_pair(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Convert two trains to arrays; ValueError also for different shapes."""
    x, y = _checks.require_real("x", x), _checks.require_real("y", y)
    if x.shape != y.shape:
        raise ValueError(
            f"the trains must have the same shape [T, ...], got {x.shape} and {y.shape}"
        )
    return as_train("x", x), as_train("y", y)


def as_nonnegative(name: str, value: ArrayLike, dtype: Any) -> Array:
    """Convert to a scalar; ValueError for readable values that are negative or NaN."""
    value = _checks.require_real(name, value)
    if value.ndim:
        raise ValueError(
            f"{name} must be one number, got shape {np.shape(value)}; for several use "
            "jax.vmap"
        )
    # Written so that NaN fails.
    if not isinstance(value, jax.core.Tracer) and not float(np.asarray(value)) >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return jnp.asarray(value, dtype)


def mask_invalid(number: Array, result: Array) -> Array:
    """Return the result, or NaN where a traced number is negative or NaN."""
    return jnp.where(number >= 0, result, jnp.nan)
