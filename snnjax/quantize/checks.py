"""What every quantizer asks of its arguments.

Only what lies on the host is looked at: of what is traced, nothing can be known.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from snnjax import _checks


def is_number(value: Any) -> bool:
    """Whether it is a number that can be looked at: Python's, or numpy's of rank 0."""
    if isinstance(value, np.ndarray):
        return value.ndim == 0
    return isinstance(value, (int, float, np.number))


def require_bits(bits: Any, least: int, most: int, of: str) -> None:
    """Raise ValueError unless bits is whole and from ``least`` to ``most``."""

    def holds(x):
        return (least <= x) & (x <= most) & (np.round(x) == x)

    _checks.values(bits, holds, f"{of} takes whole bits from {least} to {most}")


def require_nonempty(name: str, x: Array) -> None:
    """Raise ValueError where there is nothing to take a scale from."""
    if x.size == 0:
        raise ValueError(f"{name} is empty, of shape {x.shape}: a scale needs values")


def compute_dtype(x: Array) -> jnp.dtype:
    """The dtype to quantize in: float32 at least."""
    return jnp.promote_types(x.dtype, jnp.float32)
