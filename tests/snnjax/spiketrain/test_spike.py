"""SPIKE-distance against its definition; against PySpike in tests/golden."""

import numpy as np
from scipy.integrate import trapezoid

from snnjax.spiketrain import spike


def with_auxiliary(spikes):
    """Spike times, and with those that stand in at the edges."""
    steps, times = len(spikes), np.flatnonzero(spikes) + 0.5
    if times.size < 2:
        return times, np.array([0, *times, steps])
    first, last = 2 * times[0] - times[1], 2 * times[-1] - times[-2]
    return times, np.array([min(0, first), *times, max(steps, last)])


def profile(x, y, at):
    """S_x and the interval of x at these times, which are no spike's."""
    (own, all_own), (_, all_other) = with_auxiliary(x), with_auxiliary(y)
    nearest = np.abs(all_own[:, None] - all_other).min(1)
    if own.size:  # an auxiliary spike takes after its neighbour
        nearest[[0, -1]] = nearest[[1, -2]]
    i = np.searchsorted(all_own, at)
    length = all_own[i] - all_own[i - 1]
    part = (at - all_own[i - 1]) / length
    return nearest[i - 1] * (1 - part) + nearest[i] * part, length


def test_it_is_the_mean_over_time():
    steps, tiny = 9, 1e-9
    rng = np.random.default_rng(0)
    x, y = rng.random((2, steps, 60)) < rng.random((2, 1, 60)) ** 2
    x[:, :2], y[:, 1:3] = 0, 0
    # Both ends of every half step: linear in between.
    at = np.arange(0, steps, 0.5)[:, None] + [tiny, 0.5 - tiny]
    at = at.ravel()
    expected = []
    for a, b in zip(x.T, y.T, strict=True):
        (s_a, v_a), (s_b, v_b) = profile(a, b, at), profile(b, a, at)
        values = 2 * (s_a * v_b + s_b * v_a) / (v_a + v_b) ** 2
        expected.append(trapezoid(values, at) / steps)
    np.testing.assert_allclose(spike(x, y), expected, 1e-5, 1e-7)


def test_it_is_symmetric_and_without_direction():
    x, y = np.random.default_rng(0).random((2, 9, 60)) < 0.4
    got = np.asarray(spike(x, y))
    np.testing.assert_allclose(spike(y, x), got, 1e-6)
    assert not np.any(np.asarray(spike(x, x)))
    np.testing.assert_allclose(spike(x[::-1], y[::-1]), got, 1e-5, 1e-7)
    assert np.all((got >= 0) & (got <= 1))


def test_a_spike_that_wanders_off():
    """One spike each, d steps apart: S is d, unless an edge is nearer."""
    steps, middle = 9, 4
    x = np.zeros((steps, 3))
    x[middle] = 1
    y = np.eye(steps)[:, middle : middle + 3]
    d = np.arange(3)
    # The two intervals add up to 2 t' before t' = 2 t + d, and so on.
    t = middle + 0.5
    parts = [
        (t, t + t + d),
        (d, steps - t + t + d),
        (steps - t - d, 2 * (steps - t) - d),
    ]
    expected = sum(width * 2 * d / both for width, both in parts) / steps
    np.testing.assert_allclose(spike(x, y), expected, 1e-5)
