import inspect
import subprocess
import sys
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from snnjax import emd

# In these tests beartype would refuse some arguments first; users get ValueErrors.
unchecked = inspect.unwrap(emd.emd_from_counts)
counts_jit = jax.jit(emd.emd_from_counts, static_argnums=2)
samples_jit = jax.jit(emd.wasserstein_1d)


def exact_w1(x, y, kx, ky):
    """W1 as a fraction, by carrying mass from the lowest rate upwards."""
    piles = [
        [
            [Fraction(v, k), Fraction(n, counts.size)]
            for v, n in zip(*map(np.ndarray.tolist, unique), strict=True)
        ]
        for counts, k in ((x, kx), (y, ky))
        for unique in [np.unique(counts, return_counts=True)]
    ]
    cost, (a, b) = Fraction(0), piles
    while a and b:
        mass = min(a[0][1], b[0][1])
        cost += mass * abs(a[0][0] - b[0][0])
        for pile in (a, b):
            pile[0][1] -= mass
            if pile[0][1] == 0:
                pile.pop(0)
    return cost


def layer(kind, size, k, seed=0):
    rng = np.random.default_rng([size, seed])
    if kind == "random":
        return rng.integers(0, k + 1, size)
    if kind == "tied":
        return rng.choice([0, 0, 0, k // 3, k // 2, k], size)
    return np.full(size, {"silent": 0, "saturated": k}[kind])


@pytest.mark.parametrize(
    ("kind_x", "n", "kx", "kind_y", "m", "ky"),
    [
        ("random", 1, 1, "random", 1, 1),
        ("silent", 5, 4, "silent", 4, 4),
        ("saturated", 6, 4, "saturated", 6, 5),
        ("saturated", 3, 4, "silent", 5, 4),
        ("tied", 999, 4, "silent", 1001, 4),
        ("random", 2000, 9, "tied", 3000, 10),
        ("random", 100_000, 512, "random", 100_000, 512),
        ("random", 100_000, 512, "random", 99_999, 512),
        ("random", 100_000, 511, "tied", 1, 512),
        # Past 64 bits; then sizes and observations that divide each other.
        ("tied", 100_003, 40_000, "saturated", 99_991, 39_999),
        ("tied", 100_000, 400, "tied", 500, 40_000),
    ],
)
def test_counts_are_exact_outside_jit_and_within_2e_7_inside(
    kind_x, n, kx, kind_y, m, ky
):
    x, y = layer(kind_x, n, kx), layer(kind_y, m, ky, seed=1)
    exact = exact_w1(x, y, kx, ky)
    outside = emd.emd_from_counts(x, y, (kx, ky))
    assert type(outside) is float
    assert outside == float(exact)
    assert outside == pytest.approx(wasserstein_distance(x / kx, y / ky), 1e-12, 1e-15)
    inside = counts_jit(x, y, kx if kx == ky else (kx, ky))
    assert inside.dtype == jnp.float32
    assert inside.shape == ()
    assert abs(Fraction(float(inside)) - exact) <= 2e-7 * exact
    assert 0 <= inside <= 1


def test_one_spike_in_ten_billion():
    n, k = 100_000, 100_000
    x, y = np.zeros((2, n), np.int64)
    y[0] = 1
    assert emd.emd_from_counts(x, y, k) == 1e-10
    assert float(counts_jit(x, y, k)) == pytest.approx(1e-10, rel=2e-7)


def test_a_million_neurons_at_40_000_observations():
    n, k = 1_000_000, 40_000
    silent, saturated = np.zeros(n, np.int32), np.full(n, k, np.int32)
    assert emd.emd_from_counts(silent, saturated, k) == 1.0
    assert float(counts_jit(silent, saturated, k)) == pytest.approx(1.0, rel=2e-7)
    assert emd.emd_from_counts(silent, silent, k) == 0.0
    rng = np.random.default_rng(0)
    x, y = rng.binomial(k, rng.beta(0.3, [[2], [2.1]], (2, n)))
    expected = wasserstein_distance(x / k, y / k)
    assert emd.emd_from_counts(x, y, k) == pytest.approx(expected, rel=1e-12)
    assert float(counts_jit(x, y, k)) == pytest.approx(expected, rel=2e-7)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_any_integers_of_any_shape(dtype):
    x, y = layer("random", 24, 100), layer("random", 30, 100, seed=1)
    expected = float(exact_w1(x, y, 400, 400))
    x, y = x.astype(dtype).reshape(2, 3, 4), y.astype(dtype).reshape(5, 6)
    for k in (400, np.int64(400), (np.int32(400), 400)):
        assert emd.emd_from_counts(x, y, k) == expected
    for function in (counts_jit, emd.emd_from_counts):
        w1 = function(jnp.asarray(x), jnp.asarray(y), 400)
        assert float(w1) == pytest.approx(expected, rel=2e-7)


def test_counts_under_vmap_and_next_to_constants():
    x, y = layer("random", 60, 9).reshape(5, 12), layer("random", 55, 9).reshape(5, 11)
    expected = [float(exact_w1(a, b, 9, 9)) for a, b in zip(x, y, strict=True)]
    distance = jax.jit(jax.vmap(lambda a, b: emd.emd_from_counts(a, b, 9)))
    np.testing.assert_allclose(distance(x, y), expected, rtol=2e-7)
    to_first = jax.jit(jax.vmap(lambda b: emd.emd_from_counts(x[0], b, 9)))(y)
    assert float(to_first[0]) == pytest.approx(expected[0], rel=2e-7)


def test_counts_under_x64():
    x, y = layer("random", 70, 9), layer("random", 55, 9)
    with jax.enable_x64(True):
        w1 = float(counts_jit(jnp.asarray(x), jnp.asarray(y), (9, 10)))
    assert w1 == pytest.approx(float(exact_w1(x, y, 9, 10)), rel=2e-7)


@pytest.mark.parametrize("bad", [-1, 5, 2**31 - 1])
@pytest.mark.parametrize("place", [0, 1])
def test_counts_out_of_range(bad, place):
    layers = [np.array([0, 4, 2]), np.array([0, 1, 4, 3])]
    assert np.isfinite(counts_jit(*layers, 4))
    layers[place][1] = bad
    with pytest.raises(ValueError, match=r"must lie within 0\.\.4 "):
        emd.emd_from_counts(*layers, 4)
    assert np.isnan(counts_jit(*layers, 4))


@pytest.mark.parametrize(
    "observations",
    [0, -1, 2.5, 4.0, True, "4", None, (4, 0), (4,), (4, 4, 4), [4, 4], (4, 4.0)],
)
def test_observations_must_be_whole_and_positive(observations):
    with pytest.raises(
        ValueError, match=r"whole number >= 1 .* or a pair of them, got"
    ):
        unchecked(np.array([0, 1]), np.array([1, 1]), observations)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.array([0.0, 1.0]), "integers, got float"),
        (np.array([True]), "integers, got bool"),
        (np.zeros(0, int), "is empty"),
        (np.zeros((3, 0), int), "is empty"),
    ],
)
def test_counts_must_be_integers_of_some_neurons(bad, message, jit):
    function = counts_jit if jit else emd.emd_from_counts
    for name, layers in (("x_counts", (bad, np.array([1]))), ("y_counts", ([1], bad))):
        with pytest.raises(ValueError, match=f"{name} (must be )?{message}"):
            function(*map(np.asarray, layers), 4)


