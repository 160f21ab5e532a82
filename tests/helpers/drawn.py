"""Rates, counts and weights for the tests of the EMD, and W1 as a fraction."""

from fractions import Fraction

import numpy as np


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


def samples(kind, size, seed):
    rng = np.random.default_rng([size, seed])
    if kind in ("silent", "saturated"):
        return np.full(size, kind == "saturated", np.float32)
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
