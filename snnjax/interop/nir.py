"""Networks as graphs of NIR, which chips' and other libraries' tools read, and back.

NIR says what a neuron does in continuous time; in Euler steps of ``dt`` it is what it
does here. It has no BatchNorm, no bit widths, no membrane grids and no soft reset, and
nothing joins two layers but a sum: what it cannot say is refused, not left out.
"""

from typing import Any

import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax.interop.folding import fold_layer, widen
from snnjax.interop.nir_reading import read_graph
from snnjax.layers import QuantConv, Spiking, inspect
from snnjax.models.connections import INPUT
from snnjax.models.graph import Node, find_shapes, get_module, network_graph
from snnjax.models.graph_network import GraphNetwork
from snnjax.neurons import IF, LIF, PLIF


def graph(
    model: nnx.Module,
    *,
    image_size: tuple[int, int] | None = None,
    dt: ArrayLike = 1e-4,
) -> Any:
    r"""A network as a ``NIRGraph`` of the package nir, whose ``write`` makes it a file.

    A step of ours is ``dt`` of NIR's time:

    .. math:: \tau_{NIR} = \tau\,dt, \quad R = \tau, \quad v_{leak} = V_r;
        \qquad \text{IF: } R = 1 / dt

    so that a step adds the input as it is; where the leak scales the input
    (``decay_input``), weights and bias are divided by :math:`\tau`. The same neuron
    with R = 1 is valid NIR too, but some readers take their dt from R: docs/integer.md.

    BatchNorm is folded into the convolution before it. Weights are written as their
    quantizers make them, with bits and method in the node's metadata, for people;
    `describe_quantizers` returns the scales. ADD is two edges into one node. The
    threshold is the number just below ours, as NIR fires above it and we fire at it.
    Max-pooling of spikes is average pooling, and neurons that fire where the mean is
    above 0. Nodes have our layers' names with ``_`` for the dots. The output is the
    logits of each step: the prediction is their mean, and a still image is shown at
    every step.

    Args:
        model: a `models.SEWResNet` with the CIFAR stem and ``connect="add"``, a
            `models.SpikingVGG` or `models.Sequential`, or what `load` returned.
        image_size: (height, width), which NIR fixes; that of ``model.synapses()`` where
            not given.
        dt: seconds a step; 1e-4 is what other libraries' readers expect.

    Returns:
        The graph: ``Input``, ``Conv2d``, ``LIF`` or ``IF``, ``AvgPool2d``,
        ``SumPool2d``, ``Flatten``, ``Affine``, ``Output``, in the dtype of the
        parameters, float32 at least.

    Raises:
        ValueError: another network, stem or connection, quantized membranes, soft
            reset, kernels that are not square, neurons that NIR has not, a dt that is
            not positive, or no image size.
        ImportError: the package ``nir`` is missing.

    Source: Pedersen et al., `Neuromorphic Intermediate Representation
    <https://www.nature.com/articles/s41467-024-52259-9>`_, 2024.
    """
    nodes = network_graph(model)
    _check(model, nodes, dt)
    nir = _import_nir()
    return _Writer(nir, model, nodes, image_size, float(np.asarray(dt))).graph


def load(graph: Any, *, dt: ArrayLike = 1e-4) -> GraphNetwork:
    """Return the network of a graph of NIR, or of a file of it.

    Convolutions become `layers.QuantConv`, ``Affine`` and ``Linear``
    `layers.QuantLinear` and neurons `layers.Spiking`, under the nodes' names, in
    float32, or in float64 where the graph is and JAX runs so. Of a graph that ends in
    neurons the spikes are the logits. Quantize it by `calibrate.quantize`. A neuron
    takes the input as it is (``decay_input=False``); what R makes of it is put into the
    weights before it. NIR fires above the threshold and we at it: at the number just
    above. Neurons begin at their reset potential; NIR does not say where, and some
    simulators begin at 0.

    Args:
        graph: a ``NIRGraph``, or the path of a file that ``nir.write`` wrote.
        dt: seconds of a step: that with which the graph was written.

    Raises:
        ValueError: nodes, numbers or connections that have no counterpart here.
        ImportError: the package ``nir`` is missing.
    """
    _check_dt(dt)
    return read_graph(_import_nir(), graph, float(np.asarray(dt)))


