"""Distances against POT, in float64. The numbers are those of make_transport.py."""

import json
from pathlib import Path

import clouds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import emd

GOLDEN = json.loads(Path(__file__).with_name("transport.json").read_text())
SIZES = pytest.mark.parametrize(("n", "m"), clouds.SIZES)


@SIZES
@pytest.mark.parametrize("p", clouds.POWERS)
def test_powers(n, m, p, x64):
    golden = GOLDEN["powers"][f"{n} {m}"][str(p)]
    samples = clouds.rates("x", n), clouds.rates("y", m)
    weights = clouds.weights("x", n), clouds.weights("y", m)

    def inside(*arrays):
        return jax.jit(lambda *a: emd.wasserstein_p_1d(*a, p=p))(*arrays)

    for function in (lambda *a: emd.wasserstein_p_1d(*a, p=p), inside):
        assert float(function(*samples)) == pytest.approx(golden[0], rel=1e-12)
        # POT's levels, too, are sums of rounded weights.
        assert float(function(*samples, *weights)) == pytest.approx(golden[1], rel=1e-9)


def test_histogram(x64):
    p, q = clouds.histogram("p"), clouds.histogram("q")
    for function in (emd.histogram_emd, jax.jit(emd.histogram_emd)):
        assert float(function(p, q, clouds.BIN_WIDTH)) == pytest.approx(
            GOLDEN["histogram"], rel=1e-12
        )


@SIZES
def test_sliced(n, m, x64):
    x, y = clouds.cloud("x", n), clouds.cloud("y", m)
    inside = jax.jit(lambda x, y: emd.sliced(x, y, directions=clouds.directions()))
    for w1 in (emd.sliced(x, y, directions=clouds.directions()), inside(x, y)):
        assert float(w1) == pytest.approx(GOLDEN["sliced"][f"{n} {m}"], rel=1e-12)


@jax.jit
def entropic(x, y, epsilon):
    divergence = emd.sinkhorn_divergence(x, y, epsilon=epsilon)
    return divergence, emd.transport_plan(x, y, epsilon=epsilon)


@SIZES
def test_sinkhorn(n, m, x64):
    x, y = jnp.asarray(clouds.rates("x", n)), jnp.asarray(clouds.rates("y", m))
    for epsilon in clouds.EPSILONS:
        divergence, cost = GOLDEN["sinkhorn"][f"{n} {m}"][str(epsilon)]
        found, plan = entropic(x, y, epsilon)
        assert float(found) == pytest.approx(divergence, abs=1e-5)
        # The plan misses up to 1e-4 of the mass.
        assert float(plan.cost) == pytest.approx(cost, abs=1e-4)
        np.testing.assert_allclose(plan.mass.sum(1), 1 / n, atol=1e-4)
        np.testing.assert_allclose(plan.mass.sum(0), 1 / m, atol=1e-4)
