import inspect
import itertools
import time
import tracemalloc
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import exact_w1, layer
from scipy.stats import ks_2samp, wasserstein_distance

from snnjax import emd

# In these tests beartype would refuse some arguments first; users get ValueErrors.
unchecked = inspect.unwrap(emd.emd_from_counts)
counts_jit = jax.jit(emd.emd_from_counts, static_argnums=2)


@pytest.mark.slow
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


@pytest.mark.slow
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
    ("bad", "message"),
    [
        (np.array([0.0, 1.0]), "integers, got float"),
        (np.array([True]), "integers, got bool"),
        (np.zeros(0, int), "is empty"),
        (np.zeros((3, 0), int), "is empty"),
    ],
)
def test_counts_must_be_integers_of_some_neurons(bad, message):
    for name, layers in (("x_counts", (bad, np.array([1]))), ("y_counts", ([1], bad))):
        with pytest.raises(ValueError, match=f"{name} (must be )?{message}"):
            counts_jit(*map(np.asarray, layers), 4)


def test_layer_emd():
    x = {"a": np.array([0, 2]), "b": np.array([1])}
    y = {"b": np.array([4]), "a": np.array([1, 4])}
    assert emd.layer_emd(x, y, 4) == {"a": 0.375, "b": 0.75}
    with pytest.raises(ValueError, match=r"same layers.*\['c', 'd'\]"):
        emd.layer_emd({"a": x["a"], "c": x["b"]}, {"a": y["a"], "d": x["b"]}, 4)


@pytest.mark.parametrize(("n", "m"), [(300, 300), (300, 170)])
@pytest.mark.parametrize(("kx", "ky"), [(40, 40), (40, 60)])
def test_kolmogorov_smirnov_is_scipys(n, m, kx, ky):
    pair = kx if kx == ky else (kx, ky)
    for kinds in (("random", "tied"), ("silent", "random"), ("silent", "saturated")):
        x, y = (layer(*a) for a in zip(kinds, (n, m), (kx, ky), (0, 1), strict=True))
        expected = ks_2samp(x / kx, y / ky, method="asymp").statistic
        assert emd.ks_from_counts(x, y, pair) == pytest.approx(expected, rel=1e-12)
        inside = jax.jit(emd.ks_from_counts, static_argnums=2)(x, y, pair)
        assert float(inside) == pytest.approx(expected, rel=2e-7)
    assert emd.ks_from_counts(x, x, kx) == 0


def test_what_is_known_is_checked_beside_what_is_traced():
    # 2**32 + 1 would be 1 in JAX's 32 bits.
    wide = np.array([2**32 + 1])
    with pytest.raises(ValueError, match=r"y_counts must lie within 0\.\.4"):
        jax.jit(lambda x: emd.emd_from_counts(x, wide, 4))(np.array([1]))


def test_lists_are_taken_without_beartype():
    assert unchecked([0, 2], [1, 4], 4) == 0.375
    with pytest.raises(ValueError, match="x_counts must be integers, got float64"):
        unchecked([0.5], [1], 4)


def test_more_observations_than_a_piece():
    n, k = 1000, 300_000
    x, y = layer("random", n, k), layer("random", n, k, seed=1)
    expected = wasserstein_distance(x / k, y / k)
    assert emd.emd_from_counts(x, y, k) == pytest.approx(expected, rel=1e-12)


def test_kolmogorov_smirnov_of_nonsense():
    bad = np.array([0, 5])
    with pytest.raises(ValueError, match=r"within 0\.\.4"):
        emd.ks_from_counts(bad, bad, 4)
    assert np.isnan(jax.jit(emd.ks_from_counts, static_argnums=2)(bad, bad, 4))


def exact_distances(x, y, kx, ky):
    """W1 and KS statistic by fractions."""
    rates_x, rates_y = ([Fraction(int(c), k) for c in z] for z, k in ((x, kx), (y, ky)))
    at = sorted({*rates_x, *rates_y})

    def cdf(rates):
        return [Fraction(sum(r <= rate for r in rates), len(rates)) for rate in at]

    apart = [abs(a - b) for a, b in zip(cdf(rates_x), cdf(rates_y), strict=True)]
    gaps = [b - a for a, b in itertools.pairwise(at)]
    w1 = sum(d * gap for d, gap in zip(apart, gaps, strict=False))
    return float(w1), float(max(apart))


