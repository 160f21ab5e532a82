from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import samples, some_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from snnjax import emd
from snnjax.emd import _sorting

samples_jit = jax.jit(emd.wasserstein_1d)


# In layers of 100,000 W1 is near 1e-3: the digits that a float32 running sum loses.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "m", "which"),
    [
        (1, 1, ""),
        (5, 3, ""),
        (1, 6, "y"),
        (900, 1000, "x"),
        (100_000, 100_000, ""),
        (100_000, 33_334, ""),
        (100_000, 33_334, "xy"),
    ],
)
def test_wasserstein_1d_is_scipys(n, m, which):
    for kind in ("rates", "tied", "normal"):
        x, y = samples(kind, n, 0), samples(kind, m, 1)
        u = some_weights(n, 0) if "x" in which else None
        v = some_weights(m, 1) if "y" in which else None
        wide = (a if a is None else a.astype(np.float64) for a in (x, y, u, v))
        expected = wasserstein_distance(*wide)
        outside = emd.wasserstein_1d(x, y, u, v)
        assert type(outside) is float
        assert outside == pytest.approx(expected, rel=1e-12, abs=1e-15)
        inside = samples_jit(x, y, u, v)
        assert inside.dtype == jnp.float32
        assert float(inside) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_weights_that_differ_little():
    # All of W1 is in what 1/3 and 1001/3001 leave over in float32.
    x, u, v = np.float32([0, 1]), np.float32([1, 2]), np.float32([1001, 2000])
    expected = float(Fraction(1001, 3001) - Fraction(1, 3))
    assert emd.wasserstein_1d(x, x, u, v) == pytest.approx(expected, rel=1e-12)
    assert float(samples_jit(x, x, u, v)) == pytest.approx(expected, rel=1e-6)


def test_wasserstein_1d_takes_integers_shapes_scalars_and_half_precision():
    x, y = np.array([[0, 1], [3, 3]]), np.array([1, 4])  # as if y were 1, 1, 4, 4
    for function in (emd.wasserstein_1d, samples_jit):
        assert float(function(x, y)) == pytest.approx(0.75)
    for function in (emd.wasserstein_1d, samples_jit):
        assert float(function(2.0, -1)) == 3.0
    half = jnp.asarray([0.5, 1.0], jnp.bfloat16)
    assert samples_jit(half, half + 1).dtype == jnp.float32
    with jax.enable_x64(True):
        assert samples_jit(jnp.asarray([0.1]), jnp.asarray([0.4])).dtype == jnp.float64
        x, y = (
            np.array([2**24 + 1, 5]),
            np.array([2**24, 5]),
        )  # float32 has no 2**24 + 1
        assert float(samples_jit(x, y)) == emd.wasserstein_1d(x, y) == 0.5
        assert float(samples_jit(x, np.float32(y))) == 0.5


numbers = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9).map(np.array)


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(numbers, numbers, numbers, st.floats(-1e3, 1e3))
def test_it_is_a_metric_and_follows_a_shift(x, y, z, shift):
    w1 = emd.wasserstein_1d
    assert w1(x, x) == 0
    assert w1(x, y) == pytest.approx(w1(y, x), rel=1e-12, abs=1e-12)
    assert w1(x, z) <= w1(x, y) + w1(y, z) + 1e-9
    assert w1(x, y) >= abs(x.mean() - y.mean()) - 1e-9
    assert w1(x, np.repeat(x, 3) + shift) == pytest.approx(abs(shift), abs=1e-9)


GOOD = np.array([0.5, 1.0])


def test_wasserstein_1d_of_nonsense_inside_jit_is_nan():
    bad = np.array([0, np.nan])
    for arguments in ((bad, GOOD), (GOOD, bad[1:]), (GOOD, GOOD, bad)):
        assert np.isnan(samples_jit(*arguments))
    assert np.isnan(samples_jit(GOOD, GOOD, None, np.zeros(2)))
    assert np.isnan(samples_jit(GOOD, GOOD, None, np.array([-1, 3])))
    for bad in (np.array([0, np.inf]), np.array([-np.inf, 1, 2])):
        assert np.isnan(samples_jit(GOOD, bad))
        assert np.isnan(samples_jit(bad, bad))


@pytest.mark.slow
def test_gradient_is_zero_where_points_coincide():
    both = jax.jit(jax.value_and_grad(emd.wasserstein_1d))
    rates = samples("tied", 1000, 0)
    weights = some_weights(1000, 0)
    for x, *others in (
        (rates, rates[::-1]),
        (rates, np.repeat(rates, 2)),
        (np.zeros(7), np.zeros(5)),
        (rates, rates[::-1], weights, weights[::-1]),
    ):
        value, slope = both(np.float32(x), *others)
        assert value == 0
        assert not np.any(slope)
    # Of two neurons only the one that differs is moved.
    _, slope = both(jnp.array([0.25, 0.5]), jnp.array([0.25, 0.75]))
    assert slope.tolist() == [0, -0.5]


