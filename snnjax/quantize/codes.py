"""Whole-number codes of quantized weights and the levels they stand for."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays, _checks
from snnjax.quantize.lqnet import Codes, LqState, lq_net, make_codes
from snnjax.quantize.lsq import code_bounds
from snnjax.quantize.nearest import divide_scale, smallest_scale
from snnjax.quantize.powers import count_halvings
from snnjax.quantize.uniform import count_parts


def encode(spec: Any, w: ArrayLike, state: Any) -> tuple[np.ndarray, np.ndarray]:
    r"""Encode weights as whole numbers, for a chip or another program.

    .. math:: \hat w = s\, n

    for codes n and a scale s, one number or per channel, float32: the product in
    float32 is the quantized weight to the bit (a bound that was given and is no exact
    multiple of its step apart, whose own level is then off by a unit in the last
    place; `decode` is exact there too). Of weights narrower than float32 it is the
    level before it is rounded to their dtype. Codes on mid-rise, and DoReFa's, are odd:
    ``2 k + 1``; of powers of two they are ``+-2**m``. LQ-Net's codes are indices of
    ascending levels, which are returned in place of the scale: ``[2**bits, C_out]`` of
    weights, ``[levels]`` of `lq_levels`.

    Returns:
        The codes in the shape of ``w``, of the smallest of int8, int16 and int32 that
        holds them (LQ-Net's uint8); the scale or the levels.

    Raises:
        ValueError: method ``"none"`` or a zero point, traced or integer weights, NaN in
            them, or no state for LQ-Net.
    """
    if isinstance(w, jax.core.Tracer):
        raise ValueError("w must not be traced: encode outside of jax.jit")
    w = _checks.require_floating("w", w)
    w = _arrays.widen(w)
    if np.isnan(w).any():
        raise ValueError(f"w has NaN entries, of shape {w.shape}")
    if spec.method == "none":
        raise ValueError("method 'none' has no codes")
    if spec.method == "lq_net":
        return _encode_lq_net(w, state, spec.lq_codes)
    if spec.zero_point:
        raise ValueError("zero_point is for membranes; leave it out on weights")
    if spec.method in ("lsq", "mint"):
        state = spec.init_scale(w) if state is None else state
    spec = spec.fit(w)
    levels, scale = spec(w, state), find_scale(spec, w, state)
    if scale is None:
        axes = tuple(range(w.ndim - 1)) if spec.per_channel else None
        mean = jnp.max(jnp.abs(levels), axes, initial=0)
        scale = jnp.where(mean > 0, mean, 1)
    wide = np.asarray(levels, np.float64) / np.asarray(scale, np.float64)
    codes = np.rint(wide)
    low, high = codes.min(initial=0), codes.max(initial=0)
    limits = map(np.iinfo, (np.int8, np.int16, np.int32))
    fits = next(limit for limit in limits if limit.min <= low and high <= limit.max)
    return codes.astype(fits.dtype), np.asarray(scale)


def find_scale(spec: Any, w: Array, state: Any) -> ArrayLike | None:
    """Return the scale of codes, or LQ-Net's levels.

    Of ``w`` only the shape and the dtype count. None where the scale is a mean
    magnitude of the weights: binary, ternary, DoReFa at 1 bit.

    Raises:
        ValueError: bits of DoReFa that are an array.
    """
    bits = _arrays.match_rank(jnp.asarray(spec.bits, w.dtype), w.ndim)
    match spec.method:
        case "uniform":
            clip = _arrays.match_rank(jnp.asarray(spec.bounds(w), w.dtype), w.ndim)
            grid = spec.grid or "mid_rise"
            parts = count_parts(bits, signed=spec.signed, grid=grid)
            step = divide_scale(clip, parts)
            return 2 * step if grid == "mid_tread" else step
        case "lsq":
            least = jnp.asarray(smallest_scale(w.dtype), w.dtype)
            return jnp.maximum(jnp.asarray(state, w.dtype), least)
        case "power_of_two":
            clip = _arrays.match_rank(jnp.asarray(spec.bounds(w), w.dtype), w.ndim)
            halvings = count_halvings(bits).astype(jnp.int32)
            return jnp.ldexp(clip, -halvings)
        case "lq_net":
            return sort_levels(state, spec.lq_codes)
        case "binary" | "ternary":
            return None
        case "mint":
            top = code_bounds(bits, signed=True)[1]
            return divide_scale(jnp.asarray(state, w.dtype), top)
    if np.ndim(spec.bits):
        raise ValueError("bits must be one number to encode by dorefa")
    if spec.bits == 1:
        return None
    parts = jnp.asarray(2.0**spec.bits - 1, w.dtype)
    return divide_scale(jnp.ones_like(parts), parts)


def _encode_lq_net(w, state, pair):
    if isinstance(state, LqState):
        levels = sort_levels(state, pair)
        quantized = lq_net(w, state, codes=pair)
        columns = np.asarray(quantized, np.float32).reshape(-1, w.shape[-1])
        codes = [
            np.searchsorted(one, column)
            for one, column in zip(levels.T, columns.T, strict=True)
        ]
        codes = np.stack(codes, axis=-1).reshape(w.shape)
    elif state is None:
        raise ValueError(
            "state must be LQ-Net's, an LqState as lq_fit makes it; layer.encode() of "
            "a layer has its own"
        )
    else:
        raise ValueError(
            "state must be an LqState: the levels of a membrane's basis are of no "
            f"weights, got {_checks.format_value(state)}"
        )
    return np.clip(codes, 0, len(levels) - 1).astype(np.uint8), levels


def sort_levels(state: LqState, codes: Codes) -> np.ndarray:
    """Return LQ-Net's levels in ascending order, ``[2**bits, C_out]``."""
    table = jnp.asarray(make_codes(len(state.basis), codes))
    levels = jnp.matmul(table, state.basis, precision="highest")
    return np.sort(np.asarray(levels, np.float32), axis=0)


def decode(spec: Any, codes: ArrayLike, scale: ArrayLike) -> np.ndarray:
    """Return the levels of codes."""
    codes, scale = np.asarray(codes), np.asarray(scale)
    if spec.method == "lq_net":
        columns = codes.reshape(-1, codes.shape[-1]).astype(np.intp)
        return np.take_along_axis(scale, columns, axis=0).reshape(codes.shape)
    levels = codes.astype(scale.dtype) * scale
    clip = spec.clip
    if spec.method != "uniform" or clip is None or spec.pow2:
        return levels
    clip = spec.bounds(jnp.asarray(levels))
    top = np.rint(np.asarray(clip, np.float64) / scale)
    bound = np.copysign(np.asarray(clip, scale.dtype), levels)
    return np.where(np.abs(codes) == top, bound, levels).astype(scale.dtype)
