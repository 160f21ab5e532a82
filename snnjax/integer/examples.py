"""Test vector of an integer network: an input at the border and what comes out."""

import dataclasses
from typing import Any

import numpy as np

from snnjax.integer.border import INPUT
from snnjax.integer.network import IntegerNetwork

_IMAGES = 2
_RATE = 0.3  # of random spikes


def add_example(
    network: IntegerNetwork, shape: tuple[int, ...], example: Any
) -> IntegerNetwork:
    """Return the network with a test vector.

    Args:
        network: without one.
        shape: ``(H, W, C)`` at the border, of random inputs.
        example: what the model takes; None draws pixels or spikes at the border.
    """
    if example is not None:
        inputs = network.encode_input(example)
    else:
        drawn = np.random.default_rng(0)
        if network.border.name == INPUT:
            pixels = drawn.integers(0, 256, (_IMAGES, *shape))
            inputs = network.border.encode(pixels, network.timesteps)
        else:
            shape = (network.timesteps, _IMAGES, *shape)
            inputs = (drawn.random(shape) < _RATE).astype(np.int8)
    found = network.run_border_numpy(inputs)
    vector = {"input": inputs}
    if network.readout is None:
        vector["logits"] = found.logits.astype(np.int32)
    for name, spikes in found.spikes.items():
        if name != network.border.name:
            vector[f"spikes.{name}"] = spikes
    return dataclasses.replace(network, example=vector)
