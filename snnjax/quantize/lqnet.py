r"""LQ-Net: levels learned with the weights, one basis per output channel.

A :math:`b`-bit weight is :math:`\hat w = \sum_j v_j e_j` with codes
:math:`e_j \in \{-1, +1\}` and a basis :math:`v \in \mathbb{R}^b`: :math:`2^b` levels,
symmetric; zero is a level only if parts of the basis cancel. With codes
:math:`e_j \in \{0, 1\}` zero always is a level, and the basis has both signs: its first
one is that of two's complement, :math:`s\,(1, 2, \dots, -2^{b-1})` for one sign of s or
the other. Fitting alternates two steps: encode each weight to its nearest level, and
solve least squares for the basis. Training does one of each per step.

Source: Zhang et al., `LQ-Nets <https://arxiv.org/abs/1807.10029>`_, 2018, Algorithm 1,
and its published code.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays, _checks
from snnjax.quantize import checks
from snnjax.quantize.uniform import uniform

_RIDGE = 1e-4  # from the published code, relative to codes of size 1
_DECAY = 0.9  # of the moving average, from the published code
_MIN_CLIPS = 512  # fewest candidates in the search for the best uniform clip
INITS = ("uniform", "clip", "paper")
Codes = tuple[int, int]
CODES: tuple[Codes, Codes] = ((-1, 1), (0, 1))


class LqState(NamedTuple):
    """LQ-Net's state.

    Attributes:
        basis: ``[bits, C_out]``.
        count: number of updates so far, int32, for the zero-debiased average.
    """

    basis: Array
    count: Array


def check_bits(bits: object) -> None:
    """Raise ValueError unless 1 <= bits <= 8: the levels are kept in a table."""
    checks.require_bits(bits, 1, 8, "lq_net")


def check_codes(codes: Any) -> Codes:
    """Return them as a tuple; ValueError unless they are two that LQ-Net has."""
    pair = tuple(codes) if isinstance(codes, (list, tuple)) else codes
    if pair not in CODES:
        raise ValueError(
            f"codes must be (-1, 1) or (0, 1), got {_checks.format_value(codes)}"
        )
    return CODES[CODES.index(pair)]


def _as_columns(w: Array) -> Array:
    """Reshape kernels [..., C_out] to [n, C_out]."""
    if w.ndim < 2:
        raise ValueError(
            f"LQ-Net has a basis for each output channel: w must be [..., C_out], got "
            f"shape {w.shape}"
        )
    return w.reshape(-1, w.shape[-1])


def make_code_table(bits: int) -> np.ndarray:
    """List all codes of ``bits`` zeros and ones, float32 ``[2**bits, bits]``."""
    table = np.unpackbits(np.arange(2**bits, dtype=np.uint8)[:, None], axis=1)
    return table[:, -bits:].astype(np.float32)


def make_codes(bits: int, codes: Codes) -> np.ndarray:
    """List all codes, of -1 and +1 or of 0 and 1, float32 ``[2**bits, bits]``."""
    table = make_code_table(bits)
    return table if tuple(codes) == (0, 1) else 2 * table - 1


def _encode(w: Array, basis: Array, codes: Codes) -> tuple[Array, Array]:
    """Find the nearest levels [n, C] of w [n, C], with their codes [n, C, bits]."""
    table = jnp.asarray(make_codes(basis.shape[0], codes), basis.dtype)
    levels = jnp.matmul(table, basis, precision="highest")  # [2**bits, C]
    # Sort each time: learning may reorder levels or flip a basis vector's sign.
    order = jnp.argsort(levels, axis=0)
    levels = jnp.take_along_axis(levels, order, axis=0)
    edges = (levels[1:] + levels[:-1]) / 2

    def column(w, edges, levels, order):
        nearest = jnp.searchsorted(edges, w)  # strict: at an edge, the lower level
        return levels[nearest], table[order[nearest]]

    return jax.vmap(column, in_axes=1, out_axes=1)(w, edges, levels, order)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _lq_net(w, basis, codes):
    columns = _as_columns(w).astype(basis.dtype)
    levels = _encode(columns, basis, codes)[0].reshape(w.shape)
    # A comparison with NaN is false: the search would put it on the top level.
    return jnp.where(jnp.isnan(w), w, levels.astype(w.dtype))


def _lq_net_fwd(w, basis, codes):
    return _lq_net(w, basis, codes), basis


def _lq_net_bwd(codes, basis, cotangent):
    return cotangent, jnp.zeros_like(basis)


_lq_net.defvjp(_lq_net_fwd, _lq_net_bwd)


def clip_weights(w: Array, clip: ArrayLike) -> Array:
    """Clip weights, with the identity as gradient up to the clip and 0 beyond it."""
    clip = jnp.asarray(clip, w.dtype)
    # Not jnp.clip, which halves the gradient of a weight that lies on the clip.
    return jnp.where(jnp.abs(w) > clip, jnp.sign(w) * clip, w)


def lq_net(w: ArrayLike, state: LqState, *, codes: Codes = (-1, 1)) -> Array:
    """Round each weight to its nearest level, straight-through.

    Gradient: the identity by ``w``, without clipping; 0 by the basis, which `lq_update`
    learns.

    Args:
        w: weights ``[..., C_out]``.
        state: basis ``[bits, C_out]``.
        codes: ``(-1, 1)``, or ``(0, 1)``.

    Returns:
        Levels in the shape and dtype of ``w``. NaN stays NaN.

    Raises:
        ValueError: the basis has another number of channels than ``w``, or integer
            ``w``.
    """
    basis = _get_basis(state)
    w = _checks.require_floating("w", w)
    _check_state(w, basis)
    return _lq_net(w, basis, check_codes(codes))


def _get_basis(state: LqState) -> Array:
    if not isinstance(state, LqState):
        raise ValueError(
            "state must be an LqState, of a basis and a count, as lq_fit makes it, got "
            f"{_checks.format_value(state)}"
        )
    return _checks.require_floating("basis", state.basis)


def _check_state(w: Array, basis: Array) -> None:
    if w.ndim < 2 or basis.ndim != 2 or basis.shape[1] != w.shape[-1]:
        raise ValueError(
            f"w must be [..., C_out] and the basis [bits, C_out], got {w.shape} and "
            f"{basis.shape}"
        )


def lq_solve(w: ArrayLike, basis: ArrayLike, *, codes: Codes = (-1, 1)) -> Array:
    r"""Encode the weights and solve least squares for the basis, once.

    .. math:: v' = (B^T B + \epsilon I)^{-1} (B^T w + \epsilon v), \quad
        B \in \{-1, +1\}^{n \times b} \text{ or } \{0, 1\}^{n \times b},
        \epsilon = 10^{-4}

    The step never raises the error :math:`|w - B v|^2` of the codes :math:`B`. If a
    channel does not use some combination of codes, :math:`B^T B` is singular in
    float32. The function therefore solves for the step from :math:`v`, by Cholesky of a
    better-conditioned matrix and refinement. Directions that the weights do not
    determine keep their value, even at 8 bits on 27 weights.

    Args:
        w: weights ``[..., C_out]``.
        basis: ``[bits, C_out]``.
        codes: as of `lq_net`.

    Returns:
        The new basis ``[bits, C_out]``.

    Raises:
        ValueError: shapes that do not match.
    """
    w, v = _checks.require_floating("w", w), _checks.require_floating("basis", basis)
    _check_state(w, v)
    columns = _as_columns(w).astype(v.dtype)
    nearest, chosen = _encode(columns, v, check_codes(codes))
    gram = jnp.einsum("nci,ncj->cij", chosen, chosen, precision="highest")
    right = jnp.einsum("nci,nc->ci", chosen, columns - nearest, precision="highest")
    eye = jnp.eye(v.shape[0], dtype=v.dtype)[None]
    # The Gram matrix holds exact counts; this jitter sets a condition number of 1e5.
    jitter = max(_RIDGE, 1e-5 * columns.shape[0])
    factor = jax.scipy.linalg.cho_factor(gram + jitter * eye, lower=True)
    step = jax.scipy.linalg.cho_solve(factor, right[..., None])
    for _ in range(3):
        missing = right[..., None] - jnp.matmul(
            gram + _RIDGE * eye, step, precision="highest"
        )
        step = step + jax.scipy.linalg.cho_solve(factor, missing)
    return v + step[..., 0].T


def lq_update(w: ArrayLike, state: LqState, *, codes: Codes = (-1, 1)) -> LqState:
    r"""Update the basis in training: a zero-debiased moving average of `lq_solve`.

    .. math:: s_t = 0.9 s_{t-1} + 0.1\, v'_t, \quad s_0 = 0, \quad
        v_t = s_t / (1 - 0.9^t)

    The first update replaces the basis, as in the published code, whose TensorFlow
    averages debias by default. A step quantizes with the basis before its update.

    Args:
        w: weights ``[..., C_out]``.
        state: the basis and the number of its updates.
        codes: as of `lq_net`.

    Returns:
        The next state.

    Raises:
        ValueError: as `lq_solve`, or no state.
    """
    new = lq_solve(w, _get_basis(state), codes=codes)
    count = state.count + 1
    decay = jnp.asarray(_DECAY, new.dtype)
    left = decay ** count.astype(new.dtype)
    share = (1 - decay) / (1 - left)  # of v' in v_t: exactly 1 at first
    return LqState((1 - share) * state.basis + share * new, count)


def lq_fit(
    w: ArrayLike,
    *,
    bits: int,
    clip: ArrayLike | None = None,
    init: str = "uniform",
    iterations: int = 100,
    codes: Codes = (-1, 1),
) -> LqState:
    r"""Fit a basis to frozen weights by repeated encoding and solving.

    The squared error of no channel rises from one iteration to the next. The first
    basis is

    - ``"uniform"``: :math:`v_j = c\, 2^j / (2^b - 1)`, a mid-rise uniform grid, for
      each channel with the bound :math:`c` of least squared error,
    - ``"clip"``: the same with :math:`c =` ``clip``,
    - ``"paper"``: the published :math:`v_j = 0.6745 \sqrt{2/n}\, 2^j / 2^{b-1}`, for
      :math:`n = k \cdot k \cdot C_{out}` (:math:`C_{out}` for a linear layer).

    From a grid wider than the weights levels stay unused: no step moves those.
    With codes 0 and 1 the first basis is two's complement from :math:`-c` up, and c
    that of least squared error; each channel keeps the better of its two signs.

    Args:
        w: weights ``[..., C_out]``.
        bits: number of basis vectors, 1 to 8.
        clip: bound of the weights before they are encoded, one number or one per
            channel; None for no bound.
        init: the first basis.
        iterations: encode-and-solve steps.
        codes: as of `lq_net`; ``(0, 1)`` needs ``init="uniform"``.

    Returns:
        The state, its count 0.

    Raises:
        ValueError: bits, clip, init or iterations out of range; ``w`` not floating
            point, without output channels or empty, and outside ``jit`` NaN in it.

    >>> w = jnp.array([[-0.3], [-0.1], [0.1], [0.3]])
    >>> bool(jnp.allclose(lq_net(w, lq_fit(w, bits=2)), w))
    True
    """
    if isinstance(bits, jax.core.Tracer) or np.ndim(bits):
        got = _checks.format_value(bits)
        raise ValueError(f"bits must be one number that is not traced, got {got}")
    check_bits(np.asarray(bits) if isinstance(bits, Array) else bits)
    _checks.require_one_of("init", init, INITS)
    if init == "clip" and clip is None:
        raise ValueError('init="clip" needs clip')
    if clip is not None:
        _checks.require_positive("clip", clip)
    _checks.require_whole("iterations", iterations, 0)
    codes = check_codes(codes)
    if codes == (0, 1) and init != "uniform":
        raise ValueError(
            f'init must be "uniform" for codes (0, 1), got {init!r}: the others are '
            "bases of codes -1 and 1"
        )
    w = _checks.require_floating("w", w)
    _as_columns(w)
    checks.require_nonempty("w", w)
    if clip is not None:
        _checks.require_broadcast("clip", clip, "w's channels", w.shape[-1:])
    # Called once per training, so waiting for the device is cheap.
    if not _checks.all_satisfy(w, jnp.isfinite):
        raise ValueError(f"w has NaN or infinite entries, of shape {w.shape}")
    w = _arrays.widen(w)
    return _fit(w, clip, int(bits), init, iterations, codes)


@partial(jax.jit, static_argnames=("bits", "init", "iterations", "codes"))
def _fit(w, clip, bits, init, iterations, codes) -> LqState:
    if clip is not None:
        clip = _arrays.match_rank(jnp.asarray(clip, w.dtype), w.ndim)
        w = jnp.clip(w, -clip, clip)
    ladder = 2.0 ** jnp.arange(bits, dtype=w.dtype)
    columns = _as_columns(w)
    if codes == (0, 1):
        return LqState(
            _fit_signed(columns, ladder, iterations), jnp.zeros((), jnp.int32)
        )
    if init == "paper":
        n = columns.shape[0] // w.shape[-2] * w.shape[-1]
        top = 0.6745 * (2 / n) ** 0.5 * (2**bits - 1) / 2 ** (bits - 1)
        top = jnp.full(columns.shape[1], top, w.dtype)
    elif init == "clip":
        top = jnp.broadcast_to(jnp.ravel(jnp.asarray(clip)), columns.shape[1:])
    else:
        top = _find_best_clip(columns, bits)
    basis = ladder[:, None] * top[None] / (2**bits - 1)
    basis = jax.lax.fori_loop(0, iterations, lambda _, v: lq_solve(w, v), basis)
    return LqState(basis, jnp.zeros((), jnp.int32))


def _fit_signed(columns: Array, ladder: Array, iterations: int) -> Array:
    """Fit a basis for codes 0 and 1, from two's complement of either sign."""
    bits, codes = len(ladder), (0, 1)
    ladder = ladder.at[-1].multiply(-1)
    lowest = jnp.abs(ladder[-1])

    def fit(sign):
        def quantize(x, clip):
            basis = sign * ladder[:, None] * clip[None] / lowest
            return _encode(x, basis, codes)[0]

        top = _find_best_clip(columns, bits, quantize)
        basis = sign * ladder[:, None] * top[None] / lowest
        step = lambda _, v: lq_solve(columns, v, codes=codes)  # noqa: E731
        basis = jax.lax.fori_loop(0, iterations, step, basis)
        error = columns - _encode(columns, basis, codes)[0]
        return basis, jnp.sum(jnp.square(error), axis=0)

    bases, errors = jax.lax.map(fit, jnp.asarray([1, -1], columns.dtype))
    return jnp.where(errors[1] < errors[0], bases[1], bases[0])


def _find_best_clip(columns: Array, bits: int, quantize: Any = None) -> Array:
    """Find the clip of least squared error per channel of [n, C], [C].

    Of a mid-rise grid, or of ``quantize(columns, clip)``.
    """
    if quantize is None:
        quantize = lambda x, clip: uniform(x, bits=bits, clip=clip)  # noqa: E731
    largest = jnp.max(jnp.abs(columns), axis=0, keepdims=True)
    largest = jnp.where(largest > 0, largest, 1)
    # Scale by a power of 2, which is exact, so that squares do not under- or overflow.
    unit = largest / (2 * jnp.frexp(largest)[0])
    columns = columns / unit

    def error(clip):
        return jnp.sum(jnp.square(columns - quantize(columns, clip)), 0)

    # With few weights the error is a jagged function of the clip, and at many bits its
    # minimum may lie beyond the largest weight.
    candidates = max(_MIN_CLIPS, 2**18 // columns.shape[0])
    clips = jnp.arange(1, candidates + 1, dtype=columns.dtype)[:, None] / candidates
    clips = 1.25 * clips * (largest / unit)
    best = jnp.argmin(jax.lax.map(error, clips), axis=0)
    return jnp.take_along_axis(clips, best[None], axis=0)[0] * unit[0]
