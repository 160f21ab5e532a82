"""Codes packed into bytes, and quantized kernels that are kept as such."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax.quantize.codes import decode, encode, find_scale
from snnjax.quantize.lqnet import clip_weights, lq_net
from snnjax.quantize.powers import from_places, to_places

MOST_BITS = 16


def pack_kernel(
    spec: Any, w: Array, state: Any
) -> tuple[np.ndarray, dict[str, Any]] | None:
    """Pack a quantized kernel into ``bits`` bits a weight.

    Args:
        spec: a fitted `QuantSpec`.
        w: the weights, finite.
        state: as of `QuantSpec.encode`.

    Returns:
        The bytes, and the JSON values that `unpack_kernel` needs beside the spec. None
        where the kernel could not be restored to the bit: several numbers of bits,
        more than 16, and weights at the end of their number range.
    """
    if np.size(spec.bits) != 1 or float(np.ravel(spec.bits)[0]) > MOST_BITS:
        return None
    bits = int(np.ravel(spec.bits)[0])
    w = _clip(spec, w)
    codes, scale = encode(spec, w, state)
    if spec.method == "power_of_two":
        codes = to_places(codes)
    odd = spec.method in ("dorefa", "binary")
    odd = odd or (spec.method == "uniform" and not spec.has_zero)
    signed = spec.method != "lq_net" and spec.signed
    about = {"bits": bits, "odd": odd, "signed": signed}
    about |= {"shape": list(w.shape), "dtype": str(w.dtype)}
    if spec.method in ("binary", "ternary") or (spec.method, bits) == ("dorefa", 1):
        about["scale"] = scale.tolist()
    packed = pack(codes, bits, odd=odd)
    restored = _clip(spec, jnp.asarray(unpack_kernel(spec, packed, about, state)))
    is_lq_net = spec.method == "lq_net"
    quantize = partial(lq_net, codes=spec.lq_codes) if is_lq_net else spec
    same = np.array_equal(quantize(restored, state), quantize(w, state))
    return (packed, about) if same else None


def unpack_kernel(
    spec: Any, packed: np.ndarray, about: Mapping[str, Any], state: Any
) -> np.ndarray:
    """Return weights that ``spec`` quantizes to the levels that were packed.

    The levels themselves, and of MINT and DoReFa, which take a tanh first, numbers
    whose tanh is theirs.
    """
    shape = tuple(about["shape"])
    codes = unpack(
        packed, about["bits"], shape, signed=about["signed"], odd=about["odd"]
    )
    codes = from_places(codes) if spec.method == "power_of_two" else codes
    like = jnp.zeros(shape, about["dtype"])
    scale = find_scale(spec, like, state)
    scale = about["scale"] if scale is None else scale
    levels = decode(spec, codes, np.asarray(scale, like.dtype))
    if spec.method == "mint":
        # A level may lie beyond 1, the limit of tanh, by half a step.
        levels = np.arctanh(np.clip(levels, -0.999999, 0.999999))
    elif spec.method == "dorefa" and about["bits"] > 1:
        levels = np.arctanh(0.9 * levels)  # of which the largest is 1 again
    return levels.astype(like.dtype)


def _clip(spec: Any, w: Array) -> Array:
    """Clip weights for LQ-Net, as layers do."""
    return clip_weights(w, spec.clip) if spec.method == "lq_net" else w


def pack(codes: ArrayLike, bits: int, *, odd: bool = False) -> np.ndarray:
    """Pack codes into bytes, ``bits`` bits a code, the first in the lowest bits.

    Args:
        codes: whole numbers; negative ones as their two's complement.
        bits: 1 to 16.
        odd: the codes are odd, as `encode`'s on mid-rise: k of ``2 k + 1`` is packed.

    Returns:
        uint8 ``[ceil(size * bits / 8)]``.

    Raises:
        ValueError: codes that are no integers or do not fit, bits out of range.

    >>> pack(np.array([1, -1, 0, 1], np.int8), 2)
    array([77], dtype=uint8)
    """
    codes = np.asarray(codes)
    _check_packed(bits)
    if codes.dtype.kind not in "iu":
        raise ValueError(f"codes must be integers, got {codes.dtype}")
    wide = codes.ravel().astype(np.int64)
    if odd:
        if (wide % 2 == 0).any():
            raise ValueError("codes must be odd, got even ones; leave out odd=True")
        wide = (wide - 1) // 2
    least, most = wide.min(initial=0), wide.max(initial=0)
    if least < -(1 << bits - 1) or most >= 1 << (bits - 1 if least < 0 else bits):
        raise ValueError(f"codes must fit in {bits} bits, got {least} to {most}")
    split = (wide[:, None] >> np.arange(bits) & 1).astype(np.uint8)
    return np.packbits(split.ravel(), bitorder="little")


def unpack(
    packed: ArrayLike,
    bits: int,
    shape: tuple[int, ...],
    *,
    signed: bool = True,
    odd: bool = False,
) -> np.ndarray:
    """Return the codes that `pack` packed, int32 of this shape.

    Args:
        packed: uint8.
        bits: as packed.
        shape: of the codes.
        signed: the codes are two's complements, else from 0 up.
        odd: as packed.

    Raises:
        ValueError: packed of another size or dtype, bits out of range.

    >>> unpack(np.array([77], np.uint8), 2, (4,)).tolist()
    [1, -1, 0, 1]
    """
    packed = np.asarray(packed)
    _check_packed(bits)
    number = int(np.prod(shape))
    if packed.dtype != np.uint8 or packed.shape != (-(-number * bits // 8),):
        raise ValueError(
            f"packed must be {-(-number * bits // 8)} bytes for {number} codes of "
            f"{bits} bits, got {packed.dtype} of shape {packed.shape}"
        )
    split = np.unpackbits(packed, count=number * bits, bitorder="little")
    codes = split.reshape(number, bits) @ (1 << np.arange(bits))
    if signed:
        codes = np.where(codes >> bits - 1 == 1, codes - (1 << bits), codes)
    return (2 * codes + 1 if odd else codes).astype(np.int32).reshape(shape)


def _check_packed(bits):
    _checks.require_whole("bits", bits, 1)
    if bits > MOST_BITS:
        raise ValueError(f"bits must be from 1 to {MOST_BITS}, got {bits}")
