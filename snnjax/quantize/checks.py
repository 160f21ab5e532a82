"""Argument checks of the quantizers.

Traced values are unknown.
"""

from typing import Any

import jax
import numpy as np
from jax import Array

from snnjax import _checks


def require_bits(bits: Any, least: int, most: int, of: str) -> None:
    """Raise ValueError unless bits is whole and from ``least`` to ``most``."""
    if isinstance(bits, Array) and not isinstance(bits, jax.core.Tracer):
        bits = np.asarray(bits)

    def is_in_range(x):
        if x.dtype == bool:
            return np.zeros(x.shape, bool)
        return (least <= x) & (x <= most) & (np.round(x) == x)

    _checks.require_values(
        bits, is_in_range, f"{of} takes whole bits from {least} to {most}"
    )


def require_nonempty(name: str, x: Array) -> None:
    """Raise ValueError for an empty array, which determines no scale."""
    if x.size == 0:
        raise ValueError(f"{name} is empty, of shape {x.shape}: a scale needs values")
