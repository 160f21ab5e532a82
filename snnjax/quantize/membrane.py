"""A quantizer on a neuron's membrane: its scale is learned or fixed."""

import jax.numpy as jnp
from jax import Array


def quantize_stored(spec, scale: Array | None, v: Array) -> Array:
    """Quantize the membrane as it is stored."""
    return spec(v, scale)


def quantize_leaked(spec, scale: Array | None, leak: Array, v: Array) -> Array:
    """Quantize the membrane after the leak, which the neuron takes next, as MINT."""
    # Where nothing is left, what is stored does not matter, but is to be a number.
    some = leak > 0
    leak = jnp.where(some, leak, 1)
    return jnp.where(some, spec(leak * v, scale) / leak, 0)
