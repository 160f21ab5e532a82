"""Graph of a network: its layers, poolings and junctions in order of computation.

The connection table (`connections.Synapse`) lists which neurons feed a layer, for
counting. Programs that rebuild a network, such as the integer twin, NIR's graphs and
snnTorch's modules, need each operation: that is what a graph lists.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from snnjax import _checks
from snnjax.layers import (
    AvgPool,
    BatchNorm,
    Dropout,
    Flatten,
    MaxPool,
    QuantConv,
    QuantLinear,
    Readout,
    Spiking,
    SumPool,
)
from snnjax.models.connections import INPUT
from snnjax.models.sequential import Sequential
from snnjax.models.sew_resnet import SEWResNet
from snnjax.models.spiking_vgg import SpikingVGG


class Node(NamedTuple):
    """One operation of a network.

    Attributes:
        name: of its output: the spiking layer's, as the model records it; the linear
            layer's for logits; ``"layer1.0.out"``, ``"pool1"``, ``"mean"`` for others.
        kind: ``"layer"`` (a convolution or linear layer, perhaps BatchNorm, perhaps
            neurons), ``"add"``, ``"and"``, ``"iand"`` (the first and not the second),
            ``"max_pool"``, ``"mean_pool"``, ``"sum_pool"`` or ``"flatten"``.
        sources: names of the nodes that it reads; ``("input",)`` for the image.
        weights: dotted name of a layer's convolution or linear module.
        norm: dotted name of its BatchNorm; None without.
        spiking: dotted name of its neurons; None for the layer of the logits.
        window: (height, width) of a pooling; () for all positions.
        strides: of a pooling.
        padding: of a pooling, on each side.
    """

    name: str
    kind: str
    sources: tuple[str, ...]
    weights: str | None = None
    norm: str | None = None
    spiking: str | None = None
    window: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()


def network_graph(model: nnx.Module) -> tuple[Node, ...]:
    """List a network's operations, each behind those that it reads.

    Raises:
        ValueError: a network of another class; a `models.Sequential` with recurrent
            layers, membrane readouts, neurons without weights in front of them or
            layers of one's own.
    """
    if isinstance(nodes := getattr(model, "nodes", None), tuple):
        return nodes  # a GraphNetwork, or a network of one's own that lists them
    if isinstance(model, SEWResNet):
        return tuple(_sew_resnet_nodes(model))
    if isinstance(model, SpikingVGG):
        return tuple(_vgg_nodes(model))
    if isinstance(model, Sequential):
        return tuple(_sequential_nodes(model))
    raise ValueError(
        "model must be a models.SEWResNet or a models.SpikingVGG or Sequential, got "
        f"{type(model).__name__}"
    )


def find_shapes(
    model: nnx.Module, image_size: tuple[int, int] | None = None
) -> dict[str, tuple[int, ...]]:
    """Map each node, and the input, to the shape of what it gives, without time.

    ``image_size`` as of ``model.synapses()``, for a network that was made for none.
    """
    nodes = network_graph(model)
    shape = getattr(model, "in_shape", getattr(model, "input_shape", None))
    if shape is None:
        shape = model.synapses(image_size)[0].in_shape  # pyrefly: ignore
    elif image_size is not None:
        _checks.require_image_size(image_size)
        if tuple(image_size) != shape[:-1]:
            raise ValueError(
                f"the network was made for inputs of {shape}, got image_size "
                f"{image_size}"
            )
    shapes: dict[str, tuple[int, ...]] = {INPUT: tuple(shape)}
    for node in nodes:
        *sizes, channels = shapes[node.sources[0]]
        window, strides, padding = node.window, node.strides, node.padding
        if node.kind == "flatten":
            sizes, channels = [], int(np.prod(sizes)) * channels
        elif node.kind == "mean_pool" and not window:
            sizes = []
        elif node.kind == "layer":
            layer = get_module(model, node.weights)
            channels = layer.kernel.shape[-1]
            if isinstance(layer, QuantConv):
                gaps = zip(layer.kernel.shape[:-2], layer.dilation, strict=True)
                window = tuple((k - 1) * d + 1 for k, d in gaps)
                strides, padding = layer.strides, tuple(p for p, _ in layer.padding)
        if window:
            axes = zip(sizes, window, strides, padding, strict=True)
            sizes = [(n + 2 * p - k) // s + 1 for n, k, s, p in axes]
        shapes[node.name] = (*sizes, channels)
    return shapes


def find_flattened_shapes(
    nodes: Sequence[Node], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Map linear layers behind a flattened map to its (height, width, channels).

    Of one axis, (length, channels). ``shapes`` are those of `find_shapes`. Other
    libraries flatten channels first: their kernels have other rows.
    """
    flat = {n.name: shapes[n.sources[0]] for n in nodes if n.kind == "flatten"}
    return {
        node.weights or "": flat[node.sources[0]]
        for node in nodes
        if node.kind == "layer" and len(flat.get(node.sources[0], ())) > 1
    }


