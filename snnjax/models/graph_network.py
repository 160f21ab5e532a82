"""Network that is run node by node, as a graph from elsewhere lists it."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax.layers import AvgPool, MaxPool, QuantConv, SumPool
from snnjax.models.blocks import CONNECT
from snnjax.models.connections import INPUT, Synapse
from snnjax.models.graph import Node, get_module
from snnjax.models.parts import Record, check_input, conv_synapse

_POOLS = {"max_pool": MaxPool, "mean_pool": AvgPool, "sum_pool": SumPool}


class GraphNetwork(nnx.Module):
    """Network of convolutions, neurons, poolings and sums, in the order of its nodes.

    `interop.nir.load` makes one. It is quantized, trained, recorded and exported as the
    other networks are.

    Args:
        nodes: in order; the last one makes the logits.
        modules: convolutions, linear layers and neurons by the nodes' names for them.
        input_shape: (height, width, channels) of an image, or (channels,).
    """

    def __init__(
        self,
        nodes: tuple[Node, ...],
        modules: Mapping[str, nnx.Module],
        input_shape: tuple[int, ...],
    ):
        self.nodes = nodes
        self.input_shape = input_shape
        for name, module in modules.items():
            setattr(self, name, module)
        self.use_running_average = True
        self.eval()

    def __call__(
        self,
        x: ArrayLike,
        *,
        timesteps: int = 4,
        train: bool | None = None,
        record: Record | None = None,
        outputs: bool = False,
    ) -> tuple[Array, dict[str, Any]]:
        """Run the network for ``timesteps`` steps.

        Args:
            x: inputs ``[B, H, W, C]`` or ``[B, C]``, or a sequence of such, time first.
            timesteps: T; static.
            train: update the state of quantizers; None follows ``model.train()`` and
                ``model.eval()``.
            record: applied to each layer's spikes where they arise.
            outputs: record sums and poolings too.

        Returns:
            Logits ``[T, B, classes]`` and ``{layer: record(spikes)}``.

        Raises:
            ValueError: timesteps below 1, x of another rank or size.
        """
        rank = len(self.input_shape)
        if rank == 3:
            x = check_input(x, timesteps, self.input_shape[-1], record)
        x = _checks.require_floating("x", x)
        if x.ndim not in (rank + 1, rank + 2) or x.shape[-rank:] != self.input_shape:
            raise ValueError(
                f"the network was made for inputs of {self.input_shape}, got x of "
                f"shape {x.shape}"
            )
        values, recorded = {INPUT: x}, {}
        # What every step sees alike is computed once, up to the first neurons.
        still = {INPUT} if x.ndim == rank + 1 else set()
        repeat = lambda x: jnp.stack([x] * timesteps)  # noqa: E731
        for node in self.nodes:
            is_still = still.issuperset(node.sources)
            read = [
                repeat(values[name]) if name in still and not is_still else values[name]
                for name in node.sources
            ]
            if node.kind != "layer":
                out = _apply(node, *read)
            else:
                out = get_module(self, node.weights or "")(read[0], train=train)
            if node.spiking is not None:
                out = get_module(self, node.spiking)(repeat(out) if is_still else out)
                is_still = False
            if is_still:
                still.add(node.name)
            if node.spiking is not None or (outputs and node.kind != "layer"):
                shown = repeat(out) if is_still else out
                recorded[node.name] = shown if record is None else record(shown)
            values[node.name] = out
        last = self.nodes[-1].name
        return repeat(values[last]) if last in still else values[last], recorded

    def synapses(
        self, image_size: tuple[int, int] | None = None
    ) -> tuple[Synapse, ...]:
        """Every convolution and linear layer, with what feeds it, in order.

        Args:
            image_size: as the network was made for, or None.

        Raises:
            ValueError: another image size.
        """
        size = self.input_shape[:2]
        if image_size is not None:
            _checks.require_image_size(image_size)
            if tuple(image_size) != size:
                raise ValueError(
                    f"the network was made for images of {size}, got {image_size}"
                )
        shapes: dict[str, Any] = {INPUT: self.input_shape}
        feeds: dict[str, tuple[str, ...]] = {INPUT: (INPUT,)}
        table = []
        for node in self.nodes:
            shape = shapes[node.sources[0]]
            sources = tuple(name for s in node.sources for name in feeds[s])
            if node.kind in ("layer", "max_pool"):
                feeds[node.name] = (node.name,)
            else:
                feeds[node.name] = sources
            if node.kind == "layer":
                layer = get_module(self, node.weights or "")
                row = _synapse(node.weights or "", layer, sources, shape)
                shape = row.out_shape
                table.append(row)
            elif node.window:
                pooled = (
                    (n + 2 * pad - k) // stride + 1
                    for n, k, stride, pad in zip(
                        shape[:2], node.window, node.strides, node.padding, strict=True
                    )
                )
                shape = (*pooled, shape[2])
            shapes[node.name] = shape
        return tuple(table)


def _synapse(
    name: str, layer: Any, sources: tuple[str, ...], shape: tuple[int, ...]
) -> Synapse:
    """Return a layer's row in the connection table, for an input of this shape."""
    if isinstance(layer, QuantConv):
        return conv_synapse(name, layer, sources, "add", shape[:2])
    outputs = layer.kernel.shape[-1:]
    if len(shape) == 1 or shape[:2] == (1, 1):
        return Synapse(name, sources, "add", (), (), (), shape[-1:], outputs)
    # A linear layer that sees all positions is a convolution with one window.
    none = ((0, 0), (0, 0))
    out = (1, 1, *outputs)
    return Synapse(name, sources, "add", shape[:2], (1, 1), none, shape, out)


def _apply(node: Node, x: Array, y: Any = None) -> Array:
    if node.kind in CONNECT:
        return CONNECT[node.kind](x, y)
    if node.kind == "flatten":
        return x.reshape(*x.shape[:-3], -1) if x.ndim > 3 else x
    if node.kind == "mean_pool" and not node.window:
        return x.mean((-3, -2))
    pool = _POOLS[node.kind]
    return pool(node.window, strides=node.strides, padding=node.padding)(x)
