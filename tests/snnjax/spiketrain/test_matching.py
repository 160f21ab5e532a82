"""Matching spikes in time against every matching there is, and against SciPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance

from snnjax.spiketrain import matching, time_wasserstein, victor_purpura

STEPS = 8
words = st.lists(st.booleans(), min_size=STEPS, max_size=STEPS).map(np.array)
COSTS = (0.0, 0.3, 0.5, 1.0, 1.9, 2.0, 7.0, np.inf)


def some(seed, steps=STEPS, neurons=40):
    rng = np.random.default_rng([seed, steps])
    return rng.random((steps, neurons)) < rng.random(neurons) ** 1.5


def all_pairs(steps):
    trains = np.array(list(itertools.product([0, 1], repeat=steps))).T
    n = trains.shape[1]
    return np.repeat(trains, n, 1), np.tile(trains, n)


def every_matching(x, y):
    """(spikes left over, least sum of |dt|) for each number of pairs, by trying all."""
    a, b = (np.flatnonzero(train) for train in (x, y))
    for pairs in range(min(len(a), len(b)) + 1):
        sums = [
            sum(abs(i - j) for i, j in zip(left, right, strict=True))
            for left in itertools.combinations(a.tolist(), pairs)
            for right in itertools.permutations(b.tolist(), pairs)
        ]
        yield len(a) + len(b) - 2 * pairs, min(sums)


@pytest.fixture(scope="module")
def tried():
    """Left over and moved ``[matchings, trains]``, a lot behind the last."""
    x, y = all_pairs(5)
    found = np.full((2, 6, x.shape[1]), 1e9)
    for i in range(x.shape[1]):
        for pairs, costs in enumerate(every_matching(x[:, i], y[:, i])):
            found[:, pairs, i] = costs
    return found


@pytest.mark.parametrize("path", [matching._match_unrolled, matching._match_scanned])
def test_no_matching_of_any_two_trains_is_cheaper(tried, path):
    x, y = all_pairs(5)
    left_over, moved = tried
    path = jax.jit(path)
    for move, drop in itertools.product((0.0, 0.3, 1.0), (0.0, 0.4, 1.0, 2.5)):
        expected = np.min(move * moved + drop * left_over, 0)
        got = path(x, y, jnp.float32(move), jnp.float32(drop))
        np.testing.assert_allclose(got, expected, 1e-6, 1e-6)


def test_the_public_functions_are_what_they_say(tried):
    x, y = all_pairs(5)
    left_over, moved = tried
    for cost in COSTS:
        still = np.where(moved == 0, 0, cost * np.where(moved == 0, 1, moved))
        expected = np.min(still + left_over, 0)
        got = victor_purpura(x, y, cost=cost)
        np.testing.assert_allclose(got, expected, 1e-6)
    for unmatched in (0.3, 0.5, 1.0, 1.7, 2.5, 100.0):
        expected = np.min(moved + unmatched * left_over, 0)
        got = time_wasserstein(x, y, unmatched=unmatched)
        np.testing.assert_allclose(got, expected, 1e-6)
    # As many as can be are matched, and then as cheaply as can be: by default, and at
    # infinity, which is infinite where a spike is left over.
    fewest = left_over.min(0)
    cheapest = np.where(left_over == fewest, moved, np.inf).min(0)
    np.testing.assert_array_equal(time_wasserstein(x, y), cheapest + 2.5 * fewest)
    np.testing.assert_array_equal(
        time_wasserstein(x, y, unmatched=np.inf), np.where(fewest, np.inf, cheapest)
    )
    assert not np.any(time_wasserstein(x, y, unmatched=0))


@pytest.mark.parametrize("steps", [STEPS, 100])
def test_long_trains_against_linear_assignment(steps):
    """Whoever is not matched is assigned to a partner that stands for nobody."""
    x, y = some(0, steps), some(1, steps)
    y[:, :20] = np.random.default_rng(0).permuted(x[:, :20], axis=0)  # equal counts
    for unmatched in (0.7, 3.0, None):
        price = steps / 2 if unmatched is None else unmatched
        got = np.asarray(time_wasserstein(x, y, unmatched=unmatched))
        for i in range(x.shape[1]):
            a, b = np.flatnonzero(x[:, i]), np.flatnonzero(y[:, i])
            costs = np.zeros((a.size + b.size,) * 2)
            costs[: a.size, : b.size] = np.abs(a[:, None] - b)
            costs[: a.size, b.size :] = costs[a.size :, : b.size] = price
            expected = costs[linear_sum_assignment(costs)].sum()
            assert got[i] == pytest.approx(expected, rel=1e-5)
            if unmatched is None:
                assert got[i] == expected
                assert (2 * got[i]).is_integer()
            if unmatched is None and a.size == b.size > 0:
                w1 = wasserstein_distance(a + 0.5, b + 0.5)
                assert got[i] == pytest.approx(a.size * w1, rel=1e-6)
    counts = x.sum(0) == y.sum(0)
    assert counts[:20].all()
    assert not counts.all()


@pytest.mark.parametrize("cost", [0.1, 0.5, 1.5])
def test_both_are_the_same_family(cost):
    x, y = some(0), some(1)
    np.testing.assert_allclose(
        time_wasserstein(x, y, unmatched=1 / cost) * cost,
        victor_purpura(x, y, cost=cost),
        2e-6,
    )


@pytest.mark.parametrize("steps", [STEPS, 100])
def test_limits(steps):
    x, y = some(0, steps), some(1, steps)
    difference = np.abs(x.sum(0) - 1 * y.sum(0))
    np.testing.assert_array_equal(victor_purpura(x, y, cost=0), difference)
    for cost in (2, 1e9, np.inf):
        got = victor_purpura(x, y, cost=cost)
        np.testing.assert_array_equal(got, (x != y).sum(0))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(words, words, words, st.sampled_from([0.1, 0.5, 1.3, np.inf]))
def test_they_are_metrics(x, y, z, cost):
    a = np.stack([x, y, x, x, y], 1)
    b = np.stack([y, x, x, z, z], 1)
    for got in (
        victor_purpura(a, b, cost=cost),
        time_wasserstein(a, b, unmatched=min(1 / cost + 0.1, 9)),
        time_wasserstein(a, b),
    ):
        xy, yx, xx, xz, yz = np.asarray(got, float)
        assert xy == pytest.approx(yx, rel=1e-6)
        assert xx == 0
        assert xz <= xy + yz + 1e-5
        assert (xy > 0) == bool(np.any(x != y))


@pytest.mark.parametrize(
    ("distance", "name", "steps", "value"),
    [
        (victor_purpura, "cost", 4, 0.317),
        (time_wasserstein, "unmatched", 100, 2.718),
    ],
)
def test_gradients(x64, distance, name, steps, value):
    """By the costs finite differences, by the spikes 0; finite in the limits."""
    x, y = 1.0 * some(2, steps, 9), 1.0 * some(3, steps, 9)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
    def both(x, y, value):
        return jnp.sum(distance(x, y, **{name: value}))

    h = 1e-6
    (up, _), (down, (_, _, slope)) = both(x, y, value + h), both(x, y, value - h)
    assert float(slope) == pytest.approx(float(up - down) / (2 * h), rel=1e-8)
    # Steps moved, or spikes left over.
    assert float(slope) == round(float(slope)) > 0
    for number in (value, 0.0, 0.5, 1.0, np.inf):
        by_x, by_y, by_value = map(np.asarray, both(x, y, number)[1])
        assert not np.any(by_x)
        assert not np.any(by_y)
        assert np.isfinite(by_value)
