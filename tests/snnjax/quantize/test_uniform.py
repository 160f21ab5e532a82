"""Uniform quantization against the formulas of its docstring, in numpy float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnjax.quantize import uniform

KINDS = [
    pytest.param("mid_rise", True, id="mid-rise"),
    pytest.param("mid_rise", False, id="mid-rise-unsigned"),
    pytest.param("mid_tread", True, id="mid-tread"),
    pytest.param("mid_tread", False, id="mid-tread-unsigned"),
]
every_kind = pytest.mark.parametrize(("grid", "signed"), KINDS)
compiled = jax.jit(uniform, static_argnames=("grid", "signed"))


def formula(x, bits, clip, grid, signed):
    n = 2.0**bits
    if grid == "mid_tread":
        low, high = (1 - n / 2, n / 2 - 1) if signed else (0, n - 1)
        delta = clip / high
        return delta * np.clip(np.round(x / delta), low, high)
    low, high = (-n / 2, n / 2 - 1) if signed else (0, n - 1)
    delta = 2 * clip / (n - 1) if signed else clip / (n - 0.5)
    return delta * (np.clip(np.floor(x / delta), low, high) + 0.5)


@every_kind
def test_equals_the_formula_at_every_bit_width(grid, signed, x64):
    x = np.random.default_rng(0).normal(size=(7, 50))
    for bits in range(2 if grid == "mid_tread" else 1, 17):
        for clip in (0.3, 1.0, 10.0):
            got = compiled(x, bits=bits, clip=clip, grid=grid, signed=signed)
            expected = formula(x, bits, clip, grid, signed)
            np.testing.assert_allclose(got, expected, 1e-12, 1e-15)
    assert compiled(x, bits=16, clip=1.0, grid=grid, signed=signed).dtype == x.dtype


def test_ties_go_to_even_on_mid_tread():
    x = jnp.array([0.5, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5])
    got = compiled(x, bits=4, clip=7.0, grid="mid_tread")  # delta 1
    assert got.tolist() == [0, 2, 2, 4, 0, -2, -2]
    got = compiled(x, bits=3, clip=7.0, grid="mid_tread", signed=False)
    assert got.tolist() == [0, 2, 2, 4, 0, 0, 0]


def test_ties_go_up_on_mid_rise():
    x = jnp.array([0.0, 1.0, 2.0, -1.0, -2.0, -0.0])
    got = compiled(x, bits=3, clip=3.5, grid="mid_rise")  # delta 1
    assert got.tolist() == [0.5, 1.5, 2.5, -0.5, -1.5, 0.5]


@pytest.mark.parametrize(
    ("signed", "bits", "least"),
    [(False, 2, 5 / 6), (False, 4, 29 / 30), (True, 2, 0.5), (True, 4, 13 / 14)],
)
def test_where_a_membrane_rounds_up_to_the_threshold(signed, bits, least):
    x = jnp.array([least - 1e-6, least + 1e-6])
    got = compiled(x, bits=bits, clip=1.0, grid="mid_tread", signed=signed)
    assert (got == 1).tolist() == [False, True]


@every_kind
def test_top_level_is_the_clip_to_the_last_bit(grid, signed):
    clips = np.random.default_rng(0).uniform(0.01, 20, 400).astype(np.float32)
    for bits in (2, 3, 4, 8, 16):
        for x, top in [
            (1e9, clips),
            (clips, clips),
            (-1e9, -clips if signed else None),
        ]:
            if top is not None:
                x = jnp.broadcast_to(jnp.float32(x), clips.shape)
                got = compiled(x, bits=bits, clip=clips, grid=grid, signed=signed)
                np.testing.assert_array_equal(got, top)


@every_kind
def test_a_clip_and_bits_for_each_channel(grid, signed):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6, 3)), jnp.float32)
    clip, bits = jnp.array([0.5, 1.0, 10.0]), jnp.array([2, 3, 8])
    run = functools.partial(compiled, grid=grid, signed=signed)
    got = run(x, bits=bits, clip=clip)
    gradient = jax.grad(lambda x: run(x, bits=bits, clip=clip).sum())(x)
    for c in range(3):
        alone = run(x[..., c], bits=int(bits[c]), clip=float(clip[c]))
        np.testing.assert_allclose(got[..., c], alone, 1e-6)
        inside = (jnp.abs(x[..., c]) <= clip[c]) & (signed | (x[..., c] >= 0))
        np.testing.assert_array_equal(gradient[..., c], inside)


@every_kind
def test_gradient_of_bits_and_clip_is_zero(grid, signed):
    x = jnp.linspace(-3, 3, 31).reshape(31, 1)
    clip = jnp.array([0.5, 1.0])
    both = jax.grad(
        lambda bits, clip: uniform(
            jnp.tile(x, 2), bits=bits, clip=clip, grid=grid, signed=signed
        ).sum(),
        argnums=(0, 1),
    )(3.0, clip)
    assert both[0] == 0
    assert both[1].tolist() == [0, 0]


@every_kind
@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(
    bits=st.integers(2, 16),
    clip=st.floats(2**-7, 100, width=32),
    x=st.lists(st.floats(-2, 2, width=32), min_size=8, max_size=8),
)
def test_invariants(grid, signed, bits, clip, x):
    x = np.sort(np.float32(x)) * np.float32(clip)
    run = functools.partial(compiled, bits=bits, clip=clip, grid=grid, signed=signed)
    got = np.asarray(run(x))
    np.testing.assert_array_equal(run(got), got)
    assert (np.diff(got) >= 0).all()
    assert (got <= clip).all()
    assert (got >= (-clip if signed else 0)).all()
    steps = (2**bits - 2) if grid == "mid_tread" else 2**bits - 1
    half = clip / (steps if signed else 2**bits - (0.5 if grid == "mid_rise" else 1))
    half /= 1 if signed else 2
    within = (np.abs(x) <= clip) & (signed | (x >= 0))
    assert (np.abs(got - x)[within] <= half * (1 + 1e-5) + 1e-6 * clip).all()
    if grid == "mid_tread" and signed:
        np.testing.assert_array_equal(run(-x), -got)
    if grid == "mid_rise":
        assert (got != 0).all()
