"""Comparison of an integer network with the fake-quantized one that it was made of."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax.integer.network import IntegerNetwork


class LayerDifference(NamedTuple):
    """Spikes of a layer in `count_differences`.

    Attributes:
        differing: number of neurons' steps in which one fires and the other does not.
        fired: spikes of the fake-quantized network.
        size: number of neurons' steps.
    """

    differing: int
    fired: int
    size: int


def count_differences(
    network: IntegerNetwork,
    model: nnx.Module,
    x: Any,
    *,
    timesteps: int | None = None,
    batch_size: int = 128,
) -> dict[str, LayerDifference]:
    """Count the spikes in which a twin differs from its network, computed in float64.

    Args:
        network: of `from_model`.
        model: of which it was made.
        x: images ``[N, H, W, C]``, as the model takes them or as integer pixels.
        timesteps: T; by default the network's.
        batch_size: images of one pass.

    Returns:
        For each layer its `LayerDifference`.
    """
    steps = network.timesteps if timesteps is None else timesteps
    x = np.asarray(x)
    start: Any = network.border
    floats = x
    if x.dtype.kind != "f":
        floats = (x / start.full_scale - start.mean) / start.std
    found: dict[str, np.ndarray] = {}
    with jax.enable_x64(True):
        graph, state = nnx.split(model)
        state = jax.tree.map(_widen, state)
        program = jax.jit(lambda state, x: nnx.merge(graph, state)(x, timesteps=steps))
    for i in range(0, len(x), batch_size):
        with jax.enable_x64(True):
            batch = jnp.asarray(floats[i : i + batch_size], jnp.float64)
            spikes = jax.tree.map(np.asarray, program(state, batch)[1])
        own = network.run(x[i : i + batch_size], timesteps=steps).spikes
        for name, train in spikes.items():
            differing = np.count_nonzero(train != np.asarray(own[name]))
            counts = np.array([differing, train.sum(), train.size], np.int64)
            found[name] = found.get(name, 0) + counts
    return {name: LayerDifference(*counts.tolist()) for name, counts in found.items()}


def _widen(x: Any) -> Any:
    return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x