@pytest.mark.parametrize("form", ["equal", "unequal", "weights"])
def test_gradient_on_tied_rates_moves_towards_the_reference(form):
    rng = np.random.default_rng(0)
    x, y = (np.float32(rng.binomial(4, p, 1000) / 4) for p in (0.1, 0.25))
    expected = np.mean(np.sign(np.sort(x) - np.sort(y)))  # mates in order
    assert -0.6 < expected < -0.3
    others = {
        "equal": (y,),
        "unequal": (np.repeat(y, 3),),
        "weights": (y, np.ones(1000, np.float32), np.full(1000, 2, np.float32)),
    }[form]
    slope = jax.jit(jax.grad(emd.wasserstein_1d))(x, *others)
    assert np.sum(slope) == pytest.approx(expected, rel=1e-4)
    assert np.all(slope <= 0)
    assert emd.wasserstein_1d(x - 100 * slope, y) < emd.wasserstein_1d(x, y)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (7, 4)])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_finite_differences(n, m, weighted):
    rng = np.random.default_rng(n * m)
    arguments = [rng.normal(size=n), rng.normal(size=m)]
    if weighted:
        arguments += [rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, m)]
    places = tuple(range(len(arguments)))
    with jax.enable_x64(True):
        both = jax.value_and_grad(emd.wasserstein_1d, places)
        value, slopes = jax.jit(both)(*map(jnp.asarray, arguments))
    assert float(value) == pytest.approx(wasserstein_distance(*arguments), rel=1e-13)
    for place, slope in zip(places, slopes, strict=True):
        for i in range(slope.size):
            h = 1e-6
            shifted = [[a.copy() for a in arguments] for _ in range(2)]
            shifted[0][place][i] += h
            shifted[1][place][i] -= h
            up, down = (wasserstein_distance(*a) for a in shifted)
            assert float(slope[i]) == pytest.approx((up - down) / (2 * h), abs=1e-8)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3.0])
def test_powers_of_weighted_samples_are_those_of_repeated_ones(p):
    rng = np.random.default_rng(0)
    x, y = np.float32(rng.random(7)), np.float32(rng.random(4))
    u, v = rng.integers(0, 4, 7), rng.integers(1, 3, 4)
    long_x, long_y = np.repeat(x, u), np.repeat(y, v)
    # As many of each: the coupling is then one to one, in order.
    pairs = (
        np.sort(np.repeat(long_x, long_y.size)),
        np.sort(np.repeat(long_y, long_x.size)),
    )
    expected = np.mean(np.abs(np.float64(pairs[0]) - pairs[1]) ** p)

    def inside(*arrays):
        return jax.jit(lambda *a: emd.wasserstein_p_1d(*a, p=p))(*arrays)

    for function, rel in (
        (lambda *a: emd.wasserstein_p_1d(*a, p=p), 1e-12),
        (inside, 5e-6),
    ):
        found = function(x, y, np.float32(u), np.float32(v))
        assert float(found) == pytest.approx(expected, rel=rel)
        assert float(function(long_x, long_y)) == pytest.approx(expected, rel=rel)


@pytest.mark.parametrize("p", [1.5, 2, 3])
def test_gradients_of_powers(p):
    rng = np.random.default_rng(0)
    x, y = rng.random(6), rng.random(6)
    x[2] = y[2] = 0.5  # and where two coincide, 0
    h = 1e-6
    expected = [
        (emd.wasserstein_p_1d(x + e, y, p=p) - emd.wasserstein_p_1d(x - e, y, p=p))
        / (2 * h)
        for e in h * np.eye(6)
    ]
    with jax.enable_x64(True):
        power = jax.jit(
            jax.value_and_grad(lambda x, y: emd.wasserstein_p_1d(x, y, p=p))
        )
        value, slope = power(jnp.asarray(x), jnp.asarray(y))
    assert float(value) == pytest.approx(emd.wasserstein_p_1d(x, y, p=p), rel=1e-12)
    np.testing.assert_allclose(slope, expected, atol=2e-5)
    for same in (np.zeros(9, np.float32), samples("tied", 300, 0)):
        value, slope = power(same, same[::-1])
        assert value == 0
        assert not np.any(slope)


def test_a_reference_that_is_closed_over_is_not_sorted_by_the_compiler():
    x = samples("rates", 1001, 0)
    cloud = np.stack([x, x[::-1]], axis=1)
    for function, a in ((emd.wasserstein_1d, x), (emd.sliced, cloud)):
        fixed = a[::-1].copy()
        both = jax.jit(jax.value_and_grad(lambda x, f=function, y=fixed: f(x, y)))
        value, slope = both(a)
        assert value == 0
        assert not np.any(slope)


