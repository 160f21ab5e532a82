"""Levels against the formulas in exact fractions, next to boundaries and on them."""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import quantize

HALF = Fraction(1, 2)


def round_half_even(q):
    low = math.floor(q)
    rest = q - low
    return low + (rest > HALF or (rest == HALF and low % 2 == 1))


def uniform_rule(bits, clip, grid, signed):
    """The step, rounding, code range and shift of the docstring."""
    if grid == "mid_tread":
        top = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        return Fraction(clip) / top, round_half_even, (-top if signed else 0, top), 0
    parts = Fraction(2**bits - 1, 2) if signed else 2**bits - HALF
    low, high = (
        (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    )
    return Fraction(clip) / parts, math.floor, (low, high), HALF


def lsq_rule(bits, step, grid, signed):
    low, high = (
        (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    )
    return Fraction(step), round_half_even, (low, high), 0


def mint_rule(bits, scale, grid, signed):
    top = 2 ** (bits - 1) - 1
    return Fraction(scale) / top, round_half_even, (-top, top), 0


compiled = {
    "uniform": jax.jit(quantize.uniform, static_argnames=("grid", "signed")),
    "lsq": jax.jit(quantize.lsq, static_argnames="signed"),
    "mint": jax.jit(quantize.mint),
}
tanh = jax.jit(jnp.tanh)


def call(method, x, bits, scale, grid, signed):
    match method:
        case "uniform":
            return compiled["uniform"](
                x, bits=bits, clip=scale, grid=grid, signed=signed
            )
        case "lsq":
            return compiled["lsq"](x, scale, bits=bits, signed=signed)
    return compiled["mint"](x, scale, bits=bits)


def draw_inputs(rng, step, low, high, shift, size, dtype):
    """Boundaries between levels, their neighbours in the dtype, and other numbers."""
    number = size // 5
    edges = rng.integers(low - 1, high + 2, number)
    edge = np.array([float((int(k) + HALF - shift) * step) for k in edges])
    edge = edge.astype(dtype)
    wide = np.float64(step * max(-low, high, 1)) * rng.normal(size=number)
    tiny = 10.0 ** rng.uniform(-45, -20, number) * rng.choice([-1, 1], number)
    x = [edge, np.nextafter(edge, dtype(np.inf)), np.nextafter(edge, dtype(-np.inf))]
    special = np.array([0.0, -0.0, 1e38, -1e38]).astype(dtype)
    return np.concatenate([*x, wide.astype(dtype), tiny.astype(dtype), special])


KINDS = [
    ("uniform", "mid_rise", True),
    ("uniform", "mid_rise", False),
    ("uniform", "mid_tread", True),
    ("uniform", "mid_tread", False),
    ("lsq", None, True),
    ("lsq", None, False),
    ("mint", None, True),
]
RULES = {"uniform": uniform_rule, "lsq": lsq_rule, "mint": mint_rule}


def count_wrong(method, grid, signed, dtype, rng, draws, size):
    wrong = 0
    for _ in range(draws):
        bits = int(rng.integers(2, 17))
        scale = np.float32(10.0 ** rng.uniform(-25, 25))
        if rng.random() < 0.5 or method == "mint":
            scale = np.float32(rng.choice([0.1, 0.3, 0.5, 0.7, 1.0]))
        rule = RULES[method](bits, float(scale), grid, signed)
        step, rounding, (low, high), shift = rule
        x = draw_inputs(rng, step, low, high, shift, size, dtype)
        seen = np.asarray(tanh(np.float32(x))) if method == "mint" else np.float32(x)
        # In float32, as a level that is rounded to bfloat16 no longer shows its code.
        got = np.float64(call(method, np.float32(x), bits, scale, grid, signed))
        codes = np.rint(got / float(step) - float(shift))
        exact = [min(max(rounding(Fraction(float(v)) / step), low), high) for v in seen]
        # Levels below the normal numbers count as 0.
        shown = np.abs(got) > 1e-37
        wrong += np.sum((codes != exact) & (shown | (shift == HALF)))
        if dtype is not np.float32:
            narrow = call(method, x, bits, scale, grid, signed)
            np.testing.assert_array_equal(narrow, got.astype(np.float32).astype(dtype))
    return wrong


bfloat16 = jnp.bfloat16.dtype.type
every = pytest.mark.parametrize(("method", "grid", "signed"), KINDS)
both = pytest.mark.parametrize("dtype", [np.float32, bfloat16])


@every
@both
def test_no_level_is_off(method, grid, signed, dtype):
    rng = np.random.default_rng(0)
    assert count_wrong(method, grid, signed, dtype, rng, draws=6, size=50) == 0


@pytest.mark.nightly
@every
@both
def test_no_level_of_many_is_off(method, grid, signed, dtype):
    rng = np.random.default_rng(1)
    assert count_wrong(method, grid, signed, dtype, rng, draws=50, size=200) == 0


@pytest.mark.parametrize("seed", range(3))
def test_no_level_of_dorefa_is_off(seed):
    rng = np.random.default_rng(seed)
    for bits in (2, 3, 5, 8, 16):
        w = np.float32(rng.normal(size=99))
        t = np.asarray(tanh(w))
        largest, top = Fraction(float(np.abs(t).max())), 2**bits - 1
        codes = [
            2 * round_half_even(top * (Fraction(float(v)) / (2 * largest) + HALF)) - top
            for v in t
        ]
        got = np.float64(jax.jit(functools.partial(quantize.dorefa, bits=bits))(w))
        np.testing.assert_array_equal(np.rint(got * top), codes)


def test_ties_of_dorefa_go_to_the_even_code():
    """With zero in the middle of the two inner levels: 1.5 of 0 to 3 rounds to 2."""
    got = quantize.dorefa(jnp.array([-1.0, 0.0, 1.0]), bits=2)
    np.testing.assert_allclose(got, [-1, 1 / 3, 1], 1e-6)


def test_a_scale_that_is_not_positive_counts_as_the_least():
    x = jnp.array([-0.5, 0.0, 0.5])
    for step in (-0.125, 0.0):
        levels, pullback = jax.vjp(
            lambda s: quantize.lsq(x, s, bits=3), jnp.float32(step)
        )
        assert (jnp.abs(levels) < 1e-30).all()
        assert (jnp.sign(levels) * jnp.sign(x) >= 0).all()
        assert jnp.isfinite(pullback(x)[0])
        assert (jnp.abs(quantize.mint(x, jnp.float32(step), bits=3)) < 1e-30).all()


def test_clips_at_the_ends_of_the_numbers():
    for clip in (1e-37, 1e-38, 3e38):
        clip = np.float32(clip)
        x = jnp.float32([-1, 0, 1]) * clip
        got = quantize.uniform(x, bits=4, clip=clip, grid="mid_tread")
        assert jnp.isfinite(got).all()
        assert got[1] == 0
        if clip > 1e-33:
            np.testing.assert_array_equal(got, x)