def test_layer_emd():
    x = {"a": np.array([0, 2]), "b": np.array([1])}
    y = {"b": np.array([4]), "a": np.array([1, 4])}
    assert emd.layer_emd(x, y, 4) == {"a": 0.375, "b": 0.75}
    with pytest.raises(ValueError, match=r"same layers.*\['c', 'd'\]"):
        emd.layer_emd({"a": x["a"], "c": x["b"]}, {"a": y["a"], "d": x["b"]}, 4)


def samples(kind, size, seed):
    rng = np.random.default_rng([size, seed])
    if kind == "rates":
        return (rng.binomial(40_000, rng.beta(0.3, 2, size)) / 40_000).astype(
            np.float32
        )
    if kind == "tied":
        return (rng.binomial(4, 0.1, size) / 4).astype(np.float32)
    return rng.normal(seed, 3, size).astype(np.float32)


def some_weights(size, seed):
    """Zeros among them, at both ends too."""
    rng = np.random.default_rng([size, seed, 1])
    weights = np.float32(rng.random(size) * (rng.random(size) < 0.7))
    weights[rng.integers(size)] = 1.5
    return weights


# In layers of 100,000 W1 is near 1e-3: the digits that a float32 running sum loses.
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


numbers = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9).map(np.array)


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(0), GOOD), "x is empty"),
        ((GOOD, np.zeros((0, 3))), "y is empty"),
        ((GOOD, GOOD, np.ones(3)), r"x_weights must have x's shape \(2,\), got \(3,\)"),
        ((GOOD, GOOD, None, np.ones((1, 2))), "y_weights must have y's shape"),
        ((GOOD, np.array([0, np.nan])), "y has NaN or inf"),
        ((np.array([0, -np.inf]), GOOD), "x has NaN or inf"),
        ((GOOD, GOOD, np.array([1, np.nan])), "x_weights has NaN or inf"),
        ((GOOD, GOOD, None, np.array([2, -1])), "y_weights must be non-negative"),
        ((GOOD, GOOD, np.zeros(2)), "x_weights must be non-negative and not all zero"),
    ],
)
def test_wasserstein_1d_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        emd.wasserstein_1d(*arguments)
    if "shape" in message or "empty" in message:
        with pytest.raises(ValueError, match=message):
            samples_jit(*arguments)


