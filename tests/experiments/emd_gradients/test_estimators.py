"""The measures, on losses whose gradient is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.emd_gradients import estimators
from experiments.emd_gradients.losses import LOSSES, Loss

# Knows where the drift is up and where it is down: the true gradient of W1.
TRUTH = Loss(
    "truth", lambda r, t: jnp.mean(jnp.where(r < t, -r, r)), lambda b: jnp.asarray(0.1)
)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(estimators, "DRAWS", 4)


def test_true_gradient():
    # With 4,000 steps a batch, observed rates are close to the true ones.
    found = estimators._measure_network(TRUTH, _both(TRUTH), 4000, seed=0)
    assert found["cosine"] > 0.97
    assert found["descent"] == pytest.approx(1, abs=0.05)
    assert found["gradient_noise"] < 0.3


def test_reversed_gradient_climbs():
    wrong = Loss("wrong", lambda r, t: -TRUTH.of(r, t), TRUTH.target)
    found = estimators._measure_network(wrong, _both(wrong), 4000, seed=0)
    assert found["cosine"] < -0.97
    assert found["descent"] < -0.5


def test_sorted_w1_is_exact_on_average():
    loss = LOSSES[0]
    found = estimators._measure_network(loss, _both(loss), 128, seed=0)
    assert 0.9 < found["value_over_w1"] < 1.3


def test_costs_grow_with_neurons():
    small, large = (
        estimators.measure_cost(LOSSES[1], n, runs=2) for n in (100, 100_000)
    )
    assert 0 < small["ms"] < large["ms"]
    assert small["bytes"] < large["bytes"]


def _both(loss):
    return jax.jit(jax.value_and_grad(loss.of))


def test_drift_keeps_the_order():
    rates = np.linspace(0, 1, 1001)
    moved = estimators.drift(rates)
    assert np.all(np.diff(moved) >= 0)
    assert np.any(moved < rates)
    assert np.any(moved > rates)
