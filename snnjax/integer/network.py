"""Integer networks as values: layers, neurons, operations, all of whole numbers.

This module, `reference` and `files` need numpy alone: where JAX is not installed a
saved network still loads and runs.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from snnjax.integer import border, reference

ACCUMULATOR_BITS = 31  # one less than int32: a rounded shift adds half
LEAK_BITS = 15  # a leak of d is the whole number d * 2**15: 2**14, a shift, at tau = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Neurons:
    """Numbers of a layer's neurons, in its channels' units.

    Attributes:
        threshold: int32 [C]; a neuron fires at it or above.
        reset: int32 [C]: the potential after a spike and at rest, or with ``soft`` what
            a spike subtracts, from neurons that rest at 0.
        leak: int32 [C]: the share that a step loses, in 1 / 2**15; 0 without leak.
        soft: reset by subtraction.
        site: where the membrane is rounded to levels: ``"post_reset"``,
            ``"pre_fire"``, or ``"none"``.
        step: int32 [C], even: distance of two levels; 0 without levels.
        low: least code of a level.
        high: greatest code.
        half: levels are ``(2 code + 1) step / 2`` (mid-rise), else ``code * step``.
    """

    threshold: np.ndarray
    reset: np.ndarray
    leak: np.ndarray
    soft: bool = False
    site: str = "none"
    step: np.ndarray | None = None
    low: int = 0
    high: int = 0
    half: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """Convolution, BatchNorm and neurons in whole numbers.

    A sum of codes times inputs is the accumulator; shifted and with the bias added it
    is the current, in the unit of its channel's membranes.

    Attributes:
        name: of its neurons; of the linear layer where it makes the logits.
        source: the node that it reads.
        codes: ``[kernel height, width, C_in / groups, C]``, int8 to int32; of a linear
            layer ``[1, 1, C_in, C]``; with a table uint8 indices.
        strides: (height, width).
        padding: zeros on each side, (height, width).
        groups: of the convolution.
        shift: int32 [C]: the accumulator's shift to the left, or if negative to the
            right, rounded to the nearest.
        bias: int32 [C].
        unit: of a membrane, float64 [C], in the network's own numbers; for people, no
            step of the computation reads it. Of logits ``[1]``: what one is worth.
        neurons: their numbers; None for logits.
        table: int32 ``[levels, C]``: the weights that the codes of LQ-Net index.
        weight_bits: bits of a code.
        is_linear: it has no positions: its spikes are ``[T, B, C]``.
    """

    name: str
    source: str
    codes: np.ndarray
    strides: tuple[int, int]
    padding: tuple[int, int]
    groups: int
    shift: np.ndarray
    bias: np.ndarray
    unit: np.ndarray
    neurons: Neurons | None = None
    table: np.ndarray | None = None
    weight_bits: int = 8
    is_linear: bool = False

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """The whole numbers that inputs are multiplied by, int32, as the codes."""
        if self.table is None:
            return self.codes.astype(np.int32)
        columns = np.arange(self.codes.shape[-1])
        return self.table[self.codes, columns].astype(np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """Operation on whole numbers without weights.

    Attributes:
        name: of its output.
        kind: ``"add"``, ``"and"`` (the product), ``"iand"`` (``first * (1 - second)``),
            ``"max_pool"``, ``"sum_pool"`` (average pooling without its division) or
            ``"flatten"`` (to one position, channels last).
        sources: the one or two nodes that it reads.
        window: (height, width) of a pooling; () for all positions.
        strides: of a pooling.
        padding: of max-pooling, on each side.
    """

    name: str
    kind: str
    sources: tuple[str, ...]
    window: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """The results of a run.

    Attributes:
        logits: ``[T, B, classes]``: int32 where the last layer is quantized, in units
            of ``logit_scale``; else float32, with a scale of 1.
        spikes: ``{layer: [T, B, H, W, C]}``, int8, of every layer of neurons.
        logit_scale: ``logits * logit_scale`` are those of the fake-quantized network.
    """

    logits: Any
    spikes: dict[str, Any]
    logit_scale: float


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """Network of whole numbers, from the border to the integers on.

    Made by `integer.from_model` or `integer.load`.

    Attributes:
        border: makes whole numbers of an input: pixels (`border.Pixels`), or the spikes
            of a first layer in full precision (`border.FloatLayer`).
        nodes: layers and operations, each behind those that it reads.
        readout: the last layer where it is in full precision; else None.
        timesteps: T of a run unless given; membranes of neurons without leak are
            proven for so many steps, and saturate beyond.
        membrane_bits: width of a membrane, to which it saturates.
        most_positions: greatest number of positions that are pooled to one where the
            logits are whole numbers, for which sums are proven; 0 without.
        has_positions: inputs are images; else ``[B, C]`` or ``[T, B, C]``.
        example: input at the border and what comes out, for readers in other languages:
            ``{"input", "logits", "spikes.LAYER"}``.
    """

    border: Any
    nodes: tuple[Layer | Operation, ...]
    readout: Any
    timesteps: int
    membrane_bits: int
    most_positions: int = 0
    has_positions: bool = True
    example: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Least and greatest value of the border and of each node but logits."""
        found = {self.border.name: self.border.limits}
        for node in self.nodes:
            if not isinstance(node, Layer) or node.neurons is not None:
                found[node.name] = find_range(node, found, self.most_positions)
        return found

    def layers(self) -> dict[str, Layer]:
        """Return the integer layers by name."""
        return {node.name: node for node in self.nodes if isinstance(node, Layer)}

    def encode_input(self, x: Any, *, timesteps: int | None = None) -> np.ndarray:
        """Return an input's whole numbers at the border, by numpy in float64.

        Args:
            x: what the model takes, ``[B, H, W, C]`` or ``[T, B, H, W, C]``; or of an
                integer dtype its pixels, or with a ``full_scale`` of 1 its counts,
                before they were normalised.
            timesteps: T; by default the network's.

        Returns:
            Pixels, int32, of x's shape; or spikes ``[T, B, H, W, C]``, int8.

        Raises:
            ValueError: x of another shape, or values that no pixel has; a sequence of
                whole numbers where pixels of 255 are 1.
        """
        steps = self.timesteps if timesteps is None else timesteps
        rank = 3 if self.has_positions else 1
        x = border.check_input(x, steps, rank)
        if x.ndim == rank + 2 and x.dtype.kind != "f" and self.border.full_scale == 255:
            raise ValueError(
                "x is a sequence of whole numbers, which the twin would divide by 255; "
                "counts of events are not divided: give from_model full_scale=1. Of "
                "pixels give floats, as the model takes them"
            )
        return self.border.encode(
            x if self.has_positions else x[..., None, None, :], steps
        )

    def run(self, x: Any, *, timesteps: int | None = None) -> Result:
        """Run by JAX; the border and a last layer of floats are numpy's.

        Args:
            x: as of `encode_input`.
            timesteps: T; by default the network's.

        Raises:
            ValueError: as `encode_input`.
        """
        return self.run_border(self.encode_input(x, timesteps=timesteps), timesteps)

    def run_border(self, inputs: Any, timesteps: int | None = None) -> Result:
        """Run by JAX from whole numbers at the border on."""
        from snnjax.integer import jitted

        steps = self.timesteps if timesteps is None else timesteps
        self._check_positions(inputs)
        return self._finish(inputs, *jitted.run(self, np.asarray(inputs), steps))

    def run_numpy(self, x: Any, *, timesteps: int | None = None) -> Result:
        """Run by numpy: the same result to the bit. See `run`."""
        return self.run_border_numpy(
            self.encode_input(x, timesteps=timesteps), timesteps
        )

    def run_border_numpy(self, inputs: Any, timesteps: int | None = None) -> Result:
        """Run by numpy from whole numbers at the border on."""
        steps = self.timesteps if timesteps is None else timesteps
        self._check_positions(inputs)
        return self._finish(inputs, *reference.run(self, np.asarray(inputs), steps))

    def _finish(self, inputs: Any, last: Any, spikes: dict[str, Any]) -> Result:
        if self.border.name != border.INPUT:
            spikes = {self.border.name: np.asarray(inputs, np.int8)} | spikes
        flat = {name for name, layer in self.layers().items() if layer.is_linear}
        if not self.has_positions:
            flat.add(self.border.name)
        spikes = {k: s[..., 0, 0, :] if k in flat else s for k, s in spikes.items()}
        if self.readout is not None:
            return Result(self.readout.run(np.asarray(last)), spikes, 1.0)
        scale = next(reversed(self.layers().values())).unit.item()
        if self.most_positions:
            scale /= reference.pooled_positions(self, np.shape(inputs))
        return Result(last, spikes, scale)

    def _check_positions(self, inputs: Any) -> None:
        if not self.most_positions:
            return
        positions = reference.pooled_positions(self, np.shape(inputs))
        if positions > self.most_positions:
            raise ValueError(
                f"x of shape {np.shape(inputs)} has {positions} positions at the last "
                f"pooling, and its sums are proven for {self.most_positions}; give "
                "from_model the image_size"
            )

    def describe(self) -> str:
        """Return a line for each layer: widths of weights, sums, biases, membranes."""
        lines = [
            f"border {self.border.name}: {self.border.describe()}; a neuron fires at "
            f"its threshold or above; membranes saturate at {self.membrane_bits} bits",
            f"{'layer':24} {'weights':>7} {'input':>5} {'sum':>4} {'shift':>9} "
            f"{'bias':>4} {'membrane':>8} {'leak':>6} reset",
        ]
        for name, layer in self.layers().items():
            neurons = layer.neurons
            low, high = self.ranges[layer.source]
            kept, leak, reset = "", "", ""
            if neurons is not None:
                kept = str(self.membrane_bits)
                if neurons.site != "none":
                    kept = str(count_bits([neurons.low, neurons.high]))
                leak = "/".join(
                    f"{n / 2**LEAK_BITS:g}" for n in np.unique(neurons.leak)
                )
                reset = "subtract" if neurons.soft else "hard"
            shifts = f"{layer.shift.min()}..{layer.shift.max()}"
            lines.append(
                f"{name:24} {layer.weight_bits:7} {count_bits([low, high]):5} "
                f"{count_bits(accumulator_range(layer, low, high)):4} {shifts:>9} "
                f"{count_bits(layer.bias):4} {kept:>8} {leak:>6} {reset}"
            )
        return "\n".join(lines)

    def save(self, path: Any) -> None:
        """Write it to an ``.npz`` file, see `integer.files`."""
        from snnjax.integer import files

        files.save(self, path)


