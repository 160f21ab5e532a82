"""Every quantizer, a row each, against its formula and its gradient rule in float64.

A new method is one function and one row.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import quantize
from snnjax.quantize import LqState
from snnjax.quantize.uniform import round_clip_to_pow2


class Row(NamedTuple):
    """A quantizer as function(x, bits=, clip=), and what it must be.

    ``forward(x, bits, clip)`` and ``pullback(cotangent, x, bits, clip)`` are numpy.
    """

    function: Callable
    forward: Callable
    pullback: Callable
    bits: tuple
    has_zero: bool
    traced_bits: bool = True
    learned: bool = False  # the clip has a gradient
    elementwise: bool = True  # one value does not act on another's level


def on_levels(levels):
    """The nearest of clip * levels(bits)."""

    def forward(x, bits, clip):
        values = clip * levels(bits)
        return values[np.searchsorted((values[1:] + values[:-1]) / 2, x)]

    return forward


def inside(low, high):
    """1 from low to high times the clip, its edges included, and 0 beyond."""

    def pullback(cotangent, x, bits, clip):
        bottom = low(bits) if callable(low) else low
        return cotangent * ((x >= bottom * clip) & (x <= high * clip))

    return pullback


def uniform(grid, signed):
    return functools.partial(quantize.uniform, grid=grid, signed=signed)


def lq_net(x, *, bits, clip):
    dtype = np.promote_types(x.dtype, np.float32)
    basis = jnp.asarray(2.0 ** np.arange(bits) / (2**bits - 1), dtype) * clip
    return quantize.lq_net(x[..., None], LqState(basis[:, None], jnp.int32(0)))[..., 0]


def lsq(signed):
    def function(x, *, bits, clip):
        fixed = jax.lax.stop_gradient(jnp.asarray(bits, float))
        top = 2.0 ** (fixed - int(signed)) - 1
        return quantize.lsq(x, clip / top, bits=bits, signed=signed)

    return function


def mint_forward(x, bits, clip):
    top = 2 ** (bits - 1) - 1
    return clip / top * np.round(top * np.clip(np.tanh(x) / clip, -1, 1))


def mint_pullback(cotangent, x, bits, clip):
    t = np.tanh(x)
    return cotangent * (1 - t**2) * (np.abs(t) <= clip)


def lq_net_zero_one(x, *, bits, clip):
    """Two's complement: the ends are -clip and the clip less a step."""
    dtype = np.promote_types(x.dtype, np.float32)
    basis = (
        2.0 ** np.arange(bits)
        / 2 ** (bits - 1)
        * np.where(np.arange(bits) == bits - 1, -1, 1)
    )
    basis = jnp.asarray(basis, dtype)[:, None] * clip
    state = LqState(basis, jnp.int32(0))
    return quantize.lq_net(x[..., None], state, codes=(0, 1))[..., 0]


def binary_forward(x, bits, clip):
    return np.where(x >= 0, 1, -1) * np.abs(x).mean()


def ternary_forward(x, bits, clip):
    size = np.abs(x)
    keeps = size > 0.7 * size.mean()
    return np.sign(x) * keeps * size[keeps].mean()


def powers(bits):
    sizes = 2.0 ** -np.arange(2 ** (bits - 1) - 1)
    return np.sort(np.concatenate([-sizes, [0], sizes]))


def dorefa_forward(x, bits, clip):
    if bits == 1:
        return np.where(x >= 0, 1, -1) * np.abs(x).mean()
    t, n = np.tanh(x), 2**bits - 1
    return 2 * np.round(n * (t / np.abs(t).max() / 2 + 0.5)) / n - 1


def dorefa_pullback(cotangent, x, bits, clip):
    if bits == 1:
        return cotangent
    t = np.tanh(x)
    most = np.argmax(np.abs(t))
    by_t = cotangent / np.abs(t[most])
    by_t[most] -= np.sum(cotangent * t) / t[most] ** 2 * np.sign(t[most])
    return by_t * (1 - t**2)


def pow2_clip(bits, clip):
    """QuantSpec's bound for ``pow2=True``."""
    bits, clip = (jnp.asarray(a, float) for a in (bits, clip))
    return round_clip_to_pow2(clip, bits, signed=True, grid="mid_tread")


def pow2_numpy(bits, clip):
    top = 2 ** (bits - 1) - 1
    return top * 2.0 ** np.ceil(np.log2(clip / top))


def pow2_forward(x, bits, clip):
    top = 2 ** (bits - 1) - 1
    step = pow2_numpy(bits, clip) / top
    return step * np.clip(np.round(x / step), -top, top)


