"""ISI-distance against its definition; against PySpike in tests/golden."""

import numpy as np
import pytest

from snnjax.spiketrain import isi


def interval(spikes, t, steps):
    """Between the spikes around t, by the conventions, one case after the other."""
    times = np.flatnonzero(spikes) + 0.5
    if times.size == 0:
        return steps
    before, behind = times[times < t], times[times > t]
    if before.size == 0:
        return max([times[0], *np.diff(times)[:1]])
    if behind.size == 0:
        return max([steps - times[-1], *np.diff(times)[-1:]])
    return behind[0] - before[-1]


def test_it_is_the_mean_over_time():
    steps, rng = 9, np.random.default_rng(0)
    x, y = rng.random((2, steps, 60)) < rng.random((2, 1, 60)) ** 2
    x[:, :2], y[:, 1:3] = 0, 0
    at = np.arange(0.25, steps, 0.5)  # twice in a cell, once in those at the edges
    expected = []
    for a, b in zip(x.T, y.T, strict=True):
        pairs = [(interval(a, t, steps), interval(b, t, steps)) for t in at]
        expected.append(np.mean([abs(p - q) / max(p, q) for p, q in pairs]))
    np.testing.assert_allclose(isi(x, y), expected, 1e-5, 1e-7)


@pytest.mark.slow
def test_it_sees_rates_and_neither_shifts_nor_direction():
    x, y = np.random.default_rng(0).random((2, 9, 60)) < 0.4
    got = np.asarray(isi(x, y))
    np.testing.assert_allclose(isi(y, x), got, 1e-6)
    assert not np.any(np.asarray(isi(x, x)))
    np.testing.assert_allclose(isi(x[::-1], y[::-1]), got, 1e-5)
    assert np.all((got >= 0) & (got < 1))
    # Every other step, from the first or the second on: the same rate.
    even, odd = np.arange(9) % 2 == 0, np.arange(9) % 2 == 1
    a, b = np.stack([even, even | odd], 1), np.stack([odd, even], 1)
    np.testing.assert_allclose(isi(a, b), [0, 0.5], 1e-6)
