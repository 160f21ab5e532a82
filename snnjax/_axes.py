"""Inside `jax.shard_map`: arrays that vary over the same axes of the mesh."""

import jax
from jax import Array


def varying(*arrays: Array) -> list[Array]:
    """All of them varying where one does: by what was equal, a gradient then sums.

    A custom backward pass gives what varies for each of its inputs, and JAX refuses
    that for an input which does not.
    """
    axes = [jax.typeof(x).manual_axis_type.varying for x in arrays]
    missing = [tuple(frozenset().union(*axes) - have) for have in axes]
    return [
        jax.lax.pcast(x, names, to="varying") if names else x
        for x, names in zip(arrays, missing, strict=True)
    ]