MID_RISE = (1, 2, 3, 8, 16)
MID_TREAD = (2, 3, 4, 8, 16)
ROWS = {
    "mid-rise": Row(
        uniform("mid_rise", True),
        on_levels(lambda b: (2 * np.arange(2**b) + 1 - 2**b) / (2**b - 1)),
        inside(-1, 1),
        MID_RISE,
        has_zero=False,
    ),
    "mid-rise unsigned": Row(
        uniform("mid_rise", False),
        on_levels(lambda b: (2 * np.arange(2**b) + 1) / (2 ** (b + 1) - 1)),
        inside(0, 1),
        MID_RISE,
        has_zero=False,
    ),
    "mid-tread": Row(
        uniform("mid_tread", True),
        on_levels(
            lambda b: np.arange(1 - 2 ** (b - 1), 2 ** (b - 1)) / (2 ** (b - 1) - 1)
        ),
        inside(-1, 1),
        MID_TREAD,
        has_zero=True,
    ),
    "mid-tread unsigned": Row(
        uniform("mid_tread", False),
        on_levels(lambda b: np.arange(2**b) / (2**b - 1)),
        inside(0, 1),
        MID_TREAD,
        has_zero=True,
    ),
    "pow2": Row(
        lambda x, *, bits, clip: quantize.uniform(
            x, bits=bits, clip=pow2_clip(bits, clip), grid="mid_tread"
        ),
        pow2_forward,
        lambda d, x, bits, clip: d * (np.abs(x) <= pow2_numpy(bits, clip)),
        MID_TREAD,
        has_zero=True,
    ),
    "lsq": Row(
        lsq(True),
        on_levels(
            lambda b: np.arange(-(2 ** (b - 1)), 2 ** (b - 1)) / (2 ** (b - 1) - 1)
        ),
        inside(lambda b: -(2 ** (b - 1)) / (2 ** (b - 1) - 1), 1),
        MID_TREAD,
        has_zero=True,
        learned=True,
    ),
    "lsq unsigned": Row(
        lsq(False),
        on_levels(lambda b: np.arange(2**b) / (2**b - 1)),
        inside(0, 1),
        MID_RISE,
        has_zero=True,
        learned=True,
    ),
    "mint": Row(
        lambda x, *, bits, clip: quantize.mint(x, clip, bits=bits),
        mint_forward,
        mint_pullback,
        MID_TREAD,
        has_zero=True,
        learned=True,
    ),
    "dorefa": Row(
        lambda x, *, bits, clip: quantize.dorefa(x, bits=bits),
        dorefa_forward,
        dorefa_pullback,
        MID_RISE,
        has_zero=False,
        elementwise=False,
    ),
    "binary": Row(
        lambda x, *, bits, clip: quantize.binary(x),
        binary_forward,
        lambda d, x, bits, clip: d,
        (1,),
        has_zero=False,
        traced_bits=False,
        elementwise=False,
    ),
    "ternary": Row(
        lambda x, *, bits, clip: quantize.ternary(x),
        ternary_forward,
        lambda d, x, bits, clip: d,
        (2,),
        has_zero=True,
        traced_bits=False,
        elementwise=False,
    ),
    "power_of_two": Row(
        quantize.power_of_two,
        on_levels(powers),
        inside(-1, 1),
        (2, 3, 4, 5),
        has_zero=True,
    ),
    "lq_net {0, 1}": Row(
        lq_net_zero_one,
        on_levels(lambda b: np.arange(-(2 ** (b - 1)), 2 ** (b - 1)) / 2 ** (b - 1)),
        inside(-np.inf, np.inf),
        (1, 2, 3, 8),
        has_zero=True,
        traced_bits=False,
    ),
    "lq_net": Row(
        lq_net,
        on_levels(lambda b: np.linspace(-1, 1, 2**b)),
        inside(-np.inf, np.inf),
        (1, 2, 3, 8),
        has_zero=False,
        traced_bits=False,
    ),
}


@pytest.fixture(params=ROWS)
def row(request):
    return ROWS[request.param]


@functools.cache
def compiled(row):
    static = () if row.traced_bits else ("bits",)
    return jax.jit(row.function, static_argnames=static)


@functools.partial(jax.jit, static_argnums=(0, 3))
def pulled_back(row, cotangent, x, bits, clip):
    """The gradient, as one program: eagerly each of its operations would be one."""
    _, pullback = jax.vjp(lambda x: row.function(x, bits=bits, clip=clip), x)
    return pullback(cotangent)[0]


def inputs(row, clip, n=500):
    """Random numbers within and beyond the clip, its edges, zero, infinity."""
    x = np.random.default_rng(0).uniform(-2.2, 2.2, n)
    far = [30, -30, np.inf, -np.inf] if row.elementwise else []
    return clip * np.concatenate([x, [1, -1, *far]])


def test_every_method_has_a_row():
    named = {name.split(" ")[0] for name in ROWS}
    methods = set(quantize.spec.METHODS) - {"none", "uniform"}
    assert named == methods | {"mid-rise", "mid-tread", "pow2"}


@pytest.mark.parametrize("clip", [1.0, 10.0, 0.23])
def test_forward_is_the_formula(row, x64, clip):
    x = inputs(row, clip)
    for bits in row.bits:
        got = compiled(row)(jnp.asarray(x), bits=bits, clip=clip)
        expected = row.forward(x, bits, clip)
        np.testing.assert_allclose(got, expected, 1e-12, 1e-15, err_msg=f"{bits} bits")