def describe_quantizers(model: nnx.Module) -> dict[str, Any]:
    """Return bits, methods and scales of a network's graph, as JSON values.

    For a file beside the graph, since NIR has no place for them. For each node of
    weights, by its name in the graph: ``"method"``, ``"bits"``, and per output channel
    ``"scale"``, of which weights are whole multiples, or for LQ-Net ``"levels"``; those
    of the graph's weights, with BatchNorm and leak folded in. For each node of neurons
    with a quantized membrane: method, bits, clip, grid, site.

    Args:
        model: as of `graph`.

    Raises:
        ValueError: another network.
    """
    described: dict[str, Any] = {}
    for node in network_graph(model):
        if node.kind != "layer":
            continue
        layer = get_module(model, node.weights or "")
        if layer.quant is not None:
            spec = layer.quant.get_value()
            entry = {
                "method": spec.method,
                "bits": np.max(np.asarray(spec.bits)).item(),
            }
            _, scale = layer.encode()
            factor = fold_layer(model, node)[0]
            kind = "levels" if spec.method == "lq_net" else "scale"
            if kind == "levels" or scale.size in (1, len(factor)):
                scale = scale if kind == "levels" else scale.reshape(-1)
                entry[kind] = (scale * factor).tolist()
            described[_name(node.weights or "")] = entry
        spiking = node.spiking and get_module(model, node.spiking)
        if spiking and spiking.quant is not None:
            spec = spiking.quant.get_value()
            described[_name(node.spiking or "")] = {
                "method": spec.method,
                "bits": np.asarray(spec.bits).item(),
                "clip": None if spec.clip is None else np.asarray(spec.clip).tolist(),
                "grid": spec.grid,
                "signed": spec.signed,
                "site": spiking.site,
            }
    return {"schema": "snnjax.nir_quantizers", "version": 1, "nodes": described}


