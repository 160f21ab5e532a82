"""SEW-ResNets as graphs of NIR, which chips' and other libraries' tools read.

NIR says what a neuron does in continuous time; in Euler steps of ``dt`` it is what it
does here. It has no BatchNorm, no bit widths, no membrane grids and no soft reset, and
nothing joins two layers but a sum: what it cannot say is refused, not left out.
"""

from typing import Any

import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax.layers import EPSILON, Spiking, inspect
from snnjax.models import SEWResNet
from snnjax.models.connections import INPUT
from snnjax.neurons import IF, LIF, PLIF


def graph(
    model: nnx.Module, *, image_size: tuple[int, int] = (32, 32), dt: ArrayLike = 1e-4
) -> Any:
    r"""A network as a ``NIRGraph`` of the package nir, whose ``write`` makes it a file.

    A step of ours is ``dt`` of NIR's time:

    .. math:: \tau_{NIR} = \tau\,dt, \quad R = 1 \text{ (with decay\_input) or } \tau,
        \quad v_{leak} = V_r; \qquad \text{IF: } R = 1 / dt

    BatchNorm is folded into the convolution before it. Weights are written as their
    quantizers make them, with bits and method in the node's metadata, for people: no
    reader may rely on it. ADD is two edges into one node. The threshold is the number
    just below ours, as NIR fires above it and we fire at it. Nodes have our layers'
    names with ``_`` for the dots. The output is the logits of each step: the prediction
    is their mean, and a still image is shown at every step.

    Args:
        model: a `models.SEWResNet` with the CIFAR stem and ``connect="add"``.
        image_size: (height, width), which NIR fixes.
        dt: seconds a step; 1e-4 is what other libraries' readers expect.

    Returns:
        The graph: ``Input``, ``Conv2d``, ``LIF`` or ``IF``, ``AvgPool2d``, ``Flatten``,
        ``Affine``, ``Output``, in the dtype of the parameters, float32 at least.

    Raises:
        ValueError: another network, stem or connection, quantized membranes, soft
            reset, a dt that is not positive, or no image size.
        ImportError: the package ``nir`` is missing.

    Source: Pedersen et al., `Neuromorphic Intermediate Representation
    <https://www.nature.com/articles/s41467-024-52259-9>`_, 2024.
    """
    if not isinstance(model, SEWResNet):
        raise ValueError(
            f"graphs are made of a models.SEWResNet, got {type(model).__name__}"
        )
    _check(model, dt)
    step: float = np.asarray(dt, float).item()
    table = model.synapses(image_size)
    try:
        import nir
    except ImportError as error:
        raise ImportError(
            "graphs are made by the package nir; run: pip install 'snnjax[interop]'"
        ) from error

    quantizers = {layer.name: layer for layer in inspect.layer_bits(model)}
    *convolutions, linear = table
    height, width, channels = convolutions[0].in_shape
    nodes: dict[str, Any] = {
        INPUT: nir.Input({"input": np.array([channels, height, width])})
    }
    edges = []
    for row in convolutions:
        conv, spiking = _node(row.name), _spiking_layer_name(row.name)
        kernel, bias = _folded(model, row.name)
        nodes[conv] = nir.Conv2d(
            input_shape=(row.in_shape[0], row.in_shape[1]),
            weight=kernel,
            stride=(row.strides[0], row.strides[1]),
            padding=(row.padding[0][0], row.padding[1][0]),
            dilation=(1, 1),
            groups=1,
            bias=bias,
            metadata=_quantizer_metadata(quantizers[row.name]),
        )
        numbers = _numbers(_at(model, spiking), row.out_shape, step, kernel.dtype)
        nodes[_node(spiking)] = (nir.LIF if "tau" in numbers else nir.IF)(**numbers)
        edges += [(_node(source), conv) for source in row.sources]
        edges.append((conv, _node(spiking)))
    window = np.array(convolutions[-1].out_shape[:2])
    nodes["pool"] = nir.AvgPool2d(window, window, np.zeros(2, int))
    edges += [(_node(source), "pool") for source in linear.sources]
    features = np.array([*linear.in_shape, 1, 1])
    nodes["flatten"] = nir.Flatten({"input": features}, start_dim=0, end_dim=-1)
    nodes["fc"] = nir.Affine(
        _widen(model.fc.quantized_kernel()).T,
        _widen(model.fc.bias.get_value()),
        metadata=_quantizer_metadata(quantizers["fc"]),
    )
    nodes["output"] = nir.Output({"output": np.array(linear.out_shape)})
    edges += [("pool", "flatten"), ("flatten", "fc"), ("fc", "output")]
    return nir.NIRGraph(nodes, edges)


