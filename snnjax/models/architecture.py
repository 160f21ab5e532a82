"""Constructors' arguments of layers, as JSON values, and layers from them."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from snnjax import layers, neurons
from snnjax.layers.shapes import Pool

_POOLS = ("AvgPool", "MaxPool", "SumPool")


def describe_layers(named: Mapping[str, nnx.Module]) -> list | None:
    """Return ``[[name, kind, arguments], ...]``; None where a kind is not ours.

    Neurons and quantizers are not in it: a description holds them with their numbers.
    """
    found = [[name, type(x).__name__, _describe(x)] for name, x in named.items()]
    return None if any(arguments is None for *_, arguments in found) else found


def _describe(layer: Any) -> dict[str, Any] | None:
    match layer:
        case layers.QuantConv():
            axes = len(layer.strides)
            return {
                "in_features": layer.kernel.shape[-2] * layer.groups,
                "out_features": layer.kernel.shape[-1],
                "kernel_size": layer.kernel.shape[:axes],
                "strides": layer.strides,
                "padding": [before for before, _ in layer.padding],
                "dilation": layer.dilation,
                "groups": layer.groups,
                "use_bias": layer.bias is not None,
                "spikes": layer.keep is not None,
                **_dtypes(layer),
            }
        case layers.QuantLinear():
            sizes = layer.kernel.shape
            return {"in_features": sizes[0], "out_features": sizes[1], **_dtypes(layer)}
        case layers.QuantScale():
            return {
                "features": layer.kernel.shape[0],
                "param_dtype": layer.kernel.dtype.name,
            }
        case layers.BatchNorm():
            return {
                "features": layer.scale.shape[0],
                "param_dtype": layer.scale.dtype.name,
            }
        case layers.Recurrent():
            each = isinstance(layer.feedback, layers.QuantScale)
            dtypes = {} if each else _dtypes(layer.feedback)
            return {
                "features": layer.feedback.kernel.shape[0],
                "feedback": "one_to_one" if each else "all_to_all",
                "param_dtype": layer.feedback.kernel.dtype.name,
                **dtypes,
            }
        case layers.Spiking() | layers.Flatten():
            return {}
        case Pool():
            sizes = (
                {}
                if layer.window is None
                else {
                    "strides": layer.strides,
                    "padding": layer.padding,
                }
            )
            return {"window": layer.window, **sizes}
        case layers.Dropout():
            return {"rate": layer.rate}
    return None


def _dtypes(layer: Any) -> dict[str, Any]:
    dtype = None if layer.dtype is None else jnp.dtype(layer.dtype).name
    return {"dtype": dtype, "param_dtype": layer.kernel.dtype.name}


def build_layers(described: Sequence, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """Build the layers of `describe_layers`, with default neurons, without quantizers.

    Raises:
        ValueError: a kind of layer that this version does not have.
    """
    return {name: _build(kind, options, rngs) for name, kind, options in described}


def _build(kind: str, options: dict[str, Any], rngs: nnx.Rngs) -> nnx.Module:
    options = {
        key: tuple(x) if isinstance(x, list | tuple) else x
        for key, x in options.items()
    }
    match kind:
        case "QuantConv" | "QuantLinear" | "Dropout":
            return getattr(layers, kind)(**options, rngs=rngs)
        case "QuantScale" | "BatchNorm" | "Flatten":
            return getattr(layers, kind)(**options)
        case "Recurrent":
            return layers.Recurrent(neuron=neurons.LIF(), **options, rngs=rngs)
        case "Spiking":
            return layers.Spiking(neurons.LIF())
        case "Readout":
            return layers.Readout()
    if kind in _POOLS:
        return getattr(layers, kind)(**options)
    raise ValueError(
        f"the network has a layer of the kind {kind}, which this version of snnjax "
        "does not have; build the network and give it as model"
    )
