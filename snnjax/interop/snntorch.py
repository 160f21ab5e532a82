"""Networks as snnTorch modules: a script, which is all code, and a file of weights.

snnTorch's ``Leaky`` is what tools for FPGAs read (hls4ml, Spiker+). The script imports
torch, snntorch and numpy alone, and says each layer in a line, so that it can be read,
edited and given to such a tool.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from snnjax.interop.folding import fold_layer, widen
from snnjax.interop.nir import describe_quantizers, require_known
from snnjax.layers import QuantConv
from snnjax.models.connections import INPUT
from snnjax.models.graph import (
    Node,
    find_flattened_shapes,
    find_shapes,
    get_module,
    network_graph,
    sees_positions,
)
from snnjax.neurons import IF

_HEAD = '''"""Network in snnTorch, with its weights beside it in {weights}.

`Network()` takes one image, or one step of a sequence, [B, C, H, W] and returns the
logits and every layer's spikes of that step; `reset()` before another input. The
prediction is the mean of the logits over the steps. A neuron fires where its potential
is above its threshold, which is the number just below the original network's: that one
fires at its threshold.
"""

from pathlib import Path

import numpy as np
import snntorch
import torch
from torch import nn


def neurons(beta, threshold):
    return snntorch.Leaky(
        beta=torch.tensor(beta, dtype=torch.{dtype}),
        threshold=torch.tensor(threshold, dtype=torch.{dtype}),
        reset_mechanism="zero",
        reset_delay=False,
    )


class Network(nn.Module):
    def __init__(self):
        super().__init__()
{layers}
        self.reset()
        folder = Path(__file__).parent
        with np.load(folder / "{weights}") as arrays:
            state = {{name: torch.from_numpy(arrays[name]) for name in arrays.files}}
        self.to(torch.{dtype})
        for name, parameter in self.named_parameters():
            parameter.data.copy_(state.pop(name))
        assert not state, f"weights without a layer: {{sorted(state)}}"

    def reset(self):
        self.potential = {{}}

    def fire(self, name, current):
        v = self.potential.get(name, torch.zeros_like(current))
        spikes, self.potential[name] = getattr(self, name)(current, v)
        return spikes.to(current.dtype)

    def forward(self, {input}):
        spikes = {{}}
{steps}
        return {last}, spikes
'''


def write(model: nnx.Module, folder: str | os.PathLike[str]) -> Path:
    r"""Write a network as ``network.py``, ``weights.npz`` and ``quantizers.json``.

    .. math:: U_t = \beta U_{t-1} + X_t, \quad S_t = 1[U_t > \theta],
        \quad \beta = 1 - 1 / \tau

    and U is 0 after a spike (``reset_mechanism="zero", reset_delay=False``). BatchNorm
    is folded into the layer before it, and so is 1 / tau where the leak scales the
    input. Weights are as their quantizers make them, in the parameters' dtype; the JSON
    has their bits and scales (`interop.nir.describe_quantizers`).

    Args:
        model: a `models.SEWResNet` with ``connect="add"``, a `models.SpikingVGG` or
            another that `models.network_graph` lists.
        folder: made where it is not there; files in it are replaced.

    Returns:
        The path of the script.

    Raises:
        ValueError: another network, a soft reset, or a reset to another potential than
            0 (snnTorch's "subtract" subtracts twice where a potential stays above the
            threshold), quantized membranes, AND or IAND.

    Source: Eshraghian et al., `Training Spiking Neural Networks Using Lessons From Deep
    Learning <https://arxiv.org/abs/2109.12894>`_, 2023; snnTorch 1.0.
    """
    nodes = network_graph(model)
    arrays: dict[str, np.ndarray] = {}
    layers, steps, shapes = [], [], find_shapes(model)
    flattened = find_flattened_shapes(nodes, shapes)
    for node in nodes:
        _write_node(model, node, arrays, layers, steps, shapes, flattened)
    names = {"input": INPUT, "last": _name(nodes[-1].name), "weights": "weights.npz"}
    (dtype,) = {array.dtype.name for array in arrays.values()}
    script = _HEAD.format(
        layers="\n".join(f"        {line}" for line in layers),
        steps="\n".join(f"        {line}" for line in steps),
        dtype=dtype,
        **names,
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "weights.npz", **arrays)  # pyrefly: ignore
    text = json.dumps(describe_quantizers(model), indent=1)
    (folder / "quantizers.json").write_text(f"{text}\n", "utf-8")
    (folder / "network.py").write_text(script, "utf-8")
    return folder / "network.py"


def _write_node(model, node, arrays, layers, steps, shapes, flattened) -> None:
    """Add a node's lines, and its weights."""
    out, read = _name(node.name), [_name(name) for name in node.sources]
    match node.kind:
        case "layer":
            name = _name(node.weights or "")
            made = _layer(model, node, arrays, shapes, flattened)
            layers.append(f"self.{name} = {made}")
            line = f"self.{name}({read[0]})"
            if node.spiking is not None:
                layers.append(f"self.{out} = neurons({_neuron(model, node)})")
                line = f'spikes["{out}"] = self.fire("{out}", {line})'
            steps.append(f"{out} = {line}")
        case "add":
            steps.append(f"{out} = {read[0]} + {read[1]}")
        case "max_pool" | "mean_pool" if node.window:
            kind = "max" if node.kind == "max_pool" else "avg"
            sizes = f"{node.window}, {node.strides}, {node.padding}"
            pool = f"{kind}_pool{len(node.window)}d"
            steps.append(f"{out} = nn.functional.{pool}({read[0]}, {sizes})")
        case "mean_pool":
            steps.append(f"{out} = {read[0]}.flatten(2).mean(2)")
        case "flatten":
            steps.append(f"{out} = {read[0]}.flatten(1)")
        case _:
            raise ValueError(
                f"{node.name} joins by {node.kind!r}, which tools that read snnTorch "
                'do not: make the model with connect="add"'
            )


