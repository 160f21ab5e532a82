"""Make an integer network of a quantized network."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import _checks
from snnjax.integer import border, examples
from snnjax.integer.network import (
    ACCUMULATOR_BITS,
    IntegerNetwork,
    Layer,
    Operation,
    accumulator_ranges,
    find_range,
)
from snnjax.integer.units import Dynamics, MembraneLevels, fold_neurons
from snnjax.integer.weights import encode_kernel
from snnjax.layers import EPSILON, QuantLinear, Spiking
from snnjax.layers.inspect import check_ranges
from snnjax.layers.variables import value_of
from snnjax.models.connections import INPUT
from snnjax.models.graph import (
    Node,
    find_shapes,
    get_module,
    network_graph,
    sees_positions,
)
from snnjax.neurons import IF, LIF, PLIF

# Greatest multipliers of pixels: in front of whole codes, and of rounded weights.
_PIXELS, _ROUNDED = 4096, 16


def from_model(
    model: nnx.Module,
    *,
    image_size: tuple[int, int] | None = None,
    timesteps: int = 4,
    mean: Any = None,
    std: Any = None,
    full_scale: float = 255.0,
    membrane_bits: int = 30,
    example: Any = None,
) -> IntegerNetwork:
    r"""Return the integer twin of a quantized network.

    .. math:: I = \mathrm{shift}\Big(\sum_k n_k x_k\Big) + b, \qquad
        h = v - \lfloor (v - r)\, d / 2^{15} \rfloor + I, \qquad s = [h \ge \theta]

    for weight codes n, spikes or their sums x, and whole numbers shift, b, r and
    :math:`\theta` of each channel: BatchNorm, the scales and 1 / tau are folded into
    the unit of the channel's membranes. At tau = 2 the leak d is a shift by one.
    Potentials saturate at ``membrane_bits``; the accumulator is int32, proven from the
    weights. Levels of quantized membranes are multiples of a whole step.

    Spikes equal those of the network, computed in float64, where all scales are powers
    of 2. Elsewhere a spike can differ where a potential is within the rounding of bias,
    step or leak (of :math:`2^{-15}`, at other time constants than powers of 2) of its
    threshold, or where a level of a quantized membrane is a tie; `count_differences`
    counts how many.

    The first and the last layer may be in full precision: then the spikes of the first
    are the border from which on all is whole, and the logits are floats. The first
    layer's kernel quantized, the network takes pixels.

    Args:
        model: what `models.network_graph` lists: a `models.SEWResNet`, `SpikingVGG`,
            `Sequential` of convolutions, linear layers and pooling, or `GraphNetwork`;
            every kernel quantized but perhaps the first and the last; membranes by
            uniform or LSQ, or not.
        image_size: (height, width), for which sums over positions are proven; as the
            network's ``synapses()`` where not given.
        timesteps: T for which membranes without leak are proven, and of a run.
        mean: of each channel of the images, ``(p / full_scale - mean) / std``. A
            quantized first layer then takes the pixels exactly, or to 1e-6 of one.
            Where neither is given, it takes pixels over full_scale, or floats within 8
            of 0, rounded to 2e-5 or finer. A first layer of floats needs them for
            integer images only.
        std: likewise.
        full_scale: the pixel that is 1; 1 for counts of events.
        membrane_bits: width of a membrane, 8 to 30.
        example: input ``[B, H, W, C]`` of the test vector in the file; random pixels
            or spikes where not given.

    Raises:
        ValueError: another network; a kernel in full precision between two layers; a
            membrane's quantizer without a uniform step; an accumulator of more than 31
            bits; numbers out of range.
    """
    graph = network_graph(model)
    check_ranges(model)
    _checks.require_whole("timesteps", timesteps, 1)
    _checks.require_whole("membrane_bits", membrane_bits, 8)
    if membrane_bits > 30:
        raise ValueError(f"membrane_bits must be from 8 to 30, got {membrane_bits}")
    _checks.require_positive_number("full_scale", full_scale)
    shapes = find_shapes(model, image_size)
    first, last = _find_ends(model, graph)
    image = shapes[INPUT]
    channels, has_positions = image[-1], len(image) == 3
    known = mean is not None or std is not None
    for name, x in (("mean", mean), ("std", std)):
        if np.shape(x) not in ((), (1,), (channels,)):
            raise ValueError(
                f"{name} must be one number or one of each of the {channels} channels, "
                f"got shape {np.shape(x)}"
            )
    mean, std = (
        np.broadcast_to(
            np.asarray(default if x is None else x, np.float64), (channels,)
        )
        for x, default in ((mean, 0.0), (std, 1.0))
    )
    _checks.require_finite("mean", mean)
    _checks.require_positive("std", std)
    builder = _Builder(model, timesteps, membrane_bits, shapes)
    nodes, readout, most = list(graph), None, 0
    if get_module(model, first.weights).quant is None:
        start = _make_float_layer(model, nodes.pop(0), mean, std, full_scale)
        scale = np.ones(())
    else:
        greatest = _find_greatest_multiplier(get_module(model, first.weights))
        if known:
            start = border.fit_pixels(mean, std, full_scale, greatest)
        else:
            start = border.make_unknown_pixels(channels, full_scale, greatest)
        scale = start.scale
    builder.add_source(start.name, start.limits, scale)
    pooled = [node for node in graph if node.kind == "mean_pool" and not node.window]
    has_float_end = get_module(model, last.weights).quant is None
    source, is_mean = last.sources[0], False
    if has_float_end:
        nodes.pop()
        if nodes and nodes[-1].kind == "flatten":
            source = nodes.pop().sources[0]
        elif nodes and nodes[-1].kind == "mean_pool" and not nodes[-1].window:
            source, is_mean = nodes.pop().sources[0], True
    elif pooled:
        before = shapes[pooled[-1].sources[0]]
        most = builder.positions = int(np.prod(before[:2]))
    for node in nodes:
        if node.kind == "layer" and node.spiking is None and node is not last:
            raise ValueError(
                f"{node.weights} has no neurons behind it, and more layers follow; put "
                "neurons behind it"
            )
        builder.add(node)
    if has_float_end:
        layer = get_module(model, last.weights)
        factor, bias = _affine(model, last, layer)
        # A window's sum is what its mean was.
        kernel = np.asarray(layer.kernel.get_value(), np.float64) * factor
        kernel = kernel * builder.scales[source]
        readout = border.FloatReadout(source, kernel, bias, is_mean)
    network = IntegerNetwork(
        border=start,
        nodes=tuple(builder.nodes),
        readout=readout,
        timesteps=timesteps,
        membrane_bits=membrane_bits,
        most_positions=most,
        has_positions=has_positions,
    )
    shape = image if start.name == INPUT else shapes[first.name]
    shape = shape if has_positions else (1, 1, shape[-1])
    return examples.add_example(network, shape, example)


def _find_ends(model: nnx.Module, graph: tuple[Node, ...]) -> tuple[Node, Node]:
    """Return the first and the last layer; ValueError unless both can be made whole."""
    layers = [node for node in graph if node.kind == "layer"]
    if not layers or graph[-1] is not layers[-1] or layers[-1].spiking is not None:
        raise ValueError(
            f"the network must end in a layer of logits, got {graph[-1].name}: a "
            "convolution or linear layer without neurons or pooling behind it"
        )
    first, last = layers[0], layers[-1]
    if first is not graph[0] and get_module(model, first.weights).quant is None:
        raise ValueError(
            f"{first.weights} is in full precision and {graph[0].name} lies in front "
            "of it; quantize it, or let it see the image"
        )
    if last.norm is not None and get_module(model, last.weights).quant is not None:
        raise ValueError(
            f"{last.norm} scales each logit by itself, and whole logits have one "
            f"unit; leave {last.weights} in full precision, or take {last.norm} away"
        )
    return first, last


class _Builder:
    """Adds nodes one by one, with the range and the scale of what each gives."""

    def __init__(
        self,
        model: nnx.Module,
        timesteps: int,
        membrane_bits: int,
        shapes: dict[str, tuple[int, ...]],
    ):
        self.model, self.shapes = model, shapes
        self.timesteps, self.membrane_bits = timesteps, membrane_bits
        self.positions = 1
        self.nodes: list[Layer | Operation] = []
        self.ranges: dict[str, tuple[int, int]] = {}
        self.scales: dict[str, np.ndarray] = {}

    def add_source(self, name: str, limits: tuple[int, int], scale: Any) -> None:
        """Add a node's output: its least and greatest value, and what one is worth."""
        self.ranges[name], self.scales[name] = limits, np.asarray(scale, np.float64)

    def add(self, node: Node) -> None:
        """Add a node whose sources are there."""
        made = self._layer(node) if node.kind == "layer" else self._operation(node)
        self.nodes.append(made)

    def _operation(self, node: Node) -> Operation:
        is_mean = node.kind == "mean_pool"
        kind = "sum_pool" if is_mean else node.kind
        made = Operation(
            node.name, kind, node.sources, node.window, node.strides, node.padding
        )
        scale = self.scales[node.sources[0]]
        if is_mean and node.window:
            # Of a mean over all positions their number is known when it runs.
            scale = scale / np.prod(node.window)
        limits = find_range(made, self.ranges, self.positions)
        self.add_source(node.name, limits, scale)
        return made

    def _layer(self, node: Node) -> Layer:
        name, (source,) = node.weights or "", node.sources
        layer, (low, high) = get_module(self.model, name), self.ranges[source]
        is_logits = node.spiking is None
        kernel = encode_kernel(
            name, layer, self.scales[source], max(-low, high), one_scale=is_logits
        )
        factor, bias = _affine(self.model, node, layer)
        gain = kernel.scale * factor
        kernel, gain = kernel.flip(gain < 0), np.abs(gain)
        strides, padding, groups = _find_geometry(name, layer)
        blank = np.zeros(len(gain), np.int32)
        plain = Layer(
            name=node.name,
            source=source,
            codes=kernel.codes,
            strides=strides,
            padding=padding,
            groups=groups,
            shift=blank,
            bias=blank,
            unit=gain,
            table=kernel.table,
            weight_bits=kernel.bits,
            is_linear=isinstance(layer, QuantLinear)
            and not sees_positions(self.model, node, self.shapes),
        )
        sums = accumulator_ranges(plain, low, high)
        most = max(-sums[0].min(), sums[1].max())
        if most >= 2 ** (ACCUMULATOR_BITS - 1):
            raise ValueError(
                f"sums of {name} reach {most}, beyond the {ACCUMULATOR_BITS} bits of "
                "the accumulator; quantize it to fewer bits"
            )
        if is_logits:
            return self._fold_logits(plain, gain[0], bias, most)
        dynamics, decays_input = _dynamics(
            node.name, get_module(self.model, node.spiking), len(gain)
        )
        if decays_input:
            gain, bias = gain * dynamics.decay, bias * dynamics.decay
        folded = fold_neurons(
            node.name,
            gain,
            bias,
            sums,
            dynamics,
            timesteps=self.timesteps,
            membrane_bits=self.membrane_bits,
        )
        self.add_source(node.name, (0, 1), 1.0)
        codes, table = kernel.codes, kernel.table
        if table is None:
            codes = np.where(folded.silent, 0, codes).astype(codes.dtype)
        else:
            table = np.where(folded.silent, 0, table).astype(np.int32)
        return dataclasses.replace(
            plain,
            codes=codes,
            table=table,
            shift=folded.shift,
            bias=folded.bias,
            unit=folded.unit,
            neurons=folded.neurons,
        )

    def _fold_logits(self, plain: Layer, gain, bias, most) -> Layer:
        """Return the layer of the logits, whose channels have one unit."""
        reach = most * gain + np.abs(bias).max() * self.positions
        shift = int(np.clip(np.floor(np.log2(gain * 0.98 * 2**30 / reach)), -30, 30))
        unit = gain * 2.0**-shift
        return dataclasses.replace(
            plain,
            shift=np.full(len(bias), shift, np.int32),
            bias=np.rint(bias / unit).astype(np.int32),
            unit=np.array([unit]),
        )


