"""The connection table of layers one after another."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from snnjax import cost
from snnjax.layers import (
    AvgPool,
    BatchNorm,
    Dropout,
    Flatten,
    MaxPool,
    QuantConv,
    QuantLinear,
    QuantScale,
    Readout,
    Recurrent,
    Spiking,
    SumPool,
)
from snnjax.layers.shapes import Pool
from snnjax.models.connections import INPUT, Synapse


class Windows(NamedTuple):
    """Windows that pooling sums, on each axis, of which weights see the sums.

    Attributes:
        size: length of a window.
        stride: distance of windows.
        padding: zeros in front.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]


class Feed(NamedTuple):
    """The source of the next layer.

    Attributes:
        source: the recording, or the layer in front.
        shape: of the recording.
        seen: the shape that the next layer sees, before it is flattened.
        windows: that are summed on the way; None where there are none.
    """

    source: str
    shape: tuple[int, ...]
    seen: tuple[int, ...]
    windows: Windows | None = None


def trace_synapses(
    layers: Mapping[str, Any],
    in_shape: tuple[int, ...],
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[Synapse, ...]:
    """Return the rows of all layers with weights, in order.

    Args:
        layers: by name.
        in_shape: of the input, without time and batch.
        shapes: behind each layer.

    Raises:
        ValueError: a layer of another kind, or pooling that cannot be folded.
    """
    table: list[Synapse] = []
    feed, has_neurons = Feed(INPUT, in_shape, in_shape), True
    for name, layer in layers.items():
        out = shapes[name]
        if isinstance(layer, QuantConv | QuantLinear | QuantScale):
            has_neurons = False
        match layer:
            case QuantConv():
                table.append(_convolve(name, layer, feed, out))
                feed = Feed(name, out, out)
            case QuantLinear():
                table.append(_map_all(name, layer, feed, out))
                feed = Feed(name, out, out)
            case QuantScale():
                each = out[-1]
                ones, none = (1,) * (len(out) - 1), ((0, 0),) * (len(out) - 1)
                _require_plain(name, feed)
                row = (name, (feed.source,), "add", ones, ones, none, feed.shape, out)
                table.append(Synapse(*row, groups=each))
                feed = Feed(name, out, out)
            case Recurrent():
                kept, c = f"{name}.sn", out[-1]
                row = (f"{name}.feedback", (kept,), "add", (), (), (), (c,), (c,))
                groups = c if isinstance(layer.feedback, QuantScale) else 1
                own = c if has_neurons else 0  # the row in front may have them
                table.append(Synapse(*row, groups=groups, neurons=own))
                feed, has_neurons = Feed(kept, out, out), True
            case Readout():
                feed = Feed(name, out, out)
            case Spiking():
                if not has_neurons and math.prod(out) != math.prod(table[-1].out_shape):
                    table[-1] = table[-1]._replace(neurons=math.prod(out))
                feed, has_neurons = Feed(name, out, out), True
            case MaxPool():
                _require_plain(name, feed)
                feed = Feed(f"{name}.out", out, out)
            case AvgPool() | SumPool():
                feed = _fold(name, layer, feed, out)
            case BatchNorm() | Dropout() | Flatten():
                pass
            case _:
                raise ValueError(
                    f"the synapses of {name}, a {type(layer).__name__}, are not known; "
                    "cost counts those of layers of snnjax.layers"
                )
    return tuple(table)


def _fold(name: str, layer: Pool, feed: Feed, out: tuple[int, ...]) -> Feed:
    """Compose the layer's windows with those in front of it."""
    new = Windows(*layer.sizes(feed.seen))
    _require_exact(name, feed, new.padding)
    old = feed.windows
    return feed._replace(seen=out, windows=new if old is None else _compose(old, new))


def _require_exact(name: str, feed: Feed, padding: tuple[int, ...]) -> None:
    """Raise ValueError where windows of windows would count too much.

    Gaps between pooled windows, or inputs that a window outside of the pooled map
    would see, which is padding instead.
    """
    if feed.windows is None:
        return
    for m, n, w, s, p, pad in zip(
        feed.shape, feed.seen, *feed.windows, padding, strict=False
    ):
        if s > w and (n > 1 or pad):
            wrong, remedy = "leave gaps", "a stride of at most the windows' size"
        elif pad and w > s + p:
            wrong = "overlap, and its padding would be counted as inputs"
            remedy = "windows that do not overlap, or a layer without padding"
        elif pad and n * s < m + p:
            wrong = "leave inputs out, and its padding would be counted as those"
            remedy = "inputs of whole windows, or a layer without padding"
        else:
            continue
        raise ValueError(
            f"the synapses of {name} behind pooling cannot be folded: windows "
            f"{feed.windows.size} of stride {feed.windows.stride} on {feed.shape} "
            f"{wrong}; use {remedy}"
        )


def _compose(old: Windows, new: Windows) -> Windows:
    """Return the windows of windows, on each axis."""
    axes = zip(*old, *new, strict=True)
    composed = [((k - 1) * s + w, s * t, q * s + p) for w, s, p, k, t, q in axes]
    return Windows(*zip(*composed, strict=True))


def _require_plain(name: str, feed: Feed) -> None:
    if feed.windows is not None:
        raise ValueError(
            f"{name} sees means or sums of spikes, whose synapses cannot be counted; "
            "cost counts convolutions and linear layers behind them"
        )


def _convolve(name: str, conv: QuantConv, feed: Feed, out: tuple[int, ...]) -> Synapse:
    """Return a convolution's row, pooling in front of it folded into its windows."""
    axes = len(conv.strides)
    padding, dilation = conv.padding, conv.dilation
    front = tuple(before for before, _ in padding)
    windows, macs = Windows(conv.kernel.shape[:axes], conv.strides, front), None
    if feed.windows is not None:
        _require_exact(name, feed, front)
        if set(dilation) != {1}:
            raise ValueError(
                f"the synapses of {name} behind pooling cannot be folded: its kernel "
                f"has gaps, a dilation of {dilation}"
            )
        plain = _convolve(name, conv, Feed(feed.source, feed.seen, feed.seen), out)
        macs = cost.multiply_accumulates([plain])[name]
        windows = _compose(feed.windows, windows)
    return Synapse(
        name,
        (feed.source,),
        "add",
        windows.size,
        windows.stride,
        tuple((p, p) for p in windows.padding),
        feed.shape,
        out,
        dilation,
        conv.groups,
        macs,
    )


def _map_all(
    name: str, linear: QuantLinear, feed: Feed, out: tuple[int, ...]
) -> Synapse:
    """Return a linear layer's row: one window over all positions of its input."""
    axes = len(feed.shape) - 1
    ones = (1,) * axes
    if linear.kernel.shape[0] == feed.seen[-1] and len(out) == len(feed.seen):
        windows = Windows(ones, ones, (0,) * axes)  # at each position
        shape = out
    else:
        windows = Windows(feed.seen[:-1], ones, (0,) * axes)
        shape = (*ones, *out)
    macs = None
    if feed.windows is not None:
        _require_exact(name, feed, windows.padding)
        macs = linear.kernel.size * math.prod(shape[:-1])
        windows = _compose(feed.windows, windows)
    padding = tuple((p, p) for p in windows.padding)
    row = (name, (feed.source,), "add", windows.size, windows.stride, padding)
    return Synapse(*row, feed.shape, shape, macs=macs)