@pytest.mark.parametrize("clip", [10.0, 0.23])
def test_levels(row, clip):
    x = clip * np.linspace(-2.2, 2.2, 2**19 + 1, dtype=np.float32)
    for bits in row.bits:
        got = np.unique(compiled(row)(x, bits=bits, clip=clip))
        assert len(got) <= 2**bits
        expected = np.unique(row.forward(x.astype(float), bits, clip).round(12))
        if bits < 16:  # there a level is as narrow as float32's own steps
            assert len(got) == len(expected)
            np.testing.assert_allclose(got, expected, 1e-5, 1e-9)
            assert (0 in got) == row.has_zero


def test_monotone_and_idempotent(row):
    x = np.sort(inputs(row, 3.0).astype(np.float32))
    for bits in row.bits:
        got = np.asarray(compiled(row)(x, bits=bits, clip=3.0))
        assert (np.diff(got) >= 0).all()
        if row.function not in (ROWS["mint"].function, ROWS["dorefa"].function):
            again = compiled(row)(got, bits=bits, clip=3.0)
            np.testing.assert_array_equal(again, got)


@pytest.mark.parametrize("clip", [1.0, 0.7])
def test_gradient_is_the_written_rule(row, x64, clip):
    x = inputs(row, clip, n=60)
    cotangent = np.random.default_rng(1).normal(size=x.shape)
    for bits in row.bits[:3]:
        got = pulled_back(row, cotangent, x, bits, clip)
        expected = row.pullback(cotangent.copy(), x, bits, clip)
        sure = (not row.learned) | (np.abs(np.abs(x) - clip) > 1e-12)  # see below
        np.testing.assert_allclose(got[sure], expected[sure], 1e-9, 1e-12)


@pytest.mark.parametrize("clip", [1.0, 0.7])
def test_gradient_at_the_edge_and_beyond(row, clip):
    """To the last bit of float32; finite at zero and at infinity."""
    edge, up = np.float32(clip), np.float32(np.inf)
    right = [np.nextafter(edge, -up), edge, np.nextafter(edge, up), edge * 9, up]
    right = right if row.elementwise else right[:-1]
    x = np.float32([0.0, 1e-30, *right, -1e-30, *(-r for r in right)])
    cotangent = np.arange(1, x.size + 1, dtype=np.float32)
    for bits in row.bits[:3]:
        got = pulled_back(row, cotangent, x, bits, clip)
        assert jnp.isfinite(got).all()
        if row.learned:  # its bound is a product that may round past the clip
            sure = np.abs(np.abs(x) - edge) > 1e-6
            got, cotangent_, x_ = got[sure], cotangent[sure], x[sure]
        else:
            cotangent_, x_ = cotangent, x
        if row.pullback not in (mint_pullback, dorefa_pullback):
            low, high = x_.astype(float), float(edge)
            np.testing.assert_array_equal(
                got, row.pullback(cotangent_, low, bits, high)
            )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_dtype_is_kept(row, dtype):
    x = jnp.linspace(-1.3, 1.3, 41).astype(dtype)
    got, pullback = jax.vjp(lambda x: row.function(x, bits=4, clip=1.0), x)
    assert got.dtype == pullback(got)[0].dtype == dtype
    expected = row.function(x.astype(jnp.float32), bits=4, clip=1.0).astype(dtype)
    np.testing.assert_array_equal(got, expected)


def test_jit_equals_eager_and_nothing_recompiles(row):
    x = inputs(row, 1.0).astype(np.float32)
    bits = row.bits[:2][-1]
    function = jax.jit(lambda x, clip: row.function(x, bits=bits, clip=clip))
    for clip in (1.0, 10.0, 0.3):
        eager = row.function(x, bits=bits, clip=clip)
        np.testing.assert_allclose(function(x, clip), eager, 3e-7)
    assert function._cache_size() == 1
    if row.traced_bits:
        function = jax.jit(lambda x, bits, clip: row.function(x, bits=bits, clip=clip))
        singly = [function(x, bits, 1.0) for bits in row.bits]
        assert function._cache_size() == 1
        mapped = jax.vmap(function, (None, 0, None))(x, jnp.array(row.bits), 1.0)
        np.testing.assert_allclose(mapped, np.stack(singly), 3e-7)
        gradient = jax.grad(lambda b, c: function(x, b, c).sum(), argnums=(0, 1))
        by_bits, by_clip = gradient(float(bits), 1.0)
        assert by_bits == 0
        assert (by_clip == 0) != row.learned


def test_nan_stays_nan(row):
    got = row.function(jnp.array([np.nan, 0.1]), bits=2, clip=1.0)
    np.testing.assert_array_equal(jnp.isnan(got), [True, not row.elementwise])


def test_jaxpr_shows_a_custom_vjp(row):
    jaxpr = jax.make_jaxpr(lambda x: row.function(x, bits=2, clip=1.0))(jnp.ones(3))
    assert "custom_vjp_call" in str(jaxpr)
