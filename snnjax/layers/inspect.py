"""Inspect a model: its layers that take quantizers, their bits, their memory."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import _checks, _pytree, cost
from snnjax.layers.linear import QuantConv, QuantLinear, QuantScale
from snnjax.layers.spiking import Spiking
from snnjax.layers.variables import QuantState
from snnjax.quantize import QuantSpec
from snnjax.quantize.powers import count_halvings


def check_model(model: Any, name: str = "model") -> None:
    """Raise ValueError unless it is a Flax NNX module."""
    if not isinstance(model, nnx.Module):
        raise ValueError(
            f"{name} must be a flax.nnx.Module, got {_checks.format_value(model)}; "
            "make one, say with snnjax.models.sew_resnet8"
        )


def check_ranges(model: nnx.Module) -> None:
    """Raise ValueError where a neuron or quantizer has a number out of its range.

    As their constructors do: a number that was put into a network later, by a sweep or
    a step of training, would give firing that seems to be measured.
    """
    for name, layer in quantizable_layers(model).items():
        parts = [] if layer.quant is None else [layer.quant.get_value()]
        if isinstance(layer, Spiking):
            parts.append(layer.learned_neuron())
        for part in parts:
            try:
                _pytree.check(part)
            except ValueError as error:
                raise ValueError(f"{name} has a number out of range: {error}") from None


def quantizable_layers(
    model: nnx.Module,
) -> dict[str, QuantConv | QuantLinear | QuantScale | Spiking]:
    """Collect the layers that take a quantizer, each once, by dotted name."""
    check_model(model)
    return {
        ".".join(str(part) for part in path): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, (QuantConv, QuantLinear, QuantScale, Spiking))
    }


def all_names(model: nnx.Module) -> dict[str, str]:
    """Map every dotted name of each layer that takes a quantizer to its first one.

    A layer that a network holds twice has two names, of which `quantizable_layers` has
    one.
    """
    first = {id(layer): name for name, layer in quantizable_layers(model).items()}
    names = {}

    def visit(node: Any, path: tuple[str, ...], parents: tuple[int, ...]) -> None:
        if id(node) in first:
            names[".".join(path)] = first[id(node)]
        if id(node) in parents:
            return
        for key, child in nnx.iter_children(node, graph=True):
            if not isinstance(child, nnx.Variable):
                visit(child, (*path, str(key)), (*parents, id(node)))

    visit(model, (), ())
    return names


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


class KernelError(NamedTuple):
    """Errors of a quantized kernel in `kernel_error`.

    Attributes:
        beyond: share of the weights beyond the highest or lowest level.
        rms: root mean square of the error, relative to that of the weights.
        bound: the part of ``rms`` from weights beyond the bound; the rest is rounding.
    """

    beyond: float
    rms: float
    bound: float


def kernel_error(layer: QuantConv | QuantLinear | QuantScale) -> KernelError:
    """Measure what quantizing does to a layer's kernel as it is.

    Of MINT the levels stand for tanh of the weights, and the error is theirs.
    """
    spec = layer.quant.get_value()
    w = np.asarray(layer.kernel.get_value(), np.float64)
    levels = np.asarray(layer.quantized_kernel(train=False), np.float64)
    if spec.method == "mint":
        w = np.tanh(w)
    if spec.method in ("dorefa", "binary", "ternary"):  # levels by the mean: no bound
        high, low = np.inf, -np.inf
    else:
        high, low = _end_levels(spec, layer.encode()[1])
    rounding = 1e-6 * np.abs(high)
    beyond = (w > high + rounding) | (w < low - rounding)
    size = np.sqrt(np.mean(w**2)) or 1.0
    error = (levels - w) ** 2
    return KernelError(
        float(beyond.mean()),
        float(np.sqrt(error.mean()) / size),
        float(np.sqrt(np.mean(np.where(beyond, error, 0))) / size),
    )


def _end_levels(spec: QuantSpec, scale):
    """Return the highest and the lowest level."""
    if spec.method == "lq_net":
        return scale.max(axis=0), scale.min(axis=0)
    if spec.method == "power_of_two":
        high = scale * 2.0 ** count_halvings(spec.bits)
        return high, -high
    bits = np.asarray(spec.bits, np.float64)
    if spec.method == "uniform" and not spec.has_zero:
        high = 2**bits - 1 if spec.signed else 2 ** (bits + 1) - 1
        low = -high if spec.signed else 1
    else:
        high = 2 ** (bits - spec.signed) - 1
        low = -high if spec.signed else 0
        if spec.method == "lsq" and spec.signed:
            low = -high - 1
    return high * scale, low * scale


def describe(model: nnx.Module) -> str:
    """Return a text with a line for each layer: name, what is quantized, bits, method.

    And for a quantized kernel the share of weights beyond its bound, the relative root
    mean square error, LSQ's and MINT's scale, and a warning where the bound leaves more
    error than rounding does: then take a wider clip, or ``clip="mse"``.
    """
    lines: list[str] = []
    layers: dict[str, Any] = quantizable_layers(model)
    for layer in layer_bits(model):
        how = "float"
        if layer.spec is not None:
            how = f"{layer.bits:g} bit {_method(layer.spec)}"
            if layer.kind == "weights":
                how += _describe_error(layers[layer.name])
            how += _describe_scale(layers[layer.name])
        lines.append(f"{layer.name:24} {layer.kind:9} {how}")
    return "\n".join(lines)


def _describe_error(layer: QuantConv | QuantLinear | QuantScale) -> str:
    if isinstance(layer.kernel.get_value(), jax.core.Tracer):
        return ""
    beyond, rms, bound = kernel_error(layer)
    text = f", {beyond:.1%} beyond the bound, rms error {rms:.1%}"
    if bound**2 > rms**2 / 2:
        text += " (WARNING: the bound leaves more error than rounding)"
    return text


def _describe_scale(layer: Any) -> str:
    if layer.quant_scale is None or layer.quant.get_value().method == "lq_net":
        return ""
    scale = np.asarray(layer.quant_scale.get_value())
    if layer.quant.get_value().zero_point:
        scale = scale[0]
    least, most = (f"{x:.3g}" for x in (scale.min(), scale.max()))
    return f", scale {least}" + (f" to {most}" if scale.size > 1 else "")


def _method(spec: QuantSpec) -> str:
    parts = [spec.method]
    if spec.method == "uniform":
        parts[0] += f" {spec.grid}"
    if spec.method in ("uniform", "lsq") or not spec.signed:
        parts.append("signed" if spec.signed else "unsigned")
    if spec.rounding == "stochastic":
        parts.append("stochastic")
    if spec.lq_codes != (-1, 1):
        parts.append("codes 0 and 1")
    if spec.zero_point:
        parts.append("zero point")
    if spec.pow2:
        parts.append("power of 2")
    if spec.per_channel:
        parts.append("per channel")
    elif spec.group_size is not None:
        parts.append(f"per group of {spec.group_size}")
    elif np.size(spec.clip) > 1:
        parts.append("a clip for each of several")
    elif spec.clip is not None:
        parts.append(f"clip {np.asarray(spec.clip).item():g}")
    return ", ".join(parts)


def memory_bits(model: nnx.Module, neurons: Mapping[str, int]) -> tuple[int, int]:
    """Bits of all weights and of all membranes.

    Kernels at their quantizer's width; the other parameters, LQ-Net's bases and the
    channels' bounds at 32. What layers share counts once.

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
    layers: dict[str, Any] = quantizable_layers(model)
    weights = {  # by kernel, which layers may share
        id(layers[layer.name].kernel): layer
        for layer in table
        if layer.kind == "weights"
    }.values()
    kernels = [(layer.size, layer.bits) for layer in weights]
    parameters = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    states = jax.tree.leaves(nnx.state(model, QuantState))
    # Not how often they were updated, which is no part of the network.
    bases = sum(x.size for x in states if jnp.issubdtype(x.dtype, jnp.floating))
    clips = [
        layer.spec.clip
        for layer in weights
        if layer.spec and layer.spec.method in ("uniform", "power_of_two")
    ]
    bounds = sum(np.size(clip) for clip in clips if np.ndim(clip))
    bounds += sum(
        layers[layer.name].kernel.shape[-1]
        for layer in weights
        if layer.spec
        and layer.spec.method in ("binary", "ternary")
        and layer.spec.per_channel
    )
    rest = parameters - sum(size for size, _ in kernels) + bases + bounds
    membranes = [(neurons[layer.name], layer.bits) for layer in spiking]
    return cost.memory_bits([*kernels, (rest, 32)]), cost.memory_bits(membranes)
