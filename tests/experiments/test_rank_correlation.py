"""Rank correlations: SciPy's on the same numbers, and what intervals promise."""

import numpy as np
import pytest
from scipy import stats

from experiments.rank_correlation import bootstrap, condition, estimate


def bootstrap_by_scipy(statistic, *columns, seed):
    return stats.bootstrap(
        columns,
        statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval


def test_correlations_match_scipy():
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(2, 40, 3))
    x[:, 1] = np.round(x[:, 1])  # ties
    y[:, 2] += x[:, 2]
    found, low, high = estimate(bootstrap(x, y, range(40)))
    for p in range(3):
        for o in range(3):
            right = stats.spearmanr(x[:, p], y[:, o]).statistic
            assert found[p, o] == pytest.approx(right, abs=1e-12)
    assert (low < high).all()
    assert ((low <= found) & (found <= high)).all()


def test_what_rounding_alone_sets_apart_is_equal():
    shares = np.array([5, 1, 3, 2, 4, 1, 2, 3, 5, 4])
    base = np.array([97, 95, 94, 99, 98, 91, 96, 93, 92, 90])
    lost = (base / 100 - (base - shares) / 100)[:, None]
    assert len(set(lost[:, 0])) > len(set(shares))
    y = np.arange(10.0)[:, None]
    found = bootstrap(lost, y, range(10), resamples=1)[0, 0, 0]
    assert found == pytest.approx(stats.spearmanr(shares, y[:, 0]).statistic, abs=1e-12)


@pytest.mark.slow
def test_intervals_match_scipy():
    generator = np.random.default_rng(2)
    x = generator.normal(size=30)
    y = x + generator.normal(size=30)
    right = bootstrap_by_scipy(
        lambda a, b: stats.spearmanr(a, b).statistic, x, y, seed=3
    )
    found = bootstrap(x[:, None], y[:, None], range(30))
    _, low, high = estimate(found)[:, 0, 0]
    # Two draws of 2,000 resamples: their ends differ by some hundredths.
    np.testing.assert_allclose([low, high], right, atol=0.04)


@pytest.mark.slow
def test_differences_match_scipy():
    """Far narrower than two intervals tell: what is shared by the two drops out."""
    generator = np.random.default_rng(4)
    y = generator.normal(size=60)
    noise = generator.normal(size=60)
    x = np.stack([y + 0.5 * noise, y + 0.4 * noise], axis=1)
    right = bootstrap_by_scipy(
        lambda a, b, c: (
            stats.spearmanr(b, c).statistic - stats.spearmanr(a, c).statistic
        ),
        *(*x.T, y),
        seed=5,
    )
    drawn = bootstrap(x, y[:, None], range(60))
    found, low, high = estimate(drawn[:, 1, 0] - drawn[:, 0, 0])
    np.testing.assert_allclose([low, high], right, atol=0.01)
    table = estimate(drawn)[..., 0]
    assert found == pytest.approx(table[0, 1] - table[0, 0])
    # The two intervals overlap, and yet the one is higher.
    assert table[1, 1] < table[2, 0]
    assert low > 0


def residual(ranks, given):
    design = np.column_stack([np.ones(len(given)), given])
    return ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0]


@pytest.mark.parametrize("seed", range(3))
def test_partial_correlations_match_scipy(seed):
    columns = np.random.default_rng(seed).integers(0, 9, (40, 3)).astype(float)
    columns[:, 1] += columns[:, 2]
    x, y, z = map(stats.rankdata, columns.T)
    right = stats.pearsonr(residual(x, z), residual(y, z)).statistic
    [drawn] = bootstrap(columns, columns, range(40), resamples=0)
    found = condition(drawn, 2)
    np.testing.assert_allclose(found[0, 1], right, rtol=1e-9)
    assert np.isnan(found[2]).all()  # given z, nothing of z is left


def test_what_never_varies_has_none():
    columns = np.stack([np.arange(5.0), np.ones(5), np.arange(5.0)[::-1]], axis=1)
    [drawn] = bootstrap(columns, columns, range(5), resamples=0)
    assert np.isnan(drawn[1]).all()
    assert drawn[0, 2] == pytest.approx(-1)
    assert np.isnan(condition(drawn, 0)[1:, 1:]).all()


def test_repeated_rows_do_not_narrow_intervals():
    generator = np.random.default_rng(6)
    x, y = generator.normal(size=(2, 30, 1))
    once = estimate(bootstrap(x, y, range(30)))
    groups = np.repeat(np.arange(30), 3)
    thrice = np.repeat(x, 3, axis=0), np.repeat(y, 3, axis=0)
    found = estimate(bootstrap(*thrice, list(groups)))
    np.testing.assert_allclose(found, once, atol=1e-12)
    apart = estimate(bootstrap(*thrice, range(90)))
    assert apart[2] - apart[1] < 0.7 * (once[2] - once[1])


def test_monotone_and_constant_outcomes():
    x = np.arange(10.0)[:, None]
    y = np.stack([np.exp(x[:, 0]), -x[:, 0], np.ones(10)], axis=1)
    table = estimate(bootstrap(x, y, range(10)))
    np.testing.assert_allclose(table[:, 0, 0], 1)
    np.testing.assert_allclose(table[:, 0, 1], -1)
    assert np.isnan(table[:, 0, 2]).all()