class _Writer:
    """Writes the nodes and edges of a graph."""

    def __init__(self, nir, model, nodes, image_size, dt):
        self.nir, self.model, self.dt = nir, model, dt
        self.found = find_shapes(model, image_size)
        shape = self.found[INPUT]
        size = np.array([shape[-1], *shape[:-1]])
        self.nodes: dict[str, Any] = {INPUT: nir.Input({"input": size})}
        self.edges: list[tuple[str, str]] = []
        self.shapes: dict[str, Any] = {INPUT: shape}
        # The names of NIR's nodes that give what a node of ours gives.
        self.feeds: dict[str, list[str]] = {INPUT: [INPUT]}
        for node in nodes:
            getattr(self, f"_{node.kind}")(node)
        last = nodes[-1].name
        shape = self.shapes[last]
        if isinstance(shape[0], tuple):  # flattened
            shape = (int(np.prod(shape[0])),)
        size = np.array([shape[-1], *shape[:-1]])
        self._add_node("output", nir.Output({"output": size}), last)
        self.graph = nir.NIRGraph(self.nodes, self.edges)

    def _add_node(self, name: str, node: Any, *sources: str) -> None:
        self.nodes[name] = node
        self.edges += [(feed, name) for s in sources for feed in self.feeds[s]]

    def _layer(self, node: Node) -> None:
        nir, name = self.nir, _name(node.weights or "")
        layer, (source,) = get_module(self.model, node.weights or ""), node.sources
        (spec,) = (
            each for each in inspect.layer_bits(self.model) if each.name == node.weights
        )
        metadata = {}
        if spec.spec is not None:
            metadata = {"bits": spec.bits, "quantizer": spec.spec.method}
        kernel, shape = widen(layer.quantized_kernel(train=False)), self.shapes[source]
        is_conv = isinstance(layer, QuantConv)
        has_map = is_conv or len(shape) == 3  # linear, at each of its positions
        out = self.found[node.name] if has_map else (1, 1, kernel.shape[-1])
        neurons = None
        if node.spiking is not None:
            spiking = get_module(self.model, node.spiking)
            numbers = _numbers(spiking, out, self.dt, kernel.dtype)
            if not has_map:
                numbers = {key: value.reshape(-1) for key, value in numbers.items()}
            kind = nir.LIF if "tau" in numbers else nir.IF
            neurons = kind(**numbers, metadata={"dt": self.dt})
        factor, bias = fold_layer(self.model, node)
        weight = (kernel * factor).astype(kernel.dtype)
        bias = bias.astype(kernel.dtype)
        if has_map:
            groups = layer.groups if is_conv else 1
            weight = weight if is_conv else weight[None, None]
            made = nir.Conv2d(
                input_shape=shape[:2],
                weight=_ungroup(weight, groups).transpose(3, 2, 0, 1).copy(),
                stride=layer.strides if is_conv else (1, 1),
                padding=tuple(p for p, _ in layer.padding) if is_conv else (0, 0),
                dilation=layer.dilation if is_conv else (1, 1),
                groups=1,
                bias=bias,
                metadata=metadata,
            )
        else:
            if isinstance(shape[0], tuple):  # flattened: rows are of H, W, C
                before = shape[0]
                weight = weight.reshape(*before, -1).transpose(2, 0, 1, 3)
                weight = weight.reshape(-1, weight.shape[-1])
            made = nir.Affine(weight.T.copy(), bias, metadata=metadata)
        self._add_node(name, made, source)
        self.shapes[node.name] = out if has_map else out[-1:]
        self.feeds[node.name] = [name]
        if neurons is not None:
            self._add_node(_name(node.spiking or ""), neurons, node.name)
            self.feeds[node.name] = [_name(node.spiking or "")]

    def _add(self, node: Node) -> None:
        self.feeds[node.name] = [f for name in node.sources for f in self.feeds[name]]
        self.shapes[node.name] = self.shapes[node.sources[0]]

    def _mean_pool(self, node: Node) -> None:
        self._pool(node, self.nir.AvgPool2d)

    def _sum_pool(self, node: Node) -> None:
        self._pool(node, self.nir.SumPool2d)

    def _pool(self, node: Node, kind: Any) -> None:
        whole = not node.window
        self._add_pooling("pool" if whole else _name(node.name), node, kind)
        if whole:
            channels = self.shapes[node.name][-1]
            self._flatten(Node("flatten", "flatten", (node.name,)))
            self.feeds[node.name], self.shapes[node.name] = ["flatten"], (channels,)

    def _max_pool(self, node: Node) -> None:
        """Average, and fire where the mean is above 0: a LIF that forgets."""
        name = _name(node.name)
        self._add_pooling(f"{name}_mean", node, self.nir.AvgPool2d)
        (height, width, channels), size = self.shapes[node.name], np.prod(node.window)
        full = np.ones((channels, height, width), np.float32)
        # Half a spike's share of the mean: it fires from one spike on, and forgets.
        neurons = self.nir.LIF(
            tau=full * np.float32(2 * self.dt),
            r=2 * full,
            v_leak=0 * full,
            v_threshold=full * np.float32(0.5 / size),
            v_reset=0 * full,
        )
        self._add_node(name, neurons, node.name)
        self.feeds[node.name] = [name]

    def _add_pooling(self, name: str, node: Node, kind: Any) -> None:
        (source,) = node.sources
        height, width, channels = self.shapes[source]
        window = np.array(node.window or (height, width))
        strides = np.array(node.strides or window)
        padding = np.array(node.padding or (0, 0))
        self._add_node(name, kind(window, strides, padding), source)
        size = (np.array([height, width]) + 2 * padding - window) // strides + 1
        self.shapes[node.name] = (*size.tolist(), channels)
        self.feeds[node.name] = [name]

    def _flatten(self, node: Node) -> None:
        (source,) = node.sources
        if isinstance(self.shapes[source][0], tuple):  # it is flat
            self.feeds[node.name] = self.feeds[source]
            self.shapes[node.name] = self.shapes[source]
            return
        *sizes, channels = self.shapes[source]
        height, width = sizes or (1, 1)
        shape = {"input": np.array([channels, height, width][: len(sizes) + 1])}
        made = self.nir.Flatten(shape, start_dim=0, end_dim=-1)
        self._add_node(_name(node.name), made, source)
        self.feeds[node.name] = [_name(node.name)]
        self.shapes[node.name] = ((height, width, channels),)


def _check_dt(dt: ArrayLike) -> None:
    if np.ndim(dt):
        raise ValueError(f"dt must be a number, got {_checks.format_value(dt)}")
    _checks.require_positive("dt", dt)


