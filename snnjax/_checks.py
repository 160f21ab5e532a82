"""Argument validation with readable errors.

Shapes and dtypes are always checked, values wherever they are known: of Python numbers,
NumPy arrays and concrete JAX arrays, those that a jitted function closes over included.
Traced arrays have none.
"""

import reprlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def format_value(value: Any) -> str:
    """Format a value for an error message, short and on one line."""
    if isinstance(value, (np.ndarray, Array)) and not is_real(value.dtype):
        return f"{value.dtype} of shape {value.shape}"
    if isinstance(value, (np.ndarray, np.generic, Array)):
        text = " ".join(str(value).split())
        return text if len(text) < 80 else f"{value.dtype} of shape {value.shape}"
    return " ".join(reprlib.repr(value).split())


def as_array(name: str, x: Any) -> Array:
    """Convert to an array; ValueError unless it holds numbers."""
    try:
        return jnp.asarray(x)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must be an array of numbers, got {format_value(x)}"
        ) from None


def require_floating(name: str, x: Any, hint: str = "") -> Array:
    """Convert to an array; ValueError unless it is floating point."""
    x = as_array(name, x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        hint = hint or "convert it with .astype(jnp.float32)"
        raise ValueError(f"{name} must be floating point, got {x.dtype}; {hint}")
    return x


def require_real(name: str, x: Any) -> Array | np.ndarray:
    """Convert to an array on its own device; ValueError unless the numbers are real."""
    given = x
    if not isinstance(x, Array):
        try:
            x = np.asarray(x)
        except jax.errors.TracerArrayConversionError:
            x = jnp.asarray(x)
        except ValueError:
            x = np.empty(0, object)  # rows of different lengths
    if not is_real(x.dtype):
        raise ValueError(f"{name} must be real numbers, got {format_value(given)}")
    return x


def require_values(
    value: Any, condition: Callable[[np.ndarray], Any], expected: str, hint: str = ""
) -> None:
    """Raise ValueError unless numbers are real and, if not traced, meet a condition.

    Args:
        value: numbers; an array on many hosts is checked by each for its part.
        condition: elementwise condition on a NumPy array.
        expected: start of the error message.
        hint: its end.
    """

    def make_error() -> ValueError:
        return ValueError(f"{expected}, got {format_value(value)}{hint}")

    if hasattr(value, "dtype") and not is_real(value.dtype):
        raise make_error()
    if isinstance(value, jax.core.Tracer):
        return
    try:
        seen = _read_shards(value)
    except jax.errors.TracerArrayConversionError:
        return  # a list with something traced in it
    except ValueError:
        raise make_error() from None
    # A comparison with NaN is false, so NaN fails.
    with np.errstate(invalid="ignore"):
        valid = all(is_real(p.dtype) and np.all(condition(p)) for p in seen)
    if not valid:
        raise make_error()


def _read_shards(value: Any) -> list[np.ndarray]:
    """Read an array on the host, or this host's parts of it."""
    if isinstance(value, Array) and not value.is_fully_addressable:
        return [np.asarray(shard.data) for shard in value.addressable_shards]
    return [np.asarray(value)]


def all_satisfy(x: Array | np.ndarray, condition: Callable[..., Any]) -> bool:
    """Return True if all elements meet a condition, or if the array is traced.

    The condition is evaluated on the array's device, and at compile time for an array
    that a jitted function closes over.
    """
    if isinstance(x, jax.core.Tracer):
        return True
    with jax.ensure_compile_time_eval():
        return bool(condition(x).all())


def require_positive(name: str, value: Any) -> None:
    """Raise ValueError for readable values that are not positive and finite."""
    expected = f"{name} must be positive and finite"
    require_values(value, lambda x: (x > 0) & (x < np.inf), expected)


def require_positive_number(name: str, value: Any, dtype: Any = None) -> None:
    """Raise ValueError unless it is one positive, finite number or traced.

    Args:
        name: of the argument.
        value: the number.
        dtype: in which the number must still be positive and finite.
    """
    if isinstance(value, jax.core.Tracer) and not value.ndim:
        return
    seen = value if isinstance(value, Array) else np.asarray(value)
    number = seen.ndim == 0 and is_real(seen.dtype)
    if not number or not 0 < float(seen) < np.inf:
        raise ValueError(f"{name} must be positive, got {format_value(value)}")
    if dtype is not None:
        limits = jnp.finfo(dtype)
        if not float(limits.tiny) <= float(seen) <= float(limits.max):
            raise ValueError(
                f"{name} must be from {limits.tiny:g} to {limits.max:g}, computed in "
                f"{limits.dtype}, got {format_value(value)}"
            )


def require_one_of(name: str, value: Any, options: tuple[str, ...]) -> None:
    """Raise ValueError unless it is one of the options."""
    if value not in options:
        raise ValueError(f"{name} must be one of {options}, got {value!r}")


def require_finite(name: str, value: Any) -> None:
    """Raise ValueError for readable values that are not finite."""
    expected = f"{name} must be finite"
    require_values(value, lambda x: np.isfinite(x.astype(np.float64)), expected)


def require_broadcast(name: str, value: Any, what: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless it broadcasts to ``shape``, the shape of ``what``."""
    given = np.shape(value)
    padded = (1,) * (len(shape) - len(given)) + given
    if len(padded) != len(shape) or any(
        n not in (1, m) for n, m in zip(padded, shape, strict=True)
    ):
        raise ValueError(
            f"{name} must be one number or broadcast to {what}, of shape {shape}, got "
            f"shape {given}"
        )


def require_whole(name: str, value: Any, least: int) -> None:
    """Raise ValueError unless it is a static whole number of at least ``least``."""
    if not is_whole(value):
        raise ValueError(
            f"{name} must be a whole Python number, got {format_value(value)}"
        )
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def is_whole(value: Any) -> bool:
    """Return True for a static whole number, Python's or NumPy's."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def require_key(value: Any) -> None:
    """Raise ValueError unless it is a random key."""
    if not hasattr(value, "dtype"):
        got = format_value(value)
        raise ValueError(f"key must be a random key, jax.random.key(0), got {got}")


def require_image_size(value: Any) -> None:
    """Raise ValueError unless it is (height, width)."""
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    if not pair or not all(is_whole(n) and n >= 1 for n in value):
        raise ValueError(
            "image_size must be (height, width), whole numbers of at least 1, got "
            f"{format_value(value)}"
        )


def require_callable(name: str, value: Any, like: str = "") -> None:
    """Raise ValueError unless it can be called."""
    if not callable(value):
        like = f", {like}" if like else ""
        raise ValueError(f"{name} must be a function{like}, got {format_value(value)}")


def is_real(dtype: Any) -> bool:
    """Return True for a dtype of real numbers."""
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)
