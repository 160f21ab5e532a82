"""Reading of NIR's graphs: nodes of NIR to layers of ours."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax.layers import QuantConv, QuantLinear, Spiking
from snnjax.models.connections import INPUT
from snnjax.models.graph import Node
from snnjax.models.graph_network import GraphNetwork
from snnjax.models.parts import conv_synapse
from snnjax.neurons import IF, LIF


def read_graph(nir: Any, graph: Any, dt: float) -> GraphNetwork:
    """Return the network of a graph or a file; see `interop.nir.load`."""
    if isinstance(graph, (str, os.PathLike)):
        try:
            graph = nir.read(os.fspath(graph))
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(
                f"graph must be a NIRGraph or a file of one; {graph} cannot be read: "
                f"{str(error).splitlines()[0]}"
            ) from None
    if not isinstance(graph, nir.NIRGraph):
        raise ValueError(
            f"graph must be a NIRGraph or the path of one, got {type(graph).__name__}"
        )
    return _Reader(nir, graph, dt).network


class _Reader:
    """Reads a graph, node by node, each behind its sources."""

    def __init__(self, nir, graph, dt):
        self.nir, self.graph, self.dt = nir, graph, dt
        self.sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
        self.targets: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in graph.edges:
            self.sources[target].append(source)
            self.targets[source].append(target)
        starts = [n for n, x in graph.nodes.items() if isinstance(x, nir.Input)]
        ends = [n for n, x in graph.nodes.items() if isinstance(x, nir.Output)]
        if len(starts) != 1 or len(ends) != 1:
            raise ValueError(
                f"the graph must have one Input and one Output, got {len(starts)} and "
                f"{len(ends)}"
            )
        shape = np.ravel(next(iter(graph.nodes[starts[0]].input_type.values())))
        if len(shape) not in (1, 3):
            raise ValueError(
                f"the Input must be [C, H, W] or [C], got {shape.tolist()}"
            )
        channels, *sizes = (int(n) for n in shape)
        input_shape = (*sizes, channels)
        self.shapes: dict[str, Any] = {INPUT: input_shape}
        self.outputs = {starts[0]: INPUT}  # names of NIR's nodes, and of ours
        self.nodes: list[Node] = []
        self.modules: dict[str, nnx.Module] = {}
        for name in self._order():
            if name not in self.outputs and name != ends[0]:
                self._read(name)
        last = self.outputs[self.sources[ends[0]][0]]
        if len(self.sources[ends[0]]) != 1 or last != self.nodes[-1].name:
            raise ValueError("the Output must have one source, the last of the nodes")
        self.network = GraphNetwork(tuple(self.nodes), self.modules, input_shape)

    def _order(self) -> list[str]:
        order, left = [], {name: set(s) for name, s in self.sources.items()}
        while left:
            ready = [
                name for name, sources in left.items() if not sources & left.keys()
            ]
            if not ready:
                raise ValueError(
                    f"the graph has a cycle through {sorted(left)}: recurrent networks "
                    "are not read"
                )
            order += ready
            left = {name: s for name, s in left.items() if name not in ready}
        return order

    def _source(self, name: str) -> str:
        """Return the node of ours that a node reads; sums become nodes."""
        found = [self.outputs[source] for source in self.sources[name]]
        if not found:
            raise ValueError(f"{name} has no source")
        joined = found[0]
        for i, other in enumerate(found[1:], start=1):
            known = [n.name for n in self.nodes if n.sources == (joined, other)]
            out = known[0] if known else f"{name}_sum{i}"
            if not known:
                self.nodes.append(Node(out, "add", (joined, other)))
                self.shapes[out] = self.shapes[joined]
            joined = out
        return joined

    def _read(self, name: str) -> None:
        nir, node = self.nir, self.graph.nodes[name]
        if isinstance(node, (nir.Conv2d, nir.Affine, nir.Linear)):
            self._read_layer(name, node)
        elif isinstance(node, (nir.AvgPool2d, nir.SumPool2d)):
            self._read_pooling(name, node)
        elif isinstance(node, nir.Flatten):
            source = self._source(name)
            shape = self.shapes[source]
            self.nodes.append(Node(name, "flatten", (source,)))
            self.shapes[name], self.outputs[name] = (shape,), name
        elif isinstance(node, (nir.LIF, nir.IF)):
            raise ValueError(
                f"{name} must read one Conv2d, Affine, Linear or pooling of its own"
            )
        else:
            raise ValueError(
                f"{name} is a {type(node).__name__}, which is not read; Conv2d, "
                "Affine, Linear, AvgPool2d, SumPool2d, Flatten, LIF and IF are"
            )

    def _neurons_of(self, name: str) -> str | None:
        """Return the neurons that a node alone feeds."""
        nir = self.nir
        kinds = [
            isinstance(self.graph.nodes[t], (nir.LIF, nir.IF))
            for t in self.targets[name]
        ]
        if not any(kinds):
            return None
        (target, *others) = self.targets[name]
        if others or self.sources[target] != [name]:
            raise ValueError(
                f"{name} must feed its neurons alone, and they read it alone"
            )
        return target

    def _read_layer(self, name: str, node: Any) -> None:
        nir, source, after = self.nir, self._source(name), self._neurons_of(name)
        weight = np.asarray(node.weight)
        # float64 where JAX runs so.
        dtype = jnp.promote_types(weight.dtype, np.float32)
        dtype = np.dtype(jax.dtypes.canonicalize_dtype(dtype))
        bias = getattr(node, "bias", None)
        bias = np.zeros(len(weight)) if bias is None else np.asarray(bias)
        neuron: Any = None
        gain = 1.0
        if after is not None:
            neuron, gain = self._neuron(after, dtype)
        shape, rngs = self.shapes[source], nnx.Rngs(0)
        if isinstance(node, nir.Conv2d):
            layer: Any = QuantConv(
                weight.shape[1] * int(node.groups),
                weight.shape[0],
                kernel_size=weight.shape[2:],
                strides=_pair(node.stride),
                padding=_padding(name, node),
                dilation=_pair(node.dilation),
                groups=int(node.groups),
                use_bias=True,
                param_dtype=dtype,
                rngs=rngs,
            )
            kernel = weight.transpose(2, 3, 1, 0)
            row = conv_synapse(name, layer, (source,), "add", shape[:2])
            out: tuple[int, ...] = row.out_shape
        else:
            layer = QuantLinear(
                weight.shape[1], weight.shape[0], param_dtype=dtype, rngs=rngs
            )
            kernel, out = weight.T, (weight.shape[0],)
            if (
                isinstance(shape[0], tuple) and len(shape[0]) == 3
            ):  # NIR flattens C, H, W and we H, W, C
                height, width, channels = shape[0]
                kernel = kernel.reshape(channels, height, width, -1)
                kernel = kernel.transpose(1, 2, 0, 3).reshape(weight.shape[1], -1)
        layer.kernel.set_value(jnp.asarray(kernel * gain, dtype))
        layer.bias.set_value(jnp.asarray(bias * gain, dtype))
        self.modules[name] = layer
        if after is None:
            self.nodes.append(Node(name, "layer", (source,), name))
            self.shapes[name], self.outputs[name] = out, name
            return
        self.modules[after] = Spiking(neuron)
        self.nodes.append(Node(after, "layer", (source,), name, None, after))
        self.shapes[after], self.outputs[after] = out, after
        self.outputs[name] = after

    def _read_pooling(self, name: str, node: Any) -> None:
        source, after = self._source(name), self._neurons_of(name)
        window, strides, padding = (
            _pair(getattr(node, part)) for part in ("kernel_size", "stride", "padding")
        )
        is_sum = isinstance(node, self.nir.SumPool2d)
        kind, out = "sum_pool" if is_sum else "mean_pool", name
        if after is not None:
            self._check_forgets(after, 1 / (1 if is_sum else window[0] * window[1]))
            kind, out = "max_pool", after
        height, width, channels = self.shapes[source]
        size = (
            (n + 2 * pad - k) // stride + 1
            for n, k, stride, pad in zip(
                (height, width), window, strides, padding, strict=True
            )
        )
        self.nodes.append(
            Node(out, kind, (source,), window=window, strides=strides, padding=padding)
        )
        self.shapes[out] = (*size, channels)
        self.outputs[name] = self.outputs[out] = out

    def _check_forgets(self, name: str, share: float) -> None:
        """Raise ValueError unless neurons behind a pooling fire from one spike on."""
        node = self.graph.nodes[name]
        gain = np.asarray(node.r) * self.dt
        if isinstance(node, self.nir.LIF):
            gain = gain / np.asarray(node.tau)
        least, reset = share * gain, np.asarray(node.v_reset)
        threshold = np.asarray(node.v_threshold)
        leak = np.asarray(getattr(node, "v_leak", 0.0))
        # A silent window leaves 0, and any spike fires and resets to 0.
        if (
            (threshold < 0).any()
            or (threshold >= least).any()
            or reset.any()
            or leak.any()
        ):
            raise ValueError(
                f"{name} behind a pooling must fire from one spike on and reset to 0, "
                "which is max-pooling; other neurons behind a pooling are not read"
            )

    def _neuron(self, name: str, dtype: Any) -> tuple[Any, Any]:
        """Return our neuron, and what its input is to be multiplied by."""
        node = self.graph.nodes[name]
        written = node.metadata.get("dt")
        if written is not None and not np.isclose(float(written), self.dt, rtol=1e-6):
            raise ValueError(
                f"dt must be {float(written)}, with which {name} was written, got "
                f"{self.dt}"
            )
        # NIR fires above the threshold: at the number just above.
        fires_at = np.nextafter(np.asarray(node.v_threshold, dtype), dtype.type(np.inf))
        threshold, reset = _number(fires_at), _number(np.asarray(node.v_reset, dtype))
        gain = np.asarray(node.r, np.float64) * self.dt
        if isinstance(node, self.nir.IF):
            neuron: Any = IF(v_threshold=threshold, v_reset=reset)
        else:
            if not np.array_equal(node.v_leak, node.v_reset):
                raise ValueError(f"v_leak of {name} must equal its v_reset")
            time = np.asarray(node.tau, np.float64)
            gain, tau = gain / time, np.asarray(time / self.dt, dtype)
            if (tau <= 1).any():
                raise ValueError(
                    f"tau of {name} must be above dt = {self.dt}; give the dt with "
                    "which the graph was written"
                )
            neuron = LIF(_number(tau), threshold, reset, decay_input=False)
        if not np.allclose(gain, np.ravel(gain)[0], rtol=1e-6, atol=0):
            raise ValueError(
                f"r dt / tau of {name} must be the same for all its neurons (of IF r "
                "dt), by which the weights in front are multiplied"
            )
        gain = float(np.ravel(gain)[0])
        return neuron, 1.0 if abs(gain - 1) < 1e-6 else gain


def _pair(value: Any) -> tuple[int, int]:
    values = [int(n) for n in np.ravel(value)]
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def _padding(name: str, node: Any) -> tuple[int, int]:
    """Return a convolution's padding in numbers."""
    if not isinstance(node.padding, str):
        return _pair(node.padding)
    if node.padding == "valid":
        return 0, 0
    pairs = zip(np.shape(node.weight)[2:], _pair(node.dilation), strict=True)
    around = [(k - 1) * apart for k, apart in pairs]
    if _pair(node.stride) != (1, 1) or any(n % 2 for n in around):
        raise ValueError(
            f"{name} must have padding in numbers: with strides, or an even kernel, "
            '"same" pads one side more than the other'
        )
    return around[0] // 2, around[1] // 2


def _number(values: np.ndarray) -> Any:
    """Return one number where all are equal; else ``[H, W, C]`` or ``[C]``."""
    if np.unique(values).size == 1:
        return values.ravel()[0]
    return values.transpose(1, 2, 0) if values.ndim == 3 else values
