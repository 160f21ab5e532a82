"""Inspect a model: its layers that take quantizers, their bits, their memory."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import _checks, cost
from snnjax.layers.linear import QuantConv, QuantLinear
from snnjax.layers.spiking import Spiking
from snnjax.layers.variables import QuantState
from snnjax.quantize import QuantSpec


def check_model(model: nnx.Module) -> None:
    """Raise ValueError unless it is a Flax NNX module."""
    if not isinstance(model, nnx.Module):
        raise ValueError(
            f"model must be an nnx.Module, got {_checks.format_value(model)}"
        )


def quantizable_layers(
    model: nnx.Module,
) -> dict[str, QuantConv | QuantLinear | Spiking]:
    """Collect the layers that take a quantizer, by dotted name."""
    check_model(model)
    return {
        ".".join(str(part) for part in path): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, (QuantConv, QuantLinear, Spiking))
    }


class LayerBits(NamedTuple):
    """One layer in `layer_bits`.

    Attributes:
        name: dotted name.
        kind: ``"weights"`` or ``"membrane"``.
        size: kernel entries; 0 for a membrane, whose size the image decides.
        spec: its quantizer, or None.
    """

    name: str
    kind: str
    size: int
    spec: QuantSpec | None

    @property
    def bits(self) -> float:
        """Bits a value, the mean over channels: 32 without a quantizer."""
        if self.spec is None:
            return 32.0
        return float(np.mean(np.asarray(self.spec.bits, np.float64)))


def layer_bits(model: nnx.Module) -> list[LayerBits]:
    """List every layer that takes a quantizer, with the one it has."""
    table = []
    for name, layer in quantizable_layers(model).items():
        spec = None if layer.quant is None else layer.quant.get_value()
        if isinstance(layer, Spiking):
            table.append(LayerBits(name, "membrane", 0, spec))
        else:
            table.append(LayerBits(name, "weights", layer.kernel.size, spec))
    return table


def describe(model: nnx.Module) -> str:
    """Print a line for each layer: name, what is quantized, bits, method."""
    lines = []
    for layer in layer_bits(model):
        how = "float"
        if layer.spec is not None:
            how = f"{layer.bits:g} bit {_method(layer.spec)}"
        lines.append(f"{layer.name:24} {layer.kind:9} {how}")
    return "\n".join(lines)


def _method(spec: QuantSpec) -> str:
    parts = [spec.method]
    if spec.method == "uniform":
        parts[0] += f" {spec.grid}"
    if spec.method in ("uniform", "lsq") or not spec.signed:
        parts.append("signed" if spec.signed else "unsigned")
    if spec.per_channel:
        parts.append("per channel")
    elif np.size(spec.clip) > 1:
        parts.append("a clip for each of several")
    elif spec.clip is not None:
        parts.append(f"clip {np.asarray(spec.clip).item():g}")
    return ", ".join(parts)


def memory_bits(model: nnx.Module, neurons: Mapping[str, int]) -> tuple[int, int]:
    """Bits of all weights and of all membranes.

    Kernels at their quantizer's width; the other parameters, LQ-Net's bases and the
    channels' bounds at 32.

    Args:
        model: any NNX model of `layers`.
        neurons: ``{spiking layer: number of neurons}``, which the image decides.

    Raises:
        ValueError: a spiking layer is missing.
    """
    table = layer_bits(model)
    spiking = [layer for layer in table if layer.kind == "membrane"]
    missing = [layer.name for layer in spiking if layer.name not in neurons]
    if missing:
        raise ValueError(f"neurons must have every spiking layer; missing: {missing}")
    kernels = [(layer.size, layer.bits) for layer in table if layer.kind == "weights"]
    parameters = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    states = jax.tree.leaves(nnx.state(model, QuantState))
    # Not how often they were updated, which is no part of the network.
    bases = sum(x.size for x in states if jnp.issubdtype(x.dtype, jnp.floating))
    clips = [
        layer.spec.clip
        for layer in table
        if layer.kind == "weights" and layer.spec and layer.spec.method == "uniform"
    ]
    bounds = sum(np.size(clip) for clip in clips if np.ndim(clip))
    rest = parameters - sum(size for size, _ in kernels) + bases + bounds
    membranes = [(neurons[layer.name], layer.bits) for layer in spiking]
    return cost.memory_bits([*kernels, (rest, 32)]), cost.memory_bits(membranes)