def _check(model: nnx.Module, nodes: tuple[Node, ...], dt: ArrayLike) -> None:
    _check_dt(dt)
    if any(node.kind == "max_pool" and node.padding != (0, 0) for node in nodes):
        raise ValueError('NIR has no max pooling: make the model with stem="cifar"')
    fires = {node.name for node in nodes if node.spiking is not None}
    for node in nodes:
        if node.kind == "max_pool" and node.sources[0] not in fires:
            raise ValueError(
                f"NIR's maxima are of spikes, and {node.name} sees none: put neurons "
                "right in front of it, or take layers.AvgPool"
            )
    connects = {node.kind for node in nodes} & {"and", "iand"}
    if connects:
        raise ValueError(
            'NIR joins layers by a sum: make the model with connect="add", got '
            f"{sorted(connects)}"
        )
    for node in nodes:
        if node.weights is not None:
            layer = get_module(model, node.weights)
            if isinstance(layer, QuantConv) and layer.kernel.ndim != 4:
                raise ValueError(f"{node.weights} must be a convolution of two axes")
            if isinstance(layer, QuantConv) and len(set(layer.kernel.shape[:2])) > 1:
                raise ValueError(
                    f"{node.weights} must have a square kernel, as the package nir "
                    f"takes all for square, got {layer.kernel.shape[:2]}"
                )
        if node.spiking is None:
            continue
        layer = get_module(model, node.spiking)
        require_known(node.spiking, layer.neuron.get_value())
        if layer.neuron.get_value().v_reset is None:
            raise ValueError("NIR has no soft reset: make the model with a v_reset")
        if layer.quant is not None:
            bits = np.asarray(layer.quant.get_value().bits).item()
            raise ValueError(
                f"NIR has no membrane grid, and the membrane of {node.spiking} has "
                f"{bits:g} bits; a copy of the network without it can be written"
            )


def require_known(name: str, neuron: Any) -> None:
    """Raise ValueError unless other libraries have these neurons."""
    if not isinstance(neuron, (IF, LIF, PLIF)) or neuron.v_min is not None:
        raise ValueError(
            f"the neurons of {name} must be neurons.LIF, IF or PLIF without v_min, got "
            f"{type(neuron).__name__}"
        )


def _import_nir() -> Any:
    try:
        import nir
    except ImportError as error:
        raise ImportError(
            "graphs are made by the package nir; run: pip install 'snnjax[interop]'"
        ) from error
    return nir


def _ungroup(kernel: np.ndarray, groups: int) -> np.ndarray:
    """Return a kernel of one group, with zeros: NIR's package takes no others as valid.

    ``[k, m, C_in / groups, C]`` to ``[k, m, C_in, C]``.
    """
    inputs, outputs = kernel.shape[2], kernel.shape[3] // groups
    whole = np.zeros(
        (*kernel.shape[:2], inputs * groups, kernel.shape[3]), kernel.dtype
    )
    for g in range(groups):
        rows = slice(g * inputs, (g + 1) * inputs)
        columns = slice(g * outputs, (g + 1) * outputs)
        whole[:, :, rows, columns] = kernel[..., columns]
    return whole


def _name(name: str) -> str:
    return name.replace(".", "_")


def _numbers(
    layer: Spiking, shape: tuple[int, ...], dt: float, dtype: np.dtype
) -> dict[str, Any]:
    """Return the numbers of NIR's neuron, each ``[C, H, W]``."""
    neuron: Any = layer.learned_neuron()
    if not isinstance(neuron, IF | LIF | PLIF) or neuron.v_min is not None:
        raise ValueError(
            "graphs are made of neurons.LIF, neurons.IF and neurons.PLIF without a "
            f"lower bound, got {_checks.format_value(neuron)}"
        )
    # We fire at the threshold and NIR above it: above the number just below.
    threshold = np.nextafter(np.asarray(neuron.v_threshold, dtype), dtype.type(-np.inf))
    numbers = {"v_threshold": threshold, "v_reset": neuron.v_reset}
    if isinstance(neuron, IF):
        numbers["r"] = 1 / dt
    else:
        tau = np.asarray(neuron.tau, dtype)
        numbers["tau"] = tau * dt
        # As the readers divide, so that R is the quotient to the last bit.
        with np.errstate(all="ignore"):  # checked below
            numbers["r"] = np.asarray(numbers["tau"], dtype) / dt
        numbers["v_leak"] = neuron.v_reset
    found = {}
    for name, value in numbers.items():
        _checks.require_broadcast(name, value, "the neurons of an image", (1, *shape))
        value = np.broadcast_to(np.asarray(value, dtype), (1, *shape))[0]
        if not np.isfinite(value).all() or (name in ("tau", "r") and not value.all()):
            raise ValueError(f"dt of {dt} makes {name} 0 or infinite in {dtype}")
        found[name] = value.transpose(2, 0, 1).copy()
    return found
