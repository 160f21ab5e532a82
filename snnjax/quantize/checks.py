"""What every quantizer asks of its arguments.

Only plain numbers are checked: of what is traced, nothing can be known inside jit.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


def is_number(value: Any) -> bool:
    """Whether it is a number that can be looked at: Python's, or numpy's of rank 0."""
    if isinstance(value, np.ndarray):
        return value.ndim == 0
    return isinstance(value, (int, float, np.number))


def whole_bits(bits: Any, least: int, most: int, of: str) -> None:
    """Raise ValueError unless bits is whole and from ``least`` to ``most``."""
    if is_number(bits) and not (least <= bits <= most and float(bits).is_integer()):
        raise ValueError(f"{of} takes whole bits from {least} to {most}, got {bits}")


def positive(name: str, value: Any) -> None:
    """Raise ValueError unless the value is positive and finite."""
    if is_number(value) and not 0 < value < np.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")


def floating(name: str, x: ArrayLike) -> Array:
    """As an array; ValueError unless it is floating point."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} must be floating point, got {x.dtype}")
    return x


def wide(x: Array) -> jnp.dtype:
    """The dtype to quantize in: float32 at least."""
    return jnp.promote_types(x.dtype, jnp.float32)