def _check(model: SEWResNet, dt: ArrayLike) -> None:
    if np.ndim(dt):
        raise ValueError(f"dt must be a number, got {_checks.format_value(dt)}")
    _checks.require_positive("dt", dt)
    if model.stem != "cifar":
        raise ValueError('NIR has no max pooling: make the model with stem="cifar"')
    connects = {row.connect for row in model.synapses()}
    if connects != {"add"}:
        raise ValueError(
            f'NIR joins layers by a sum: make the model with connect="add", got '
            f"{sorted(connects - {'add'})}"
        )
    if model.sn1.neuron.get_value().v_reset is None:
        raise ValueError("NIR has no soft reset: make the model with a v_reset")
    for layer in inspect.layer_bits(model):
        if layer.kind == "membrane" and layer.spec is not None:
            raise ValueError(
                f"NIR has no membrane grid, and the membrane of {layer.name} has "
                f"{layer.bits:g} bits; a copy of the network without it can be written"
            )


def _node(name: str) -> str:
    return name.replace(".", "_")


def _widen(array: ArrayLike) -> np.ndarray:
    """Return it in float32 at least, as membranes are: readers take nothing shorter."""
    array = np.asarray(array)
    return array.astype(np.promote_types(array.dtype, np.float32))


def _spiking_layer_name(name: str) -> str:
    """Return the name of the spiking layer after a convolution."""
    return name.replace("downsample.0", "downsample_sn").replace("conv", "sn")


def _at(model: nnx.Module, name: str) -> Any:
    """The part of a network that has this name."""
    part: Any = model
    for key in name.split("."):
        part = part[int(key)] if key.isdecimal() else getattr(part, key)
    return part


def _folded(model: SEWResNet, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Kernel ``[C_out, C_in, k, k]`` and bias of a convolution with its BatchNorm."""
    beside = name.replace("downsample.0", "downsample.1").replace("conv", "bn")
    norm = _at(model, beside)
    kernel = _widen(_at(model, name).quantized_kernel())
    scale, shift, mean, var = (
        np.asarray(part.get_value(), np.float64)
        for part in (norm.scale, norm.bias, norm.mean, norm.var)
    )
    factor = scale / np.sqrt(var + EPSILON)
    folded = (kernel * factor).transpose(3, 2, 0, 1)
    return folded.astype(kernel.dtype), (shift - mean * factor).astype(kernel.dtype)


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
        tau = np.asarray(neuron.tau)
        numbers["tau"] = tau * dt
        numbers["r"] = 1.0 if neuron.decay_input else tau
        numbers["v_leak"] = neuron.v_reset
    found = {}
    for name, value in numbers.items():
        _checks.require_broadcast(name, value, "the neurons of an image", (1, *shape))
        value = np.broadcast_to(np.asarray(value, dtype), (1, *shape))[0]
        if not np.isfinite(value).all() or (name in ("tau", "r") and not value.all()):
            raise ValueError(f"dt of {dt} makes {name} 0 or infinite in {dtype}")
        found[name] = value.transpose(2, 0, 1).copy()
    return found


def _quantizer_metadata(layer: inspect.LayerBits) -> dict[str, Any]:
    """Describe a quantizer by its method and bits."""
    if layer.spec is None:
        return {}
    return {"bits": layer.bits, "quantizer": layer.spec.method}
