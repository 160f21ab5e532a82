"""The integer network in JAX, equal to `integer.reference` to the bit.

Membranes and sums are int32. Products of matrices are float32's, which every device
has: of parts of the weights so small that all sums are whole numbers below 2**24.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from snnjax.integer import reference
from snnjax.integer.network import LEAK_BITS, IntegerNetwork, Layer, Operation

_EXACT = 24  # bits of the whole numbers that float32 holds


def run(
    network: IntegerNetwork, inputs: np.ndarray, timesteps: int
) -> tuple[Array, dict[str, Array]]:
    """Run from the border on; see `reference.run`.

    Compiled once for a network, a shape and a number of steps.
    """
    program, weights = _compile(network)
    return program(weights, jnp.asarray(inputs), timesteps)


@functools.lru_cache(maxsize=8)
def _compile(network: IntegerNetwork) -> Any:
    weights = {}
    for node in network.nodes:
        if isinstance(node, Layer):
            low, high = network.ranges[node.source]
            weights[node.name] = split_weights(node.weights, max(-low, high))
    return jax.jit(functools.partial(_run, network), static_argnums=2), weights


def split_weights(weights: np.ndarray, greatest: int) -> list[tuple[int, Array]]:
    """Split whole numbers into parts whose sums of products float32 holds.

    Args:
        weights: ``[k, m, C_in / groups, C]``.
        greatest: magnitude of the inputs.

    Returns:
        Pairs (bits, part), from the lowest part on: weights are the sum of the parts,
        each times ``2**bits``.
    """
    inputs = max(1, greatest) * weights.shape[2]
    width = _EXACT - 1 - inputs.bit_length()
    if width < 1:
        raise ValueError(
            f"sums of {weights.shape[2]} inputs of up to {greatest} do not fit in "
            f"{_EXACT} bits; use fewer inputs"
        )
    parts, rest, bits = [], weights.astype(np.int64), 0
    while True:
        if np.abs(rest).max(initial=0) < 1 << width:
            parts.append((bits, jnp.asarray(rest, jnp.float32)))
            return parts
        low = (rest + (1 << width - 1) & (1 << width) - 1) - (1 << width - 1)
        parts.append((bits, jnp.asarray(low, jnp.float32)))
        rest, bits = rest - low >> width, bits + width


def _run(network, weights, inputs, timesteps):
    values, spikes = {network.border.name: inputs.astype(jnp.int32)}, {}
    positions = reference.pooled_positions(network, inputs.shape)
    for node in network.nodes:
        if isinstance(node, Layer):
            x, factor = values[node.source], 1 if node.neurons else positions
            current = _compute_current(node, weights[node.name], x, factor)
            if current.ndim == 4:
                current = jnp.broadcast_to(current, (timesteps, *current.shape))
            if node.neurons is None:
                out = current[..., 0, 0, :]
            else:
                out = _fire(network, node, current)
                spikes[node.name] = out.astype(jnp.int8)
        else:
            out = _apply(node, *(values[name] for name in node.sources))
        values[node.name] = out
    last = network.readout.source if network.readout else network.nodes[-1].name
    return values[last], spikes


def _compute_current(layer: Layer, parts, x: Array, positions: int) -> Array:
    images = x.reshape(-1, *x.shape[-3:]).astype(jnp.float32)
    sums = jnp.zeros((), jnp.int32)
    for bits, w in parts:
        part = _convolve(images, w, layer.strides, layer.padding, layer.groups)
        sums = sums + (part << bits)
    left, right = np.maximum(layer.shift, 0), np.maximum(-layer.shift, 0)
    half = np.where(right > 0, 1 << np.maximum(right - 1, 0), 0).astype(np.int32)
    current = ((sums << left) + half >> right) + layer.bias * positions
    return current.reshape(*x.shape[:-3], *current.shape[1:])


def _convolve(x, w, strides, padding, groups) -> Array:
    """Sum, in int32, the exact products of each place in the window."""
    (high, wide), total = padding, jnp.zeros((), jnp.int32)
    x = jnp.pad(x, ((0, 0), (high, high), (wide, wide), (0, 0)))
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            part = _place(x, (i, j), w.shape, strides)
            part = part.reshape(*part.shape[:-1], groups, -1)
            kernel = w[i, j].reshape(w.shape[2], groups, -1)
            product = jnp.einsum("nhwgc,cgk->nhwgk", part, kernel, precision="highest")
            product = product.reshape(*product.shape[:-2], -1)
            total = total + jnp.rint(product).astype(jnp.int32)
    return total


def _place(x, at, window, strides):
    (i, j), (height, width) = at, (x.shape[-3], x.shape[-2])
    last = (height - window[0] + i + 1, width - window[1] + j + 1)
    return x[..., i : last[0] : strides[0], j : last[1] : strides[1], :]


def _fire(network: IntegerNetwork, layer: Layer, currents: Array) -> Array:
    n: Any = layer.neurons
    rest = np.zeros_like(n.reset) if n.soft else n.reset
    limit = 1 << network.membrane_bits - 1

    def step(v, current):
        h = v - _leak(v - rest, n.leak) + current
        h = jnp.clip(h, -limit, limit - 1)
        if n.site == "pre_fire":
            h = _round_to_level(n, h)
        s = h >= n.threshold
        v = jnp.where(s, h - n.reset if n.soft else n.reset, h)
        if n.site == "post_reset":
            v = _round_to_level(n, v)
        return v, s.astype(jnp.int32)

    v = jnp.broadcast_to(jnp.asarray(rest, jnp.int32), currents.shape[1:])
    # Not unrolled: a step is long, and so would its compilation be.
    return jax.lax.scan(step, v, currents)[1]


def _leak(v: Array, leak: np.ndarray) -> Array:
    """Return ``v * leak >> LEAK_BITS``, by two products that fit in 32 bits."""
    high, low = v >> LEAK_BITS, v & (1 << LEAK_BITS) - 1
    return high * leak + (low * leak >> LEAK_BITS)


def _round_to_level(n: Any, v: Array) -> Array:
    if n.half:
        code = jnp.clip(v // n.step, n.low, n.high)
        return code * n.step + n.step // 2
    code, rest = jnp.divmod(2 * v + n.step, 2 * n.step)
    code = code - ((rest == 0) & (code % 2 == 1)).astype(code.dtype)
    return jnp.clip(code, n.low, n.high) * n.step


def _apply(node: Operation, x: Array, y: Any = None) -> Array:
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
            return x.sum((-3, -2), keepdims=True, dtype=jnp.int32)
    (high, wide), lead = node.padding, [(0, 0)] * (x.ndim - 3)
    x = jnp.pad(x, [*lead, (high, high), (wide, wide), (0, 0)])
    join = jnp.maximum if node.kind == "max_pool" else jnp.add
    return functools.reduce(
        join,
        (
            _place(x, (i, j), node.window, node.strides)
            for i in range(node.window[0])
            for j in range(node.window[1])
        ),
    )