@pytest.mark.parametrize("seed", range(60))
def test_sorted_or_counted_it_is_the_exact_value(seed):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 9, 2)
    # On both sides of what decides between sorting and counting, and of 32 bits.
    kx = int(rng.choice([1, 7, 1500, 10**6, 2**31 - 1, 2**31 + 5, 2**40 + 3]))
    ky = kx if rng.random() < 0.5 else int(rng.choice([4, 1000, 4999, 2**31 - 1]))
    x, y = rng.integers(0, kx + 1, n), rng.integers(0, ky + 1, m)
    w1, ks = exact_distances(x, y, kx, ky)
    assert emd.emd_from_counts(x, y, (kx, ky)) == w1
    assert emd.ks_from_counts(x, y, (kx, ky)) == ks
    if seed % 3 == 0 and max(x.max(), y.max()) < 2**32:
        counts = jnp.asarray(x.astype(np.uint32)), jnp.asarray(y.astype(np.uint32))
        for function, right in ((emd.emd_from_counts, w1), (emd.ks_from_counts, ks)):
            found = jax.jit(lambda x, y, f=function: f(x, y, (kx, ky)))(*counts)
            assert abs(float(found) - right) <= 2e-7


@pytest.mark.parametrize("function", [emd.emd_from_counts, emd.ks_from_counts])
@pytest.mark.parametrize("k", [5 * 10**7, (5 * 10**7, 5 * 10**7 - 1)])
def test_two_neurons_with_many_observations_take_no_time_and_memory(function, k):
    x, y = np.array([0, 41_000_000]), np.array([7, 30_000_000])
    jitted = jax.jit(lambda x, y: function(x, y, k))
    traced = jnp.asarray(x), jnp.asarray(y)
    jitted(*traced)
    seconds = []
    for _ in range(5):  # the machine may be busy
        start = time.perf_counter()
        found = function(x, y, k), float(jitted(*traced))
        seconds.append(time.perf_counter() - start)
    tracemalloc.start()
    function(x, y, k)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[1] == pytest.approx(found[0], abs=2e-7)
    assert min(seconds) < 0.05
    assert peak < 10**6
    sizes = jitted.lower(*traced).compile().memory_analysis()
    assert sizes.temp_size_in_bytes < 10**5


def test_int4_counts_and_counts_beyond_int32_are_compared():
    x, y = np.array([0, 7]), np.array([1, 2])
    four = jnp.asarray(x, jnp.int4), jnp.asarray(y, jnp.int4)
    assert emd.emd_from_counts(*four, 7) == emd.emd_from_counts(x, y, 7)
    large = np.array([2**31 + 5, 3])  # closed over, beside a traced one
    found = jax.jit(lambda x: emd.emd_from_counts(x, large, 2**32))(jnp.array([1, 3]))
    expected = emd.emd_from_counts(np.array([1, 3]), large, 2**32)
    assert float(found) == pytest.approx(expected, abs=2e-7)
    with pytest.raises(ValueError, match=r"below 2\*\*32"):
        jax.jit(lambda x: emd.emd_from_counts(x, large * 2**9, 2**41))(jnp.array([1]))
    with pytest.raises(ValueError, match=r"below 2\*\*62"):
        emd.emd_from_counts(x, y, 2**62)


def test_traced_counts_of_64_bits_are_exact():
    """Beyond 2**45, where three limbs end."""
    with jax.enable_x64(True):
        x, y = jnp.array([0, 5]), jnp.array([2**48, 2**49])
        expected = float(Fraction(2**48 + 2**49 - 5, 2 * 2**50))
        assert float(counts_jit(x, y, 2**50)) == pytest.approx(expected, rel=2e-7)
        expected = float(
            (Fraction(2**48, 2**50) + Fraction(2**49, 2**50) - Fraction(5, 2**49)) / 2
        )
        w1 = float(counts_jit(x, y, (2**49, 2**50)))
        assert w1 == pytest.approx(expected, rel=2e-7)
