"""The integer network in numpy, to be read as the specification.

Every value is a whole number; `>>` is the arithmetic shift, which rounds down. Products
of a membrane and its leak need 46 bits, or the two parts that `integer.jitted` takes;
everything else stays within 32.
"""

from typing import Any

import numpy as np

LEAK_BITS = 15


def run(
    network: Any, inputs: np.ndarray, timesteps: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Run from the border on.

    Args:
        network: an `IntegerNetwork`.
        inputs: spikes ``[T, B, H, W, C]``, or pixels, one image ``[B, H, W, C]`` for
            all steps or ``[T, B, H, W, C]``.
        timesteps: T.

    Returns:
        The last node's values, logits ``[T, B, classes]`` or what a last layer of
        floats reads; and the spikes of every layer.
    """
    values, spikes = {network.border.name: inputs.astype(np.int32)}, {}
    positions = pooled_positions(network, inputs.shape)
    for node in network.nodes:
        if hasattr(node, "codes"):
            x = values[node.source]
            current = compute_current(node, x, 1 if node.neurons else positions)
            if node.neurons is None:
                out = repeat(current, timesteps)[..., 0, 0, :].astype(np.int32)
            else:
                out = fire(network, node, repeat(current, timesteps))
                spikes[node.name] = out.astype(np.int8)
        else:
            out = apply_operation(node, *(values[name] for name in node.sources))
        values[node.name] = out
    last = network.readout.source if network.readout else network.nodes[-1].name
    return values[last], spikes


def compute_current(layer: Any, x: np.ndarray, positions: int) -> np.ndarray:
    """Return the current of a layer's neurons: the shifted accumulator plus the bias.

    Logits of a mean over positions are of its sum, so the bias counts as often.
    """
    images = x.reshape(-1, *x.shape[-3:])
    sums = convolve(images, layer.weights, layer.strides, layer.padding, layer.groups)
    left, right = np.maximum(layer.shift, 0), np.maximum(-layer.shift, 0)
    half = np.where(right > 0, 1 << np.maximum(right - 1, 0), 0)
    current = ((sums << left) + half >> right) + layer.bias * positions
    return current.reshape(*x.shape[:-3], *current.shape[1:])


def fire(network: Any, layer: Any, currents: np.ndarray) -> np.ndarray:
    """Return the spikes ``[T, B, H, W, C]`` that currents of that shape make."""
    n = layer.neurons
    rest = np.zeros_like(n.reset) if n.soft else n.reset
    limit = 1 << network.membrane_bits - 1
    v = np.broadcast_to(rest, currents.shape[1:]).astype(np.int64)
    spikes = []
    for current in currents:
        # Charge: lose the leak, gain the current, saturate.
        h = v - ((v - rest) * n.leak >> LEAK_BITS) + current
        h = np.clip(h, -limit, limit - 1)
        if n.site == "pre_fire":
            h = round_to_level(n, h)
        # Fire at the threshold or above, and reset.
        s = h >= n.threshold
        v = np.where(s, h - n.reset if n.soft else n.reset, h)
        if n.site == "post_reset":
            v = round_to_level(n, v)
        spikes.append(s)
    return np.stack(spikes).astype(np.int32)


def round_to_level(n: Any, v: np.ndarray) -> np.ndarray:
    """Round membranes to the nearest level.

    Between two codes the even one; between two levels of mid-rise the upper one.
    """
    if n.half:
        code = np.clip(v // n.step, n.low, n.high)
        return code * n.step + n.step // 2
    code, rest = np.divmod(2 * v + n.step, 2 * n.step)
    code = code - ((rest == 0) & (code % 2 == 1))
    return np.clip(code, n.low, n.high) * n.step


def apply_operation(node: Any, x: np.ndarray, y: Any = None) -> np.ndarray:
    """Join two nodes, or pool one: ``[..., H, W, C]``."""
    match node.kind:
        case "add":
            return x + y
        case "and":
            return x * y
        case "iand":
            return x * (1 - y)
        case "flatten":
            return x.reshape(*x.shape[:-3], 1, 1, -1)
        case "sum_pool" if not node.window:
            return x.sum((-3, -2), keepdims=True)
        case "sum_pool" | "max_pool":
            # Padding is 0, never more than a spike or a sum of them.
            parts = [part for _, part in windows(x, node)]
            return np.max(parts, 0) if node.kind == "max_pool" else np.sum(parts, 0)
    raise ValueError(f"{node.name} is of an unknown kind, {node.kind!r}")


def windows(x: np.ndarray, node: Any):
    """Yield, for each place in a window, its offset and x there, strided."""
    x = _pad(x, node.padding)
    for i in range(node.window[0]):
        for j in range(node.window[1]):
            yield (i, j), _place(x, (i, j), node.window, node.strides)


def _pad(x, padding):
    (high, wide), lead = padding, [(0, 0)] * (x.ndim - 3)
    return np.pad(x, [*lead, (high, high), (wide, wide), (0, 0)])


def _place(x, at, window, strides):
    """X at one place of every window."""
    (i, j), (height, width) = at, (x.shape[-3], x.shape[-2])
    last = (height - window[0] + i + 1, width - window[1] + j + 1)
    return x[..., i : last[0] : strides[0], j : last[1] : strides[1], :]


def convolve(x, weights, strides, padding, groups) -> np.ndarray:
    """Convolve ``[N, H, W, C_in]`` with ``[k, m, C_in / groups, C]``.

    Sums of whole numbers are below 2**31, as is proven for them, and so exact in the
    float64 in which numpy multiplies matrices fast.
    """
    whole = weights.dtype.kind in "iu"
    x, w = _pad(x.astype(np.float64), padding), weights.astype(np.float64)
    y: Any = 0.0
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            part = _place(x, (i, j), w.shape, strides)
            part = part.reshape(*part.shape[:-1], groups, -1)
            kernel = w[i, j].reshape(w.shape[2], groups, -1).transpose(1, 0, 2)
            # [..., groups, 1, C_in / groups] @ [groups, C_in / groups, C / groups]
            if groups == 1:
                product = part[..., 0, :] @ kernel[0]
            else:
                product = (part[..., None, :] @ kernel)[..., 0, :]
                product = product.reshape(*product.shape[:-2], -1)
            y = y + product
    return y.astype(np.int64) if whole else y


def repeat(current: np.ndarray, timesteps: int) -> np.ndarray:
    """Show the current of one image at every step."""
    if current.ndim == 5:
        return current
    return np.broadcast_to(current, (timesteps, *current.shape))


def pooled_positions(network: Any, shape: tuple[int, ...]) -> int:
    """Count the positions that are summed for one logit; 1 without such pooling.

    Args:
        network: an `IntegerNetwork`.
        shape: of the inputs at the border.

    Raises:
        ValueError: an input that is too small, or of another number of channels.
    """
    sizes, pooled = {network.border.name: shape[-3:]}, 1
    for node in network.nodes:
        is_layer = hasattr(node, "codes")
        height, width, channels = sizes[node.source if is_layer else node.sources[0]]
        if is_layer:
            window, inputs = node.codes.shape[:2], node.codes.shape[2] * node.groups
            if channels != inputs:
                raise ValueError(
                    f"x of shape {shape} at the border gives {node.name} {channels} "
                    f"inputs, and it has {inputs}; is it of the network's image size?"
                )
            channels = node.codes.shape[3]
        else:
            window = node.window
        if not is_layer and node.kind == "flatten":
            height, width, channels = 1, 1, height * width * channels
        elif not is_layer and node.kind == "sum_pool" and not window:
            pooled, height, width = height * width, 1, 1
        elif window:
            height, width = (
                (n + 2 * pad - k) // stride + 1
                for n, k, stride, pad in zip(
                    (height, width), window, node.strides, node.padding, strict=True
                )
            )
        if height < 1 or width < 1:
            raise ValueError(f"x of shape {shape} is too small for {node.name}")
        sizes[node.name] = (height, width, channels)
    readout = network.readout
    if readout is not None:
        height, width, channels = sizes[readout.source]
        inputs = channels if readout.mean else height * width * channels
        if inputs != len(readout.kernel):
            raise ValueError(
                f"x of shape {shape} at the border gives the last layer {inputs} "
                f"inputs, and it has {len(readout.kernel)}; is it of the network's "
                "image size?"
            )
    return pooled