def test_wasserstein_1d_of_nonsense_inside_jit_is_not_finite():
    bad = np.array([0, np.nan])
    for arguments in ((bad, GOOD), (GOOD, bad[1:]), (GOOD, GOOD, bad)):
        assert np.isnan(samples_jit(*arguments))
    assert np.isnan(samples_jit(GOOD, GOOD, None, np.zeros(2)))
    for bad in (np.array([0, np.inf]), np.array([-np.inf, 1, 2])):
        assert not np.isfinite(samples_jit(GOOD, bad))


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


@pytest.mark.parametrize("function", [emd.wasserstein_1d, emd.ott_wasserstein_1d])
@pytest.mark.parametrize(("n", "m"), [(500, 500), (500, 300)])
def test_value_and_grad_has_the_functions_value(function, n, m):
    both = jax.jit(jax.value_and_grad(function))
    for kind in ("rates", "normal", "tied"):  # in the last most points coincide
        x, y = samples(kind, n, 0), samples(kind, m, 1)
        expected = wasserstein_distance(x, y)
        value, slope = both(x, y)
        assert float(value) == pytest.approx(expected, rel=1e-5)
        assert np.all(np.isfinite(slope))
    assert float(function(x, y)) == pytest.approx(float(value), rel=1e-5)
    for level in (0.0, 1.0):
        value, slope = both(np.zeros(n, np.float32), np.full(m, level, np.float32))
        assert float(value) == pytest.approx(level, rel=1e-5)
        np.testing.assert_allclose(slope, -level / n, rtol=1e-4)


def test_ott_outside_jit():
    x, y = np.array([0, 1, 3]), np.array([1, 4])
    w1 = emd.ott_wasserstein_1d(x, y)
    assert (w1.shape, w1.dtype) == ((), jnp.float32)
    assert float(w1) == pytest.approx(7 / 6, rel=1e-5)
    with pytest.raises(ValueError, match="empty"):
        emd.ott_wasserstein_1d(jnp.zeros(0), jnp.zeros(3))


def test_ott_is_imported_where_it_is_used():
    code = "import sys, snnjax.emd; sys.exit('ott' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
