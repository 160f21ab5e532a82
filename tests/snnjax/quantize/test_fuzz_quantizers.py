"""Quantizers on arbitrary numbers, beside their equations in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fuzzed import NORMAL, TYPES, arrays, flushed
from hypothesis import given
from hypothesis import strategies as st

from snnjax import quantize

clips = st.floats(-6, 6).map(lambda e: np.float32(10.0**e))
KINDS = [(g, s) for g in ("mid_rise", "mid_tread") for s in (True, False)]
every_kind = pytest.mark.parametrize(("grid", "signed"), KINDS)
uniform = jax.jit(quantize.uniform, static_argnames=("grid", "signed"))


@functools.partial(jax.jit, static_argnames=("grid", "signed"))
def uniform_gradient(x, bits, clip, grid, signed):
    def summed(x, bits, clip):
        return uniform(x, bits=bits, clip=clip, grid=grid, signed=signed).sum()

    return jax.grad(summed, argnums=(0, 1, 2))(x, bits, clip)


def grid_of(bits, clip, grid, signed):
    """Step, lowest and highest code, and what a code is moved by."""
    n, clip = 2.0**bits, float(clip)
    if grid == "mid_tread":
        low, high = (1 - n / 2, n / 2 - 1) if signed else (0, n - 1)
        return clip / high, low, high, 0.0
    low, high = (-n / 2, n / 2 - 1) if signed else (0, n - 1)
    return clip / (high + 0.5), low, high, 0.5


@every_kind
@given(x=arrays(), bits=st.integers(2, 16), clip=clips)
def test_uniform(grid, signed, x, bits, clip):
    run = functools.partial(uniform, bits=float(bits), clip=clip)
    run = functools.partial(run, grid=grid, signed=signed)
    got = np.asarray(run(x))
    wide, x64 = np.float64(got), np.float64(x)
    step, low, high, shift = grid_of(bits, clip, grid, signed)
    # On a level; the nearest one, up to the rounding of x / step.
    codes = np.round(wide / step - shift)
    np.testing.assert_allclose(wide, (codes + shift) * step, 1e-6)
    assert ((codes >= low) & (codes <= high)).all()
    bounded = np.clip(x64, (low + shift) * step, (high + shift) * step)
    assert (
        np.abs(wide - bounded) <= step / 2 * (1 + 1e-6) + 4e-7 * np.abs(bounded)
    ).all()
    y = x64 / step
    clear = np.abs(y - np.round(y - (shift == 0) / 2) - (shift == 0) / 2) > (
        1e-5 + 1e-6 * np.abs(y)
    )
    rounded = np.floor(y) if shift else np.round(y)
    np.testing.assert_array_equal(codes[clear], np.clip(rounded, low, high)[clear])
    np.testing.assert_array_equal(run(got), got)
    order = np.argsort(x, kind="stable")
    assert (np.diff(got[order]) >= 0).all()
    if signed:
        mirrored = np.asarray(run(-x))
        # Mid-rise has an edge at each multiple of the step, its own mirror image.
        np.testing.assert_array_equal(mirrored[clear], -got[clear])
    by_x, *others = uniform_gradient(x, float(bits), clip, grid, signed)
    inside = (np.abs(x) <= clip) & (signed | (flushed(x) >= 0))
    np.testing.assert_array_equal(by_x, inside)
    assert others == [0, 0]


@given(
    x=arrays(6e4), bits=st.integers(2, 8), kind=st.sampled_from(["float16", "bfloat16"])
)
def test_half_precision_is_rounded_once(x, bits, kind):
    x = x.astype(TYPES[kind])
    got = uniform(
        x, bits=float(bits), clip=np.float32(3), grid="mid_tread", signed=True
    )
    wide = uniform(
        x.astype(np.float32),
        bits=float(bits),
        clip=np.float32(3),
        grid="mid_tread",
        signed=True,
    )
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(got, np.asarray(wide).astype(x.dtype))
    assert len(np.unique(np.float32(got))) <= 2**bits - 1


@functools.partial(jax.jit, static_argnames="signed")
def lsq_all(x, step, bits, signed):
    def summed(x, step):
        levels = quantize.lsq(x, step, bits=bits, signed=signed)
        return levels.sum(), levels

    gradients, levels = jax.grad(summed, argnums=(0, 1), has_aux=True)(x, step)
    return levels, *gradients


@pytest.mark.parametrize("signed", [True, False])
@given(x=arrays(), bits=st.integers(2, 16), step=clips)
def test_lsq(signed, x, bits, step):
    got, by_x, by_step = lsq_all(x, step, float(bits), signed)
    low, high = (
        (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    )
    y, s = flushed(flushed(x) / float(step)), float(step)
    codes = np.float64(got) / s
    np.testing.assert_allclose(codes, np.round(codes), 1e-6)
    assert (np.abs(codes - np.clip(y, low, high)) <= 0.5 + 1e-6 * np.abs(codes)).all()
    np.testing.assert_array_equal(lsq_all(got, step, float(bits), signed)[0], got)
    clear = np.minimum(np.abs(y - low), np.abs(y - high)) > 1e-6 * np.abs(y)
    inside = (y >= low) & (y <= high)
    np.testing.assert_array_equal(np.asarray(by_x)[clear], inside[clear])
    # A sum of terms of at most max(-low, high), however large x is.
    bound = max(-low, high) * np.sqrt(x.size / high)
    assert np.isfinite(by_step)
    assert abs(by_step) <= bound * (1 + 1e-5)


@functools.partial(jax.jit)
def squashed_all(x, scale, bits):
    def summed(x, scale):
        levels = quantize.mint(x, scale, bits=bits)
        return levels.sum(), levels

    gradients, levels = jax.grad(summed, argnums=(0, 1), has_aux=True)(x, scale)
    return levels, *gradients


@given(x=arrays(), bits=st.integers(2, 16), scale=clips)
def test_mint(x, bits, scale):
    got, by_x, by_scale = squashed_all(x, scale, float(bits))
    top, s = 2 ** (bits - 1) - 1, float(scale)
    codes = np.float64(got) / s * top
    np.testing.assert_allclose(codes, np.round(codes), 1e-6)
    y = np.clip(np.tanh(np.float64(x)) / s, -1, 1) * top
    assert (np.abs(codes - y) <= 0.5 + 3e-6 * np.abs(y)).all()
    assert np.isfinite(by_scale)
    assert ((np.asarray(by_x) >= 0) & (np.asarray(by_x) <= 1)).all()
    outside = np.abs(np.tanh(np.float64(x))) > s * (1 + 1e-5)
    assert (np.asarray(by_x)[outside] == 0).all()
    np.testing.assert_array_equal(squashed_all(-x, scale, float(bits))[0], -got)


dorefa = jax.jit(quantize.dorefa)
dorefa_gradient = jax.jit(jax.grad(lambda w, bits: quantize.dorefa(w, bits=bits).sum()))


@given(w=arrays(), bits=st.integers(1, 16))
def test_dorefa(w, bits):
    got = np.asarray(dorefa(w, bits=float(bits)))
    assert np.isfinite(got).all()
    wide = flushed(w)
    if bits == 1:
        mean = np.mean(np.abs(wide))
        signs = np.where(wide >= 0, 1, -1)
        np.testing.assert_allclose(got, signs * mean, 1e-5, 1e-37)
        return
    top = 2**bits - 1
    squashed = np.tanh(wide)
    largest = np.abs(squashed).max()
    y = top * (squashed / (2 * (largest or 1)) + 0.5)
    codes = (np.float64(got) + 1) / 2 * top
    np.testing.assert_allclose(codes, np.round(codes), atol=2e-7 * top + 1e-6)
    assert (np.abs(codes - y) <= 0.5 + 1e-6 * top).all()
    assert np.abs(got).max() <= 1
    order = np.argsort(w)
    assert (np.diff(got[order]) >= 0).all()
    if np.abs(wide).max() > 1e-30:
        assert np.isfinite(dorefa_gradient(w, float(bits))).all()


def levels_of(basis):
    bits = len(basis)
    codes = np.array(
        [[1 if n >> j & 1 else -1 for j in range(bits)] for n in range(2**bits)]
    )
    return codes @ np.float64(basis)


def squared_error(w, basis):
    levels = [levels_of(column) for column in np.asarray(basis).T]
    near = [np.abs(w[:, c, None] - levels[c]).min(axis=1) for c in range(w.shape[1])]
    return np.square(near).sum(axis=1)


lq_solve, lq_net = jax.jit(quantize.lq_solve), jax.jit(quantize.lq_net)
lq_update = jax.jit(quantize.lq_update)


@pytest.mark.slow
@given(data=st.data(), bits=st.sampled_from([2, 3, 8]))
def test_lq_net(data, bits):
    w = data.draw(arrays(1e15)).reshape(16, 4)
    basis = data.draw(arrays(1e15))[: 4 * bits].reshape(bits, 4)
    state = quantize.LqState(jnp.asarray(basis), jnp.int32(0))
    got = np.float64(lq_net(w, state))
    wide = flushed(w)
    for c in range(4):
        levels, size = levels_of(basis[:, c]), np.abs(basis[:, c]).sum(dtype=float)
        near = np.abs(wide[:, c, None] - levels).min(axis=1)
        rounding = 1e-6 * (size + np.abs(wide[:, c])) + 1e-37
        assert (np.abs(got[:, c] - wide[:, c]) <= near + rounding).all()
        on = np.abs(got[:, c, None] - levels).min(axis=1)
        assert (on <= rounding).all()
    solved = lq_solve(w, basis)
    before, after = squared_error(wide, basis), squared_error(wide, solved)
    size = np.abs(basis).sum(axis=0, dtype=float) + np.abs(wide).max(axis=0)
    # What is below the smallest normal number may count as 0, in weights and levels.
    rounding = len(w) * ((1e-5 * size) ** 2 + float(NORMAL) ** 2)
    assert (after <= before * (1 + 1e-5) + rounding).all()
    updated = lq_update(w, state)
    assert updated.count == 1
    np.testing.assert_array_equal(updated.basis, solved)


@pytest.mark.slow
@given(w=arrays(1e15))
def test_lq_fit_is_never_worse_than_its_first_basis(w):
    w = w.reshape(16, 4)
    first = quantize.lq_fit(w, bits=2, iterations=0)
    fitted = quantize.lq_fit(w, bits=2, iterations=10)
    wide, size = flushed(w), np.abs(np.float64(w)).max(axis=0)
    before, after = squared_error(wide, first.basis), squared_error(wide, fitted.basis)
    assert (after <= before * (1 + 1e-5) + len(w) * (1e-5 * size) ** 2 + 1e-70).all()
    # One of the clips that were searched.
    clip = 1.25 * np.where(size >= NORMAL, size, 1)
    one_of_them = squared_error(wide, np.outer([1 / 3, 2 / 3], clip))
    assert (before <= one_of_them * (1 + 1e-5) + 1e-70).all()
    got = np.asarray(lq_net(w, fitted))
    assert all(len(np.unique(column)) <= 4 for column in got.T)
