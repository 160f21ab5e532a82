"""Distances between distributions on arbitrary numbers, beside SciPy and fractions."""

from fractions import Fraction
from itertools import pairwise

import jax
import numpy as np
import pytest
from fuzzed import NORMAL, SIZE, TYPES, arrays
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from snnjax import emd

inside = jax.jit(emd.wasserstein_1d)
value_and_grad = jax.jit(jax.value_and_grad(emd.wasserstein_1d))
# One size beside itself, beside one number and beside a third.
sizes = st.sampled_from([64, 1, 21])
# XLA may take what lies below float32's smallest normal number for 0: each summand.
FLUSHED = float(SIZE * NORMAL)


@given(x=arrays(), other=arrays(), size=sizes)
def test_wasserstein_is_scipys(x, other, size):
    y = other[:size]
    wide = np.float64(x), np.float64(y)
    largest = float(max(np.abs(x).max(), np.abs(y).max()))
    expected = wasserstein_distance(*wide)
    got = emd.wasserstein_1d(x, y)
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-13 * largest)
    within = 5e-6 * largest + FLUSHED
    compiled, gradient = value_and_grad(x, y)
    assert float(compiled) == pytest.approx(expected, rel=5e-6, abs=within)
    assert np.isfinite(gradient).all()
    # A sample's mass times the sign of its way.
    assert (np.abs(gradient) <= 1 / x.size * (1 + 1e-5)).all()


@given(x=arrays(1e6), y=arrays(1e6), z=arrays(1e6), shift=st.floats(-1e6, 1e6))
def test_wasserstein_is_a_metric(x, y, z, shift):
    w1 = emd.wasserstein_1d
    x, y, z = (np.float64(a) for a in (x, y, z))
    ways = w1(x, y), w1(y, z), w1(x, z)
    assert ways[2] <= ways[0] + ways[1] + 1e-9 * max(ways)
    assert w1(y, x) == ways[0]
    assert (ways[0] == 0) == np.array_equal(np.sort(x), np.sort(y))
    assert w1(x, x[::-1]) == 0
    assert w1(-8 * x, -8 * y) == pytest.approx(8 * ways[0], rel=1e-12)
    largest = float(max(np.abs(x).max(), np.abs(y).max(), abs(shift)))
    near = 1e-13 * largest
    assert w1(x + shift, y + shift) == pytest.approx(ways[0], rel=1e-9, abs=near)
    assert w1(x, x + shift) == pytest.approx(abs(shift), rel=1e-9, abs=near)


@given(x=arrays(), y=arrays(), size=sizes)
def test_where_samples_are_tied_the_gradient_is_zero(x, y, size):
    value, gradient = value_and_grad(x, x[::-1].copy())
    assert value == 0
    assert not np.any(gradient)
    tied = np.where(np.arange(64) < 32, x, y)
    value, gradient = value_and_grad(x, tied)
    assert value >= 0
    assert np.isfinite(gradient).all()
    # Sorted alike, those that meet their like are not pulled.
    a, b = np.argsort(x, kind="stable"), np.sort(tied)
    values, counts = np.unique(x, return_counts=True)
    alone = np.isin(x[a], values[counts == 1]) & (np.abs(x[a]) > 1e-37)
    meets = (x[a] == b) & alone
    assert not np.any(np.asarray(gradient)[a][meets])


@given(
    x=arrays(1e3),
    y=arrays(1e3),
    kind=st.sampled_from(["float16", "bfloat16"]),
)
def test_half_precision_is_taken_as_it_is(x, y, kind):
    x, y = (a.astype(TYPES[kind]) for a in (x, y))
    got = inside(x, y)
    assert got.dtype == np.float32
    wide = np.float64(x.astype(np.float32)), np.float64(y.astype(np.float32))
    largest = float(max(np.abs(a).max() for a in wide))
    expected = wasserstein_distance(*wide)
    assert emd.wasserstein_1d(x, y) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    near = 5e-6 * largest + FLUSHED
    assert float(got) == pytest.approx(expected, rel=5e-6, abs=near)


weights = arrays(1e6, least=0.0).map(lambda a: a + np.float32(1e-3))


@pytest.mark.slow
@given(x=arrays(1e6), y=arrays(1e6), u=weights, v=weights)
def test_weighted_samples(x, y, u, v):
    wide = [np.float64(a) for a in (x, y, u, v)]
    largest = float(max(np.abs(x).max(), np.abs(y).max()))
    expected = wasserstein_distance(*wide)
    got = emd.wasserstein_1d(x, y, u, v)
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-12 * largest)
    near = 5e-6 * largest + FLUSHED
    assert float(inside(x, y, u, v)) == pytest.approx(expected, rel=5e-6, abs=near)


KS = (1, 7, 40_000)
counts_inside = {
    (k, m): jax.jit(lambda x, y, pair=(k, m): emd.emd_from_counts(x, y, pair))
    for k, m in ((7, 7), (7, 12))
}