def sees_positions(
    model: nnx.Module, node: Node, shapes: dict[str, tuple[int, ...]]
) -> bool:
    """Return True for a linear layer that runs at each position of a map."""
    layer = get_module(model, node.weights)
    return isinstance(layer, QuantLinear) and len(shapes[node.sources[0]]) > 1


def get_module(model: nnx.Module, name: str | None) -> Any:
    """Return the module of a network that has a dotted name."""
    if name is None:
        raise ValueError("name must be a module's, got None: the node has none")
    part: Any = model
    for key in name.split("."):
        part = part[int(key)] if key.isdecimal() else getattr(part, key)
    return part


def _layer(spiking: str, source: str, weights: str, norm: str) -> Node:
    return Node(spiking, "layer", (source,), weights, norm, spiking)


def _sew_resnet_nodes(model: SEWResNet):
    yield _layer("sn1", INPUT, "conv1", "bn1")
    source = "sn1"
    if model.stem == "imagenet":
        source = "maxpool"
        pooling = dict(window=(3, 3), strides=(2, 2), padding=(1, 1))
        yield Node(source, "max_pool", ("sn1",), **pooling)
    for name, block in model.blocks().items():
        branch = source
        for i in range(1, block.depth + 1):
            parts = (f"{name}.{part}{i}" for part in ("conv", "bn"))
            yield _layer(f"{name}.sn{i}", branch, *parts)
            branch = f"{name}.sn{i}"
        shortcut = source
        if block.downsample is not None:
            shortcut = f"{name}.downsample_sn"
            parts = (f"{name}.downsample.{i}" for i in (0, 1))
            yield _layer(shortcut, source, *parts)
        source = f"{name}.out"
        yield Node(source, block.connect, block.order(shortcut, branch))
    yield Node("mean", "mean_pool", (source,))
    yield Node("fc", "layer", ("mean",), "fc")


def _vgg_nodes(model: SpikingVGG):
    source, i = INPUT, 0
    for stage, number in enumerate(model.stages, start=1):
        for _ in range(number):
            i += 1
            yield _layer(f"sn{i}", source, f"conv{i}", f"bn{i}")
            source = f"sn{i}"
        pooling = dict(window=(2, 2), strides=(2, 2), padding=(0, 0))
        yield Node(f"pool{stage}", "max_pool", (source,), **pooling)
        source = f"pool{stage}"
    yield Node("flatten", "flatten", (source,))
    yield Node("fc", "layer", ("flatten",), "fc")


def _sequential_nodes(model: Sequential):
    source, weights, norm = INPUT, None, None
    shape, shapes = model.in_shape, model.shapes()
    for name, layer in model.layers().items():
        is_neuron = isinstance(layer, Spiking) and not isinstance(layer, Readout)
        before, shape = shape, shapes[name]
        if is_neuron and weights is not None:
            yield Node(name, "layer", (source,), weights, norm, name)
            source, weights, norm = name, None, None
            continue
        if isinstance(layer, BatchNorm) and weights is not None and norm is None:
            norm = name
            continue
        if isinstance(layer, Dropout):
            continue  # of training alone
        if weights is not None:  # a layer without neurons
            yield Node(weights, "layer", (source,), weights, norm)
            source, weights, norm = weights, None, None
        if isinstance(layer, (QuantConv, QuantLinear)):
            weights = name
        elif isinstance(layer, Flatten):
            yield Node(name, "flatten", (source,))
            source = name
        elif isinstance(layer, (AvgPool, MaxPool, SumPool)):
            kinds = {AvgPool: "mean_pool", MaxPool: "max_pool", SumPool: "sum_pool"}
            sizes = layer.sizes(before)
            yield Node(name, kinds[type(layer)], (source,), None, None, None, *sizes)
            source = name
        else:
            raise ValueError(
                f"{name}, a {type(layer).__name__}, cannot be listed: convolutions and "
                "linear layers, each with BatchNorm and neurons behind it or without, "
                "pooling and Flatten can"
            )
    if weights is not None:
        yield Node(weights, "layer", (source,), weights, norm)
