import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import samples
from programs import compilations
from scipy.stats import wasserstein_distance

from snnjax import emd


def both(rates, target, temperature):
    function = jax.value_and_grad(
        lambda r: emd.soft_cdf_distance(r, target, temperature=temperature)
    )
    return jax.jit(function)(rates)


def test_soft_cdf_is_the_formula():
    rates = np.array([[0.0, 0.3], [0.3, 1.0]])
    grid = (np.arange(5) + 0.5) / 5
    expected = 1 / (1 + np.exp(-(grid[:, None] - rates.ravel()) / 0.1))
    found = emd.soft_cdf(rates, points=5, temperature=0.1)
    np.testing.assert_allclose(found, expected.mean(1), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rates", "tied"])
def test_it_tends_to_w1(kind):
    x, y = np.abs(samples(kind, 4000, 0)), np.abs(samples(kind, 3000, 1)) ** 0.7
    w1, k = wasserstein_distance(x, y), 400
    found = []
    for temperature in (0.1, 0.01, 1e-3, 1e-4):
        target = emd.soft_cdf(y, points=k, temperature=temperature)
        found.append(float(both(x, target, temperature)[0]))
        assert found[-1] <= w1 + 1 / k
    assert found[-1] == pytest.approx(w1, abs=1 / k)


@pytest.mark.parametrize("temperature", [1e-4, 0.02, 0.5])
def test_equal_rates_have_neither_distance_nor_gradient(temperature):
    for rates in (np.zeros(70), np.ones(70), np.abs(samples("tied", 70, 0))):
        rates = np.float32(rates)
        target = emd.soft_cdf(rates, points=50, temperature=temperature)
        value, slope = both(rates, target, temperature)
        assert value == 0
        assert not np.any(slope)


@pytest.mark.parametrize("temperature", [0.02, 0.1])
def test_every_tied_rate_is_pushed_towards_the_reference(temperature):
    x, y = np.zeros(100, np.float32), np.full(50, 0.25, np.float32)
    target = emd.soft_cdf(y, points=50, temperature=temperature)
    _, slope = both(x, target, temperature)
    assert np.all(slope < 0)
    assert np.ptp(slope) == 0


@pytest.mark.slow
def test_gradient_is_a_finite_difference(x64):
    rng = np.random.default_rng(0)
    x, target = rng.random(6), emd.soft_cdf(rng.random(9), points=20, temperature=0.05)
    value, slope = both(jnp.asarray(x), target, 0.05)
    h = 1e-6
    for i in range(6):
        up, down = (
            float(both(jnp.asarray(x + s * h * np.eye(6)[i]), target, 0.05)[0])
            for s in (1, -1)
        )
        assert float(slope[i]) == pytest.approx((up - down) / (2 * h), abs=1e-8)
    eager = emd.soft_cdf_distance(jnp.asarray(x), target, temperature=0.05)
    assert float(value) == pytest.approx(float(eager), rel=1e-12)


def test_temperature_is_traced():
    function = jax.jit(lambda r, c, t: emd.soft_cdf_distance(r, c, temperature=t))
    for temperature in (0.1, 0.2):
        function(np.zeros(3, np.float32), np.ones(4, np.float32), temperature)
    assert function._cache_size() == 1


def test_nan_gives_nan_inside_jit():
    assert np.isnan(both(np.array([0, np.nan]), np.ones(4), 0.1)[0])
    assert np.isnan(jax.jit(both)(np.array([0, 0.5]), np.ones(4), -0.1)[0])


def test_a_reference_that_falls_is_no_distribution_function():
    """Such as the reference's rates, which all other distances take."""
    rates = np.float32([0.4, 0.1])
    with pytest.raises(ValueError, match="reference_cdf must not fall"):
        emd.soft_cdf_distance(rates, rates, temperature=0.05)


def test_outside_jit_it_is_compiled_once():
    """Whatever the temperature, for the value and for the gradient."""
    rates = np.float32(np.linspace(0, 1, 53))
    target = emd.soft_cdf(rates, points=7, temperature=0.05)

    def both(temperature):
        function = lambda r: emd.soft_cdf_distance(r, target, temperature=temperature)  # noqa: E731
        return function(rates), jax.grad(function)(rates)

    both(0.1)
    with compilations() as made:
        for temperature in (0.2, 0.3):
            both(temperature)
    assert made == []
