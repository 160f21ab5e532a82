"""Layers without weights: pooling, dropout with one mask over time, flattening.

Each sees time and batch in front, ``[T, B, ...]``, as the other layers do.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays, _checks
from snnjax.layers.linear import as_sizes


class Pool(nnx.Module):
    """Pooling over the axes in front of the channels: `AvgPool`, `MaxPool`, `SumPool`.

    Args:
        window: of both axes, or of each; (length,) pools one axis; None is all
            positions of both axes, whatever their number.
        strides: of all axes, or of each; None is the window.
        padding: on each side, less than the window; zeros that count in a mean, as in
            torch.

    Raises:
        ValueError: sizes below 1, or padding that is no smaller than the window.
    """

    def __init__(
        self,
        window: int | tuple[int, ...] | None,
        *,
        strides: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
    ):
        axes = len(window) if isinstance(window, tuple) else 2
        if window is None:
            if strides is not None or padding != 0:
                raise ValueError(
                    "window=None is all positions and takes no strides and no padding, "
                    f"got strides={strides} and padding={padding}"
                )
            self.window, self.strides, self.padding = None, None, None
            return
        self.window = as_sizes("window", window, axes, 1)
        strides = self.window if strides is None else strides
        self.strides = as_sizes("strides", strides, axes, 1)
        self.padding = as_sizes("padding", padding, axes, 0)
        if any(p >= k for p, k in zip(self.padding, self.window, strict=True)):
            raise ValueError(
                f"padding must be less than the window {self.window}, or a window has "
                f"no input, got {self.padding}"
            )

    def sizes(self, shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
        """Return window, strides and padding of each axis for an input ``[..., C]``."""
        if self.window is None:
            return shape[-3:-1], shape[-3:-1], (0, 0)
        return self.window, self.strides, self.padding

    def __call__(self, x: ArrayLike) -> Array:
        """Pool ``[..., H, W, C]`` to ``[..., H', W', C]``; of one axis ``[..., L, C]``.

        Raises:
            ValueError: x of too few axes, or smaller than a window.
        """
        x = _checks.require_floating("x", x)
        axes = 2 if self.window is None else len(self.window)
        if x.ndim < axes + 1:
            raise ValueError(f"x must have {axes} axes and channels, got {x.shape}")
        window, strides, padding = self.sizes(x.shape)
        sizes = x.shape[-1 - axes : -1]
        if any(n + 2 * p < k for n, k, p in zip(sizes, window, padding, strict=True)):
            raise ValueError(
                f"the window {window} is larger than the input {sizes} with its padding"
            )
        front = (1,) * (x.ndim - axes - 1)
        return self.reduce(
            x,
            (*front, *window, 1),
            (*front, *strides, 1),
            (*((0, 0),) * len(front), *((p, p) for p in padding), (0, 0)),
        )

    def reduce(self, x: Array, window: Any, strides: Any, padding: Any) -> Array:
        """Reduce each window of all axes."""
        raise NotImplementedError


def _add(x: Array, window: Any, strides: Any, padding: Any) -> Array:
    """Sum windows in float32 at least: sums in bfloat16 stop at 256."""
    wide = _arrays.widen(x)
    return jax.lax.reduce_window(wide, 0.0, jax.lax.add, window, strides, padding)


class SumPool(Pool):
    """Sum of each window: spikes stay whole numbers."""

    def reduce(self, x, window, strides, padding):
        """Sum each window."""
        return _add(x, window, strides, padding).astype(x.dtype)


class AvgPool(Pool):
    """Mean of each window."""

    def reduce(self, x, window, strides, padding):
        """Average each window."""
        total = _add(x, window, strides, padding)
        return (total / math.prod(window)).astype(x.dtype)


class MaxPool(Pool):
    """Largest value of each window; spikes stay spikes."""

    def reduce(self, x, window, strides, padding):
        """Take the largest of each window."""
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)


class Dropout(nnx.Dropout):
    """Dropout with one mask over all time steps, as SpikingJelly's.

    A mask for each step would let a neuron's input flicker, which it averages out.
    ``.train()`` and ``.eval()`` switch it, as flax's, of which this is the one with
    ``broadcast_dims=(0,)``.

    Args:
        rate: probability that an entry is 0; the others are divided by ``1 - rate``.
        rngs: random keys, ``nnx.Rngs(0)``.

    Raises:
        ValueError: a rate outside [0, 1).
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        if not isinstance(rate, int | float) or not 0 <= rate < 1:
            raise ValueError(f"rate must be a number in [0, 1), got {rate!r}")
        super().__init__(rate, broadcast_dims=(0,), rngs=rngs)

    def __call__(self, x: ArrayLike, *, train: bool | None = None) -> Array:
        """Drop entries of ``[T, B, ...]``, of all steps alike.

        ``train``: None follows ``.train()`` and ``.eval()``.
        """
        x = _checks.require_floating("x", x)
        still = None if train is None else not train
        return super().__call__(x, deterministic=still)


class Flatten(nnx.Module):
    """Flatten all axes behind time and batch: ``[T, B, ...]`` to ``[T, B, C]``."""

    def __call__(self, x: ArrayLike) -> Array:
        """Flatten.

        Raises:
            ValueError: x without time and batch.
        """
        x = _checks.as_array("x", x)
        if x.ndim < 2:
            raise ValueError(f"x must be [T, B, ...], got shape {x.shape}")
        return x.reshape(*x.shape[:2], -1)