@st.composite
def counts(draw, k, size):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    high = draw(st.sampled_from([0, 1, k // 2, k]))
    first = draw(st.integers(0, k))
    values = rng.integers(0, high + 1, size)
    values[0] = first
    return values.astype(np.int32)


def exact(x, y, kx, ky):
    """W1 of rates, in fractions."""
    at = sorted({Fraction(int(a), kx) for a in x} | {Fraction(int(a), ky) for a in y})
    xs, ys = np.sort(x), np.sort(y)
    way = Fraction(0)
    for left, right in pairwise(at):
        fx = Fraction(int(np.searchsorted(xs, int(left * kx // 1), "right")), x.size)
        fy = Fraction(int(np.searchsorted(ys, int(left * ky // 1), "right")), y.size)
        way += abs(fx - fy) * (right - left)
    return way


@pytest.mark.slow
@given(data=st.data())
def test_counts_are_exact(data):
    pair = data.draw(st.sampled_from([*counts_inside, (40_000, 40_000), (1, 9973)]))
    m = data.draw(sizes)
    x, y = data.draw(counts(pair[0], 64)), data.draw(counts(pair[1], m))
    expected = exact(x, y, *pair)
    assert emd.emd_from_counts(x, y, pair) == float(expected)
    assert emd.layer_emd({"a": x}, {"a": y}, pair) == {"a": float(expected)}
    assert emd.emd_from_counts(y, x, pair[::-1]) == float(expected)
    if pair in counts_inside:
        got = float(counts_inside[pair](x, y))
        assert got == pytest.approx(float(expected), rel=2e-7, abs=2e-7)


histogram_inside = jax.jit(jax.value_and_grad(emd.histogram_emd))
masses = arrays(1e6, least=0.0).map(lambda a: a[:16] + np.float32(1e-3))


@given(p=masses, q=masses, width=st.floats(2**-10, 1024, width=32))
def test_histograms(p, q, width):
    wide = np.arange(16) * width, np.arange(16) * width, np.float64(p), np.float64(q)
    expected = wasserstein_distance(*wide)
    got = emd.histogram_emd(p, q, width)
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-12 * width)
    assert emd.histogram_emd(q, p, width) == pytest.approx(got, rel=1e-12)
    value, gradient = histogram_inside(p, q, np.float32(width))
    assert float(value) == pytest.approx(expected, rel=2e-6, abs=1e-6 * width)
    assert np.isfinite(gradient).all()
    value, gradient = histogram_inside(p, p, np.float32(width))
    assert value == 0
    assert not np.any(gradient)


soft_cdf = jax.jit(emd.soft_cdf, static_argnames="points")
soft = jax.jit(
    jax.value_and_grad(lambda r, c, t: emd.soft_cdf_distance(r, c, temperature=t))
)
rates = arrays(1.0, least=0.0, scaled=False)


@given(x=rates, y=rates, temperature=st.floats(2**-13, 1, width=32))
def test_soft_cdf(x, y, temperature):
    cdf = np.asarray(soft_cdf(x, points=16, temperature=temperature))
    grid = (np.arange(16) + 0.5) / 16
    with np.errstate(over="ignore"):
        blurred = 1 / (1 + np.exp((x - grid[:, None]) / np.float64(temperature)))
    np.testing.assert_allclose(cdf, blurred.mean(axis=1), atol=2e-5)
    value, gradient = soft(x, cdf, temperature)
    assert value == 0
    assert not np.any(gradient)
    value, gradient = soft(y, cdf, temperature)
    assert np.isfinite(gradient).all()
    assert 0 <= value <= emd.wasserstein_1d(x, y) + 1 / 16 + 1e-5


sliced_inside = jax.jit(emd.sliced)


@pytest.mark.slow
@given(x=arrays(1e6), y=arrays(1e6))
def test_sliced(x, y):
    x, y = x.reshape(32, 2), y.reshape(32, 2)
    angles = np.pi * (np.arange(64) + 0.5) / 64
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    x64, y64 = np.float64(x), np.float64(y)
    each = [np.abs(np.sort(x64 @ w) - np.sort(y64 @ w)).mean() for w in ways]
    got = emd.sliced(x, y)
    assert got == pytest.approx(np.mean(each), rel=1e-9)
    largest = float(max(np.abs(x).max(), np.abs(y).max()))
    near = 5e-6 * largest + FLUSHED
    assert float(sliced_inside(x, y)) == pytest.approx(got, rel=1e-5, abs=near)
    assert emd.sliced(x, x[::-1]) == 0


ott = jax.jit(emd.ott_wasserstein_1d)


@given(x=rates, y=rates)
def test_ott_agrees(x, y):
    expected = wasserstein_distance(np.float64(x), np.float64(y))
    assert float(ott(x, y)) == pytest.approx(expected, rel=3e-5, abs=3e-5)
