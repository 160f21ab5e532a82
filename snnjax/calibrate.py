"""Post-training quantization: put quantizers on a trained network and fit them."""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks, cost, layers
from snnjax.layers import QuantConv, QuantLinear, Spiking
from snnjax.neurons.dynamics import check_site
from snnjax.quantize import QuantSpec

Model = TypeVar("Model", bound=nnx.Module)


def _quantizable(model: nnx.Module) -> dict[str, QuantConv | QuantLinear | Spiking]:
    """Every layer that takes a quantizer, by its dotted name."""
    _check_model(model)
    return {
        ".".join(str(part) for part in path): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, (QuantConv, QuantLinear, Spiking))
    }


def _check_model(model: nnx.Module) -> None:
    if not isinstance(model, nnx.Module):
        raise ValueError(f"model must be an nnx.Module, got {_checks.shown(model)}")


def quantize(
    model: Model,
    rules: Mapping[str, QuantSpec],
    *,
    membrane_site: str = "post_reset",
) -> Model:
    r"""A copy of ``model`` with quantizers on the layers that ``rules`` name.

    A rule's pattern is a regular expression for the whole dotted name; a spec on a
    convolution or linear layer quantizes its kernel, on a spiking layer its membrane.
    LQ-Net's bases are fitted to the weights as they are.

    Args:
        model: any NNX model of `layers`.
        rules: ``{pattern: QuantSpec}``; of several that match, the last wins.
        membrane_site: where membranes are quantized, see `neurons.lif`.

    Returns:
        The quantized copy, in evaluation mode; ``model`` stays as it was.

    Raises:
        ValueError: a pattern matches no layer, or is no regular expression; a rule
            that is no QuantSpec; an unknown site.

    Example: ``quantize(model, {r"layer.*\.conv\d": QuantSpec(bits=4, clip=1.0)})``
    """
    check_site("membrane_site", membrane_site)
    _check_model(model)
    if not isinstance(rules, Mapping):
        raise ValueError(
            f"rules must be {{pattern: QuantSpec}}, got {_checks.shown(rules)}"
        )
    copy = nnx.clone(model)
    copy.eval()
    names = _quantizable(copy)
    for pattern, spec in rules.items():
        if not isinstance(spec, QuantSpec):
            raise ValueError(f"the rule {pattern!r} must be a QuantSpec, got {spec!r}")
        if not isinstance(pattern, str):
            raise ValueError(f"a pattern must be a string, got {pattern!r}")
        try:
            matching = [name for name in names if re.fullmatch(pattern, name)]
        except re.error as error:
            raise ValueError(
                f"the pattern {pattern!r} is not a regular expression: {error}"
            ) from None
        if not matching:
            raise ValueError(
                f"the rule {pattern!r} matches no layer; a pattern must match the "
                f"whole of one of these names: {', '.join(names)}"
            )
        for name in matching:
            layer = names[name]
            if isinstance(layer, Spiking):
                layer.quantize(spec, site=membrane_site)
            else:
                layer.quantize(spec)
    return copy


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
    """Every layer that takes a quantizer, with the one it has."""
    table = []
    for name, layer in _quantizable(model).items():
        spec = None if layer.quant is None else layer.quant.get_value()
        if isinstance(layer, Spiking):
            table.append(LayerBits(name, "membrane", 0, spec))
        else:
            table.append(LayerBits(name, "weights", layer.kernel.size, spec))
    return table


def describe(model: nnx.Module) -> str:
    """A line for each layer: name, what is quantized, bits, method."""
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
    states = jax.tree.leaves(nnx.state(model, layers.QuantState))
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


@partial(jax.jit, static_argnums=(0, 3))
def _batch_statistics(graphdef, state, images: Array, timesteps: int) -> nnx.State:
    """Mean and variance of every BatchNorm on one batch of normalised images."""
    model = nnx.merge(graphdef, state, copy=True)
    zero = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.BatchStat))
    nnx.update(model, zero)
    model(images, timesteps=timesteps, train=True)
    # From zero, one step of the moving average is its weight times the batch's value.
    return jax.tree.map(lambda x: x / layers.MOMENTUM, nnx.state(model, nnx.BatchStat))


def _check_statistics(model: nnx.Module) -> None:
    """Raise ValueError where statistics are not of `layers.BatchNorm`.

    Others move by another share of the batch's: flax's by a hundredth.
    """
    own = {
        (*path, name)
        for path, module in nnx.iter_modules(model)
        if isinstance(module, layers.BatchNorm)
        for name in ("mean", "var")
    }
    others = [
        ".".join(map(str, path))
        for path, _ in nnx.to_flat_state(nnx.state(model, nnx.BatchStat))
        if path not in own
    ]
    if others:
        raise ValueError(
            "statistics can be measured anew of snnjax.layers.BatchNorm alone, got "
            f"others: {', '.join(others)}"
        )


def reestimate_batchnorm(
    model: Model, batches: Iterable[ArrayLike], *, timesteps: int = 4
) -> Model:
    """A copy of ``model`` with BatchNorm statistics measured anew.

    Each BatchNorm gets the mean over ``batches`` of the batch's mean and unbiased
    variance, with the quantizers in place. Nothing else changes, LQ-Net's bases
    included.

    Args:
        model: a network that is called as `models.SEWResNet` is.
        batches: normalised images ``[B, H, W, C]`` or sequences ``[T, B, H, W, C]``,
            as `data.network_input` makes them, all of one shape; of a network that was
            trained on crops, crops (`data.augment`), as whole images have other
            statistics.
        timesteps: T.

    Raises:
        ValueError: no batches, batches of different shapes, or such as give NaN;
            statistics of other layers than `layers.BatchNorm`.
    """
    _check_model(model)
    _check_statistics(model)
    if isinstance(batches, str) or not isinstance(batches, Iterable):
        raise ValueError(
            f"batches must be arrays of images, got {_checks.shown(batches)}"
        )
    graphdef, state = nnx.split(model)
    total, number, shape = None, 0, None
    for images in batches:
        shape = shape or jnp.shape(images)
        if jnp.shape(images) != shape:
            raise ValueError(
                f"batches must all have one shape, got {shape} and then "
                f"{jnp.shape(images)}; leave out a last one that is not full"
            )
        stats = _batch_statistics(graphdef, state, images, timesteps)
        total = stats if total is None else jax.tree.map(jnp.add, total, stats)
        number += 1
    if total is None:
        raise ValueError("re-estimating BatchNorm needs at least one batch")
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(total)):
        raise ValueError(
            "batches must give finite statistics, got NaN or infinity; look for them "
            "in the images and the weights"
        )
    copy = nnx.clone(model)
    copy.eval()
    nnx.update(copy, jax.tree.map(lambda x: x / number, total))
    return copy
