"""Spike train distances against Elephant and PySpike.

The numbers are those of make_spiketrains.py. Two conventions of Elephant's are not
ours, and not among them: at tau = 0 and at infinite cost it counts spikes that coincide
as if they did not.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from snnjax import spiketrain

GOLDEN = json.loads(Path(__file__).with_name("spiketrains.json").read_text())


def compare(steps, dtype, rtol, atol):
    golden = GOLDEN[steps]
    x, y = (
        np.array([[int(s) for s in train] for train in golden[name]], dtype).T
        for name in ("x", "y")
    )
    assert x.shape == (int(steps), 27)
    for tau, expected in golden["van_rossum"].items():
        got = spiketrain.van_rossum(x, y, tau=float(tau))
        assert got.dtype == dtype
        # Elephant's square is a difference of large sums.
        squares = np.square(got), np.square(expected)
        np.testing.assert_allclose(*squares, rtol, max(atol, 1e-12 * x.size))
    for cost, expected in golden["victor_purpura"].items():
        got = spiketrain.victor_purpura(x, y, cost=float(cost))
        np.testing.assert_allclose(got, expected, rtol, atol)
    np.testing.assert_allclose(spiketrain.isi(x, y), golden["isi"], rtol, atol)
    np.testing.assert_allclose(spiketrain.spike(x, y), golden["spike"], rtol, atol)
    # Near the limits Elephant does see what coincides.
    apart = (x != y).sum(0)
    np.testing.assert_allclose(golden["van_rossum"]["0.01"], np.sqrt(apart), 1e-12)
    got = spiketrain.van_rossum(x, y, tau=0.0)
    np.testing.assert_allclose(got, np.sqrt(apart), rtol)
    np.testing.assert_array_equal(golden["victor_purpura"]["1000000.0"], apart)
    got = spiketrain.victor_purpura(x, y, cost=np.inf)
    np.testing.assert_array_equal(got, apart)


@pytest.mark.slow
@pytest.mark.parametrize("steps", ["4", "16", "200"])
def test_distances_are_elephants_and_pyspikes(x64, steps):
    compare(steps, np.float64, 1e-11, 1e-13)


@pytest.mark.parametrize("steps", ["5", "64"])
def test_in_float32_too(steps):
    compare(steps, np.float32, 2e-6, 1e-6)
