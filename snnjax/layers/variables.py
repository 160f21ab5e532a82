"""The kinds of variables that layers hold beside flax's, and their checks."""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike


class Numbers(nnx.Variable):
    """A neuron's or a quantizer's numbers: traced, neither trained nor measured."""


class QuantState(nnx.Variable):
    """LQ-Net's basis, which training updates beside the gradient."""


def value_of(variable: nnx.Variable | None) -> Array | None:
    """Its value, or None where there is no variable."""
    return None if variable is None else variable.get_value()


def checked(x: ArrayLike, axes: str, channels: int) -> Array:
    """Refuse what would broadcast, or turn kernels into integers, without a word."""
    x = jnp.asarray(x)
    rank = len(axes.split())
    if x.ndim < rank or x.shape[-1] != channels:
        raise ValueError(f"x must be [..., {axes}] with C = {channels}, got {x.shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"x must be floating point, got {x.dtype}; convert it with "
            ".astype(jnp.float32)"
        )
    return x


def check_sizes(**sizes: int) -> None:
    """Raise ValueError where one is below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