def _layer(model: nnx.Module, node: Node, arrays, shapes, flattened) -> str:
    """Return the constructor of a layer, and keep its weights."""
    layer, name = get_module(model, node.weights or ""), _name(node.weights or "")
    kernel = widen(layer.quantized_kernel(train=False))
    factor, bias = fold_layer(model, node)
    weight = (kernel * factor).astype(kernel.dtype)
    arrays[f"{name}.bias"] = bias.astype(kernel.dtype)
    if isinstance(layer, QuantConv):
        arrays[f"{name}.weight"] = np.moveaxis(weight, (-1, -2), (0, 1)).copy()
        *window, inputs, outputs = layer.kernel.shape
        padding = tuple(pad for pad, _ in layer.padding)
        return (
            f"nn.Conv{len(window)}d({inputs * layer.groups}, {outputs}, "
            f"{tuple(window)}, stride={layer.strides}, padding={padding}, "
            f"dilation={layer.dilation}, groups={layer.groups})"
        )
    inputs, outputs = weight.shape
    if node.weights in flattened:  # torch flattens C, H, W and we H, W, C
        maps = weight.reshape(*flattened[node.weights], outputs)
        weight = np.moveaxis(maps, -2, 0).reshape(inputs, outputs)
    weight = weight.T.copy()
    if sees_positions(model, node, shapes):
        axes = len(shapes[node.sources[0]]) - 1
        arrays[f"{name}.weight"] = weight.reshape(*weight.shape, *(1,) * axes)
        return f"nn.Conv{axes}d({inputs}, {outputs}, 1)"
    arrays[f"{name}.weight"] = weight
    return f"nn.Linear({inputs}, {outputs})"


def _neuron(model: nnx.Module, node: Node) -> str:
    """Return beta and threshold as arguments."""
    layer = get_module(model, node.spiking or "")
    neuron = layer.learned_neuron()
    require_known(node.spiking or "", neuron)
    if layer.quant is not None:
        raise ValueError(
            f"the membrane of {node.spiking} is quantized, which tools that read "
            "snnTorch do not know; write a copy of the network without it"
        )
    if neuron.v_reset is None or np.any(np.asarray(neuron.v_reset) != 0):
        raise ValueError(
            f"the neurons of {node.spiking} must reset to 0, got v_reset = "
            f"{neuron.v_reset}"
        )
    kernel = widen(get_module(model, node.weights or "").kernel.get_value())
    numbers: list[Any] = [
        1.0 if isinstance(neuron, IF) else 1 - 1 / np.asarray(neuron.tau, np.float64)
    ]
    numbers.append(neuron.v_threshold)
    found = []
    for value in numbers:
        value = np.asarray(value, kernel.dtype)
        if value.size != 1:
            raise ValueError(
                f"the neurons of {node.spiking} must have one tau and one threshold, "
                f"got shape {value.shape}"
            )
        found.append(value.reshape(()))
    beta, threshold = found
    below = np.nextafter(threshold, kernel.dtype.type(-np.inf))
    return f"{float(beta)!r}, {float(below)!r}"


def _name(name: str) -> str:
    return name.replace(".", "_")
