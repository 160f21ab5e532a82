"""Every quantizer, a row each, against its levels in float64; and QuantSpec."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import quantize
from snnjax.quantize import LqState, QuantSpec


def uniform(grid, signed):
    return functools.partial(quantize.uniform, grid=grid, signed=signed)


def lq_net(x, *, bits, clip):
    basis = clip * 2.0 ** jnp.arange(bits) / (2**bits - 1)
    return quantize.lq_net(x[..., None], LqState(basis[:, None], jnp.int32(0)))[..., 0]


class Row(NamedTuple):
    """A quantizer; its levels over the clip; where its gradient is 1, likewise."""

    function: object
    levels: object
    inside: tuple
    has_zero: bool
    bits: tuple
    traced_bits: bool = True


ROWS = {
    "mid-rise": Row(
        uniform("mid_rise", True),
        lambda b: (2 * np.arange(2**b) + 1 - 2**b) / (2**b - 1),
        (-1, 1),
        False,
        (1, 2, 3, 8, 16),
    ),
    "mid-rise unsigned": Row(
        uniform("mid_rise", False),
        lambda b: (2 * np.arange(2**b) + 1) / (2 ** (b + 1) - 1),
        (0, 1),
        False,
        (1, 2, 3, 8, 16),
    ),
    "mid-tread": Row(
        uniform("mid_tread", True),
        lambda b: np.arange(1 - 2 ** (b - 1), 2 ** (b - 1)) / (2 ** (b - 1) - 1),
        (-1, 1),
        True,
        (2, 3, 4, 8, 16),
    ),
    "mid-tread unsigned": Row(
        uniform("mid_tread", False),
        lambda b: np.arange(2**b) / (2**b - 1),
        (0, 1),
        True,
        (2, 3, 4, 8, 16),
    ),
    "lq_net": Row(
        lq_net,
        lambda b: np.linspace(-1, 1, 2**b),
        (-np.inf, np.inf),
        False,
        (1, 2, 3, 8),
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


def inputs(clip, n=500):
    """Random numbers within and beyond the clip, its edges, zero, infinity."""
    x = np.random.default_rng(0).uniform(-1.5, 1.5, n)
    return clip * np.concatenate([x, [1, -1, 30, -30, np.inf, -np.inf]])


@pytest.mark.parametrize("clip", [1.0, 10.0, 0.23])
def test_forward_is_the_nearest_level(row, x64, clip):
    for bits in row.bits:
        levels, x = clip * row.levels(bits), inputs(clip)
        expected = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, x)]
        got = compiled(row)(jnp.asarray(x), bits=bits, clip=clip)
        np.testing.assert_allclose(got, expected, 1e-12, 1e-15, err_msg=f"{bits} bits")


@pytest.mark.parametrize("clip", [10.0, 0.23])
def test_levels(row, clip):
    for bits in row.bits:
        x = clip * np.linspace(-1.1, 1.1, 2**19 + 1, dtype=np.float32)
        got = np.unique(compiled(row)(x, bits=bits, clip=clip))
        assert len(got) == len(row.levels(bits)) <= 2**bits
        np.testing.assert_allclose(got, clip * row.levels(bits), 1e-5, 1e-9)
        assert (0 in got) == row.has_zero
        if row.function is not lq_net:
            assert got[-1] == np.float32(clip)  # to the last bit
            assert got[0] == (-got[-1] if row.inside[0] else got[0])


def test_idempotent_monotone_and_within_half_a_step(row):
    x = np.sort(inputs(3.0).astype(np.float32))
    for bits in row.bits:
        got = np.asarray(compiled(row)(x, bits=bits, clip=3.0))
        np.testing.assert_array_equal(compiled(row)(got, bits=bits, clip=3.0), got)
        assert (np.diff(got) >= 0).all()
        levels = 3.0 * row.levels(bits)
        within = (x >= min(levels[0], 0)) & (x <= 3)
        half = (levels[1] - levels[0]) / 2 + 1e-6
        assert np.abs(x - got)[within].max() <= half
        assert np.abs(x - got)[within].max() > 0.5 * half or bits > 8


@pytest.mark.parametrize("clip", [1.0, 0.7])
def test_gradient_is_one_inside_and_at_the_edge(row, clip):
    edge = np.float32(clip)
    up, down = np.float32(np.inf), np.float32(-np.inf)
    right = [np.nextafter(edge, down), edge, np.nextafter(edge, up), edge * 9, up]
    x = np.float32([0.0, 1e-30, *right, -1e-30, *(-r for r in right)])
    low, high = (side * float(edge) for side in row.inside)
    cotangent = np.arange(1, x.size + 1, dtype=np.float32)
    for bits in row.bits[:3]:
        _, pullback = jax.vjp(lambda x: row.function(x, bits=bits, clip=clip), x)  # noqa: B023
        inside = (x >= low) & (x <= high)
        np.testing.assert_array_equal(*pullback(cotangent), cotangent * inside)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_dtype_is_kept(row, dtype):
    x = jnp.linspace(-1.3, 1.3, 41).astype(dtype)
    got, pullback = jax.vjp(lambda x: row.function(x, bits=4, clip=1.0), x)
    assert got.dtype == pullback(got)[0].dtype == dtype
    expected = row.function(x.astype(jnp.float32), bits=4, clip=1.0).astype(dtype)
    np.testing.assert_array_equal(got, expected)


def test_jit_equals_eager_and_nothing_recompiles(row):
    x = inputs(1.0).astype(np.float32)
    function = jax.jit(lambda x, clip: row.function(x, bits=2, clip=clip))
    for clip in (1.0, 10.0, 0.3):
        eager = row.function(x, bits=2, clip=clip)
        np.testing.assert_allclose(function(x, clip), eager, 3e-7)
    assert function._cache_size() == 1
    if row.traced_bits:
        function = jax.jit(lambda x, bits, clip: row.function(x, bits=bits, clip=clip))
        singly = [function(x, bits, 1.0) for bits in row.bits]
        assert function._cache_size() == 1
        mapped = jax.vmap(function, (None, 0, None))(x, jnp.array(row.bits), 1.0)
        np.testing.assert_array_equal(mapped, np.stack(singly))
        gradient = jax.grad(lambda b, c: function(x, b, c).sum(), argnums=(0, 1))
        assert gradient(3.0, 1.0) == (0, 0)


def test_nan_stays_nan(row):
    got = row.function(jnp.array([np.nan, 0.1]), bits=2, clip=1.0)
    np.testing.assert_array_equal(jnp.isnan(got), [True, False])


def test_integers_are_refused(row):
    with pytest.raises(ValueError, match="must be floating point, got int32"):
        row.function(jnp.arange(3), bits=2, clip=1.0)


def test_jaxpr_shows_a_custom_vjp(row):
    jaxpr = jax.make_jaxpr(lambda x: row.function(x, bits=2, clip=1.0))(jnp.ones(3))
    assert "custom_vjp_call" in str(jaxpr)


def test_spec_is_the_function_with_bits_and_clip_as_leaves():
    x = jnp.linspace(-2.1, 2.1, 50)
    specs = [QuantSpec(bits=b, clip=c, grid="mid_tread") for b, c in [(2, 1), (8, 2.0)]]
    function = jax.jit(lambda spec, x: spec(x))
    for spec in specs:
        assert {leaf.dtype for leaf in jax.tree.leaves(spec)} == {np.dtype("float32")}
        expected = quantize.uniform(x, bits=spec.bits, clip=spec.clip, grid=spec.grid)
        np.testing.assert_array_equal(function(spec, x), expected)
    assert function._cache_size() == 1
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *specs)
    mapped = jax.vmap(function, in_axes=(0, None))(stacked, x)
    np.testing.assert_array_equal(mapped, np.stack([spec(x) for spec in specs]))
    unsigned = QuantSpec(bits=2, signed=False)  # mid-rise, clip 1
    np.testing.assert_allclose(unsigned(jnp.array([-5.0, 5])), [1 / 7, 1], 1e-6)


def test_spec_none_is_the_identity():
    x = jnp.linspace(-2, 2, 5)
    assert QuantSpec(method="none")(x) is x
    assert jax.tree.leaves(QuantSpec(method="none")) == []


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (dict(method="lsqq", bits=2), "method must be one of .*got 'lsqq'"),
        (dict(), "'uniform' needs bits"),
        (dict(method="lq_net", clip=1.0), "'lq_net' needs bits"),
        (dict(bits=0), r"whole number in 1\.\.16.*got 0"),
        (dict(bits=17), r"1\.\.16.*got 17"),
        (dict(bits=2.5), r"1\.\.16.*got 2\.5"),
        (dict(bits=np.nan), r"1\.\.16.*got nan"),
        (dict(bits=1, grid="mid_tread"), r"2\.\.16 on the mid_tread grid, got 1"),
        (dict(bits=2, grid="mid"), "grid must be one of .*got 'mid'"),
        (dict(bits=2, clip=0), "clip must be positive and finite, got 0"),
        (dict(bits=2, clip=-1.0), "clip must be positive and finite, got -1"),
        (dict(bits=2, clip=np.inf), "clip must be positive and finite, got inf"),
        (dict(bits=2, clip=np.float32("nan")), "clip must be positive and finite"),
        (dict(method="lq_net", bits=9), "from 1 to 8, got 9"),
        (dict(method="lq_net", bits=2, clip=-1), "clip must be positive"),
        (dict(method="lq_net", bits=2, signed=False), "signed must be True"),
    ],
)
def test_bad_specs_are_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        QuantSpec(**fields)


def test_a_method_with_state_is_not_called():
    with pytest.raises(ValueError, match="'lq_net' has a state"):
        QuantSpec(method="lq_net", bits=2)(jnp.ones(3))