def _affine(model: nnx.Module, node: Node, layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return factor and bias of BatchNorm behind a layer, with the layer's bias."""
    channels = layer.kernel.shape[-1]
    own = np.zeros(channels)
    if layer.bias is not None:
        own = np.asarray(layer.bias.get_value(), np.float64)
    if node.norm is None:
        return np.ones(channels), own
    norm = get_module(model, node.norm)
    scale, shift, mean, var = (
        np.asarray(part.get_value(), np.float64)
        for part in (norm.scale, norm.bias, norm.mean, norm.var)
    )
    factor = scale / np.sqrt(var + EPSILON)
    return factor, shift + (own - mean) * factor


def _dynamics(name: str, spiking: Spiking, channels: int) -> tuple[Dynamics, bool]:
    """Return the neurons' numbers, and whether their leak scales the input."""
    neuron = spiking.learned_neuron()
    if not isinstance(neuron, (IF, LIF, PLIF)) or neuron.v_min is not None:
        raise ValueError(
            f"the neurons of {name} must be neurons.LIF, IF or PLIF without v_min, got "
            f"{type(neuron).__name__}"
        )
    if isinstance(neuron, IF):
        decay: Any = 0.0
    elif isinstance(neuron, PLIF):
        decay = 1 / (1 + np.exp(-np.asarray(neuron.w, np.float64)))
    else:
        decay = 1 / np.asarray(neuron.tau, np.float64)
    soft = neuron.v_reset is None

    def spread(key: str, value: Any) -> np.ndarray:
        value = np.asarray(value, np.float64)
        if value.size != 1 and (value.size, value.shape[-1]) != (channels, channels):
            raise ValueError(
                f"{key} of {name} must be one number or one a channel, got shape "
                f"{value.shape}"
            )
        return np.broadcast_to(value.reshape(-1), (channels,))

    dynamics = Dynamics(
        decay=spread("tau", decay),
        threshold=spread("v_threshold", neuron.v_threshold),
        reset=spread("v_reset", 0.0 if soft else neuron.v_reset),
        soft=soft,
        levels=_membrane_levels(name, spiking),
    )
    return dynamics, not isinstance(neuron, IF) and neuron.decay_input


def _membrane_levels(name: str, spiking: Spiking) -> MembraneLevels | None:
    if spiking.quant is None:
        return None
    spec = spiking.quant.get_value()
    if np.size(spec.bits) > 1 or np.size(spec.clip) > 1:
        raise ValueError(
            f"the membrane of {name} has bits or a clip for each channel, and integers "
            "have one for the layer; give its quantizer one of each"
        )
    if spec.method not in ("uniform", "lsq"):
        raise ValueError(
            f"the membrane of {name} is quantized by {spec.method}, whose levels are "
            'no multiples of a step; use method "uniform" or "lsq"'
        )
    bits, signed = int(spec.bits), spec.signed
    half = spec.method == "uniform" and (spec.grid or "mid_rise") == "mid_rise"
    high = 2 ** (bits - signed) - 1
    low = -high if signed else 0
    if signed and (half or spec.method == "lsq"):
        low -= 1
    if spec.method == "lsq":
        scale = np.asarray(value_of(spiking.quant_scale), np.float64)
        if scale.size != 1 + spec.zero_point:
            raise ValueError(
                f"the membrane of {name} has a step for each channel, and integers "
                "have one for the layer; give its quantizer one clip"
            )
        step = scale.ravel()[0].item()
        if spec.zero_point:
            low = -int(np.rint(np.clip(scale[1, 0], 0, 2**bits - 1)))
            high = low + 2**bits - 1
        return MembraneLevels(step, low, high, False, spiking.site, high * step)
    clip = float(np.asarray(spec.bounds(jnp.zeros(1, jnp.float32))).item())
    step = clip / (high + 0.5 * half)
    return MembraneLevels(step, low, high, half, spiking.site, clip)


def _make_float_layer(model, node, mean, std, full_scale) -> border.FloatLayer:
    layer, spiking = (get_module(model, name) for name in (node.weights, node.spiking))
    if spiking.quant is not None:
        raise ValueError(
            f"the membrane of {node.spiking} is quantized and the kernel of "
            f"{node.weights} is not; quantize both or neither"
        )
    factor, bias = _affine(model, node, layer)
    dynamics, decay_input = _dynamics(node.name, spiking, len(factor))
    kernel = np.asarray(layer.kernel.get_value(), np.float64)
    strides, padding, groups = _find_geometry(node.weights, layer)
    return border.FloatLayer(
        name=node.name,
        kernel=kernel if kernel.ndim == 4 else kernel[None, None],
        strides=strides,
        padding=padding,
        groups=groups,
        factor=factor,
        bias=bias,
        decay=dynamics.decay,
        threshold=dynamics.threshold,
        reset=dynamics.reset,
        soft=dynamics.soft,
        decay_input=decay_input,
        mean=mean,
        std=std,
        full_scale=float(full_scale),
    )


def _find_geometry(name: str, layer: Any) -> tuple[Any, Any, int]:
    """Return strides, padding and groups of a convolution, or of one window."""
    if isinstance(layer, QuantLinear):
        return (1, 1), (0, 0), 1
    if layer.kernel.ndim != 4 or set(layer.dilation) != {1}:
        raise ValueError(
            f"{name} must be a convolution of two axes without dilation, got a kernel "
            f"of shape {layer.kernel.shape}, dilation {layer.dilation}"
        )
    (top, _), (left, _) = layer.padding
    return layer.strides, (top, left), layer.groups


def _find_greatest_multiplier(layer: Any) -> int:
    """Return the greatest multiplier of pixels for which the layer's sums have room."""
    spec, (codes, _) = layer.quant.get_value(), layer.encode()
    if spec.method == "lq_net" or spec.group_size is not None:
        return _ROUNDED  # weights that are rounded need the room too
    total = np.abs(codes.astype(np.int64)).reshape(-1, codes.shape[-1]).sum(0).max()
    inputs = codes.shape[-2] * getattr(layer, "groups", 1)
    room = min(2**29 // (256 * max(int(total), 1)), 2**21 // (256 * inputs))
    return int(np.clip(room, 1, _PIXELS))