def find_range(
    node: Layer | Operation, ranges: dict[str, tuple[int, int]], positions: int
) -> tuple[int, int]:
    """Return the least and the greatest value of a node.

    Args:
        node: neurons, or an operation.
        ranges: of the nodes that it reads.
        positions: pooled where a window is all of them; 0 where they are not proven.
    """
    if isinstance(node, Layer):
        return 0, 1
    low, high = ranges[node.sources[0]]
    match node.kind:
        case "add":
            other = ranges[node.sources[1]]
            return low + other[0], high + other[1]
        case "and":
            return 0, high * ranges[node.sources[1]][1]
        case "sum_pool":
            number = int(np.prod(node.window)) if node.window else max(positions, 1)
            return low * number, high * number
    return min(low, 0), high


def accumulator_ranges(
    layer: Layer, low: int, high: int
) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest sum of each channel, int64 [C], of inputs in this range."""
    weights = layer.weights.astype(np.int64).reshape(-1, layer.weights.shape[-1])
    positive, negative = np.maximum(weights, 0).sum(0), np.minimum(weights, 0).sum(0)
    low, high = min(low, 0), max(high, 0)  # padding is 0
    return positive * low + negative * high, positive * high + negative * low


def accumulator_range(layer: Layer, low: int, high: int) -> tuple[int, int]:
    """Least and greatest sum of any channel."""
    least, greatest = accumulator_ranges(layer, low, high)
    return int(least.min(initial=0)), int(greatest.max(initial=0))


def count_bits(values: Sequence[int] | np.ndarray) -> int:
    """Bits that hold all of these: two's complement if one is negative."""
    least = min((int(v) for v in np.ravel(values)), default=0)
    greatest = max((int(v) for v in np.ravel(values)), default=0)
    if least >= 0:
        return max(1, greatest.bit_length())
    return max((-least - 1).bit_length(), greatest.bit_length()) + 1