def test_sorting_by_integers_is_sorting(key):
    odd = np.float32([0, -0.0, 1e-45, -1e-45, 1e38, -1e38, np.inf, -np.inf, 2, 2, 2])
    both = jax.jit(lambda x, t: jax.jvp(_sorting.sort, (x,), (t,)))
    for x in (odd, samples("tied", 1000, 0), samples("normal", 1000, 1)):
        tangent = np.arange(x.size, dtype=np.float32)
        values, moved = both(x, tangent)
        order = np.argsort(x, kind="stable")
        np.testing.assert_array_equal(values, x[order])
        np.testing.assert_array_equal(moved, tangent[order])
        np.testing.assert_array_equal(jax.jit(_sorting.sort)(x), x[order])
    assert np.isnan(jax.jit(_sorting.sort)(np.float32([np.nan, 1, -np.nan]))).sum() == 2
    rows = np.stack([samples("normal", 50, seed) for seed in range(3)])
    np.testing.assert_array_equal(jax.vmap(_sorting.sort)(rows), np.sort(rows))


SIZES = [int(n) for n in np.unique(np.geomspace(1, 100_000, 12).astype(int))]
KINDS = ("rates", "tied", "normal", "silent", "saturated")


def random_case(case):
    """Any sizes, equal in every other case; any kinds; weights with zeros."""
    rng = np.random.default_rng(case)
    n, m = rng.choice(SIZES, 2)
    m = n if case % 2 else m
    weighted = case % 5 < 2, case % 5 in (1, 2)
    arrays = [samples(rng.choice(KINDS), n, 2 * case)]
    arrays += [samples(rng.choice(KINDS), m, 2 * case + 1)]
    arrays += [some_weights(n, case) if weighted[0] else None]
    arrays += [some_weights(m, case + 1) if weighted[1] else None]
    return arrays


def error(found, expected):
    return abs(float(found) - expected) / expected if expected else abs(float(found))


@pytest.mark.nightly
def test_a_thousand_random_cases_are_scipys():
    worst = dict.fromkeys(("float32 outside", "float64 outside", "inside"), 0.0)
    for case in range(1000):
        arrays = random_case(case)
        wide = [None if a is None else np.float64(a) for a in arrays]
        expected = wasserstein_distance(*wide)
        found = {
            "float32 outside": emd.wasserstein_1d(*arrays),
            "float64 outside": emd.wasserstein_1d(*wide),
            "inside": samples_jit(*arrays),
        }
        for name, value in found.items():
            worst[name] = max(worst[name], error(value, expected))
    assert worst["float32 outside"] <= 1e-6
    assert worst["float64 outside"] <= 1e-6
    assert worst["inside"] <= 5e-6


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_the_gradient_by_masses_of_any_size_is_finite(scale):
    """Masses are normalised: it is that of masses of size 1, over the scale."""
    x, y = np.float32([0, 0.5, 1]), np.float32([0.2, 0.9])
    distances = (
        lambda w: emd.wasserstein_1d(x, y, w, np.float32([1, 3])),
        lambda w: emd.histogram_emd(w, np.float32([3, 0, 1]), 0.5),
    )
    weights = jnp.float32([1, 2, 1])
    for distance in distances:
        value, slope = jax.value_and_grad(distance)(weights)
        scaled, its = jax.value_and_grad(distance)(weights * np.float32(scale))
        assert float(scaled) == pytest.approx(float(value), rel=1e-6)
        np.testing.assert_allclose(np.float64(its) * scale, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("other", [100, 101])
@pytest.mark.parametrize("p", [1, 2])
def test_a_sum_that_overflows_float32_leaves_its_mean(other, p):
    """Inside jit as outside: the value and its gradient."""
    size = 3e38 if p == 1 else 1e19
    x, y = np.full(100, size, np.float32), np.zeros(other, np.float32)

    def distance(x, y):
        return emd.wasserstein_p_1d(x, y, p=p)

    found, slopes = jax.jit(jax.value_and_grad(distance))(x, y)
    assert float(found) == pytest.approx(distance(x, y), rel=1e-5)
    expected = 0.01 if p == 1 else 0.02 * 1e19
    np.testing.assert_allclose(slopes, expected, rtol=1e-4)


def test_numbers_at_the_end_of_float64_are_exact_or_refused():
    with pytest.raises(ValueError, match="too far apart"):
        emd.wasserstein_1d(np.full(3, 1e308), np.full(3, -1e308))
    with pytest.raises(ValueError, match="too far apart"):
        emd.wasserstein_p_1d(np.full(3, 1e200), np.zeros(3), p=2)
    for weight in (1e308, 1e-320):
        weights = np.full(3, weight)
        assert emd.wasserstein_1d(np.arange(3.0), np.zeros(3), weights) == 1.0
        found = emd.histogram_emd(weights, np.array([1.0, 0, 0]), 0.5)
        assert found == pytest.approx(0.5, rel=1e-15)
