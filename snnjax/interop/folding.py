"""BatchNorm and the leak's share of the input, folded into the weights before them."""

import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from snnjax.layers import EPSILON
from snnjax.models.graph import Node, get_module
from snnjax.neurons import IF


def widen(array: ArrayLike) -> np.ndarray:
    """Return it in float32 at least, as membranes are: readers take nothing shorter."""
    array = np.asarray(array)
    return array.astype(np.promote_types(array.dtype, np.float32))


def fold_layer(model: nnx.Module, node: Node) -> tuple[np.ndarray, np.ndarray]:
    """Return factor and bias of a layer's output, with BatchNorm and the leak."""
    layer = get_module(model, node.weights or "")
    channels = layer.kernel.shape[-1]
    factor, bias = np.ones(channels), np.zeros(channels)
    if layer.bias is not None:
        bias = np.asarray(layer.bias.get_value(), np.float64)
    if node.norm is not None:
        norm = get_module(model, node.norm)
        scale, shift, mean, var = (
            np.asarray(part.get_value(), np.float64)
            for part in (norm.scale, norm.bias, norm.mean, norm.var)
        )
        factor = scale / np.sqrt(var + EPSILON)
        bias = shift + (bias - mean) * factor
    if node.spiking is not None:
        neuron = get_module(model, node.spiking).learned_neuron()
        if not isinstance(neuron, IF) and neuron.decay_input:
            decay = 1 / np.asarray(neuron.tau, np.float64)
            by_channel = (decay.size, decay.shape[-1:]) == (channels, (channels,))
            if decay.size != 1 and not by_channel:
                raise ValueError(
                    f"tau of {node.spiking} must be one number or one a channel where "
                    f"the leak scales the input, got shape {decay.shape}"
                )
            factor, bias = factor * decay.reshape(-1), bias * decay.reshape(-1)
    return factor, bias
