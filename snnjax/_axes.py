"""Match the mesh axes over which arrays vary inside `jax.shard_map`."""

import jax
from jax import Array


def match_varying_axes(*arrays: Array) -> list[Array]:
    """Mark all arrays as varying over every mesh axis over which one of them varies.

    A custom backward pass returns varying cotangents for all of its inputs, and JAX
    refuses one for an input that does not vary. The gradient of an input that was
    replicated is summed over the mesh.
    """
    axes = [jax.typeof(x).manual_axis_type.varying for x in arrays]
    missing = [tuple(frozenset().union(*axes) - have) for have in axes]
    return [
        jax.lax.pcast(x, names, to="varying") if names else x
        for x, names in zip(arrays, missing, strict=True)
    ]
