import itertools

import numpy as np
import pytest

from snnjax.calibrate.compensate import (
    quadratic_error,
    round_up_to_scale,
    round_with_compensation,
)

LEVELS = np.array([-1.0, -1 / 3, 1 / 3, 1.0])


def nearest(values, row):
    return LEVELS[np.argmin(np.abs(LEVELS[:, None] - values), axis=0)]


def problem(seed, rows=5, channels=3):
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((40, 2)) @ rng.standard_normal((2, rows))
    inputs += 0.3 * rng.standard_normal(inputs.shape)
    return rng.uniform(-1, 1, (rows, channels)), inputs.T @ inputs / len(inputs)


@pytest.mark.parametrize("seed", range(20))
def test_between_the_best_of_all_choices_and_rounding(seed):
    w, hessian = problem(seed)
    found = round_with_compensation(w, hessian, nearest)
    assert np.isin(found, LEVELS).all()
    error = quadratic_error(found, w, hessian)
    plain = quadratic_error(nearest_of_all(w), w, hessian)
    every = np.array(list(itertools.product(LEVELS, repeat=len(w))))
    away = every[:, :, None] - w
    best = np.einsum("kic,ij,kjc->kc", away, hessian, away).min(axis=0)
    assert (error <= plain + 1e-12).all()
    assert (error >= best - 1e-12).all()


def test_most_channels_get_the_best_of_all_choices():
    reached, plain_reached = [], []
    for seed in range(20):
        w, hessian = problem(seed)
        every = np.array(list(itertools.product(LEVELS, repeat=len(w))))
        away = every[:, :, None] - w
        best = np.einsum("kic,ij,kjc->kc", away, hessian, away).min(axis=0)
        for rounded, kept in (
            (round_with_compensation(w, hessian, nearest), reached),
            (nearest_of_all(w), plain_reached),
        ):
            kept.append(quadratic_error(rounded, w, hessian) <= best * (1 + 1e-9))
    assert np.mean(reached) > 0.5
    assert np.mean(reached) > np.mean(plain_reached) + 0.3


def nearest_of_all(w):
    return np.stack([nearest(row, i) for i, row in enumerate(w)])


def test_the_rest_makes_up_for_a_rounded_row():
    # Only the first row is rounded; the others may be any number: then the update is
    # the least-squares solution with that row held.
    w, hessian = problem(3, rows=6)
    first = int(np.argmax(np.diag(hessian)))

    def round_one(values, row):
        return nearest(values, row) if row == first else values

    found = round_with_compensation(w, hessian, round_one, damping=1e-12)
    rest = np.arange(6) != first
    error = nearest(w[first], first) - w[first]
    moved = np.linalg.solve(hessian[np.ix_(rest, rest)], -hessian[rest][:, first])
    np.testing.assert_allclose(found[first], w[first] + error, atol=1e-12)
    expected = w[rest] + np.outer(moved, error)
    np.testing.assert_allclose(found[rest], expected, rtol=1e-6, atol=1e-8)


def test_silent_inputs_round_to_the_nearest():
    w, hessian = problem(0)
    found = round_with_compensation(w, 0 * hessian, nearest)
    np.testing.assert_array_equal(found, nearest_of_all(w))
    # Some silent, some not, and rank 1.
    hessian[0] = hessian[:, 0] = 0
    found = round_with_compensation(w, hessian, nearest)
    np.testing.assert_array_equal(found[0], nearest(w[0], 0))
    one = np.ones((5, 5))
    found = round_with_compensation(w, one, nearest)
    plain = quadratic_error(nearest_of_all(w), w, one)
    assert (quadratic_error(found, w, one) <= plain + 1e-12).all()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("size", [0.05, 0.3, 1.0])
def test_a_free_scale_is_no_worse_than_rounding_in_either_measure(seed, size):
    # Small weights: all the nearest levels are the innermost ones.
    w, hessian = problem(seed)
    w = size * w
    found, plain = round_up_to_scale(w, hessian, nearest), nearest_of_all(w)
    error, rounding = (quadratic_error(x, w, hessian) for x in (found, plain))
    assert (error <= rounding * (1 + 1e-9)).all()

    def up_to_scale(x):
        # The best scale by least squares, in the inputs' metric.
        root = np.linalg.cholesky(hessian + 1e-12 * np.eye(len(w)))
        a, b = root.T @ x, root.T @ w
        scale = np.sum(a * b, 0) / np.sum(a * a, 0)
        return np.sum((scale * a - b) ** 2, 0)

    assert (up_to_scale(found) <= up_to_scale(plain) * (1 + 1e-6) + 1e-12).all()
