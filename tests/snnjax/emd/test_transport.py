import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import samples
from programs import compilations
from scipy.stats import wasserstein_distance

from snnjax import emd


@pytest.mark.slow
@pytest.mark.parametrize("function", [emd.wasserstein_1d, emd.ott_wasserstein_1d])
@pytest.mark.parametrize(("n", "m"), [(500, 500), (500, 300)])
def test_value_and_grad_has_the_functions_value(function, n, m):
    both = jax.jit(jax.value_and_grad(function))
    for kind in ("rates", "normal", "tied"):  # in the last most points coincide
        x, y = samples(kind, n, 0), samples(kind, m, 1)
        expected = wasserstein_distance(x, y)
        value, slope = both(x, y)
        assert float(value) == pytest.approx(expected, rel=1e-5)
        assert np.all(np.isfinite(slope))
    assert float(function(x, y)) == pytest.approx(float(value), rel=1e-5)
    for level in (0.0, 1.0):
        value, slope = both(np.zeros(n, np.float32), np.full(m, level, np.float32))
        assert float(value) == pytest.approx(level, rel=1e-5)
        np.testing.assert_allclose(slope, -level / n, rtol=1e-4)


@pytest.mark.slow
def test_ott_outside_jit():
    x, y = np.array([0, 1, 3]), np.array([1, 4])
    w1 = emd.ott_wasserstein_1d(x, y)
    assert (w1.shape, w1.dtype) == ((), jnp.float32)
    assert float(w1) == pytest.approx(7 / 6, rel=1e-5)
    far = np.array([2**33, 2**33 + 2**20]), np.array([0, 2**32])  # beyond int32
    assert float(emd.ott_wasserstein_1d(*far)) == pytest.approx(6.443e9, rel=1e-3)
    with pytest.raises(ValueError, match="empty"):
        emd.ott_wasserstein_1d(jnp.zeros(0), jnp.zeros(3))


@pytest.mark.slow
def test_ott_is_imported_where_it_is_used():
    code = "import sys, snnjax.emd; sys.exit('ott' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def entropic_cost(x, y, epsilon):
    """min <P, C> + epsilon KL(P | a b), by Sinkhorn's algorithm in numpy."""
    cost = np.abs(np.float64(x)[:, None] - y)
    f, g = np.zeros(len(x)), np.zeros(len(y))
    softmin = lambda z, axis: -epsilon * np.log(np.mean(np.exp(-z / epsilon), axis))  # noqa: E731
    for _ in range(3000):
        f = softmin(cost - g, 1)
        g = softmin(cost - f[:, None], 0)
    return f.mean() + g.mean()


divergence_jit = jax.jit(
    jax.value_and_grad(lambda x, y: emd.sinkhorn_divergence(x, y, epsilon=0.05))
)


@pytest.mark.slow
def test_sinkhorn_divergence_and_its_gradient_on_tied_rates():
    x, y = samples("tied", 60, 0), np.float32(samples("tied", 60, 1) + 0.25)
    x[:5], y[:5] = 0, 0  # most coincide with others, some of x with some of y

    def expected(x):
        within = entropic_cost(x, x, 0.05) + entropic_cost(y, y, 0.05)
        return entropic_cost(x, y, 0.05) - within / 2

    value, slope = divergence_jit(x, y)
    assert float(value) == pytest.approx(expected(x), abs=1e-5)
    # All of x to the right together, where |x - y| has no kink.
    h = 1e-3
    change = (expected(x + 0.1 + h) - expected(x + 0.1 - h)) / (2 * h)
    _, slope = divergence_jit(x + 0.1, y)
    assert float(np.sum(slope)) == pytest.approx(change, abs=1e-3)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_silent_and_saturated_layers_have_finite_divergences(level):
    silent, other = np.zeros(60, np.float32), np.full(60, level, np.float32)
    value, slope = divergence_jit(other, silent)
    assert float(value) == pytest.approx(level, abs=1e-5)
    np.testing.assert_allclose(slope, level / 60, atol=1e-6)


def test_equal_rates_have_no_divergence():
    x = samples("tied", 60, 0)
    value, slope = divergence_jit(x, x[::-1])
    assert abs(value) < 1e-6
    # The solver stops where a plan misses 1e-4 of all mass; here are two plans.
    assert np.abs(slope).sum() <= 2e-4


@pytest.mark.slow
def test_what_did_not_converge_is_no_number():
    x, y = samples("rates", 50, 0), samples("rates", 50, 1)
    few = dict(epsilon=1e-3, max_iterations=10)
    with pytest.raises(ValueError, match="did not converge in 10 iterations"):
        emd.transport_plan(x, y, **few)
    functions = emd.sinkhorn_divergence, emd.transport_plan
    inside = jax.jit(lambda x, y: [f(x, y, **few) for f in functions])(x, y)
    assert all(np.all(np.isnan(leaf)) for leaf in jax.tree.leaves(inside))
    slope = jax.jit(jax.grad(lambda x: emd.sinkhorn_divergence(x, y, **few)))(x)
    assert np.all(np.isnan(slope))


@pytest.mark.slow
def test_a_traced_epsilon_below_0_is_no_number():
    x, y = samples("rates", 50, 0), samples("rates", 50, 1)
    divergence = jax.jit(lambda epsilon: emd.sinkhorn_divergence(x, y, epsilon=epsilon))
    assert np.isnan(divergence(-0.1))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_epsilon_of_any_dtype_is_the_same_number(x64, dtype):
    x, y = samples("rates", 20, 0), samples("rates", 20, 1)
    expected = emd.sinkhorn_divergence(x, y, epsilon=0.25)
    for epsilon in (dtype(0.25), jnp.asarray(0.25, dtype)):
        assert emd.sinkhorn_divergence(x, y, epsilon=epsilon) == expected
        assert emd.transport_plan(x, y, epsilon=epsilon).cost > 0


@pytest.mark.slow
def test_a_second_derivative_is_refused():
    """OTT takes the potentials to be constant, and would give a wrong one."""
    x, y = samples("rates", 10, 0), samples("rates", 10, 1)
    slope = jax.grad(lambda x: emd.sinkhorn_divergence(x, y, epsilon=0.1))
    assert np.isfinite(slope(x)).all()
    with pytest.raises(NotImplementedError, match="second derivatives"):
        jax.grad(lambda x: jnp.sum(slope(x) ** 2))(x)


@pytest.mark.nightly
def test_outside_jit_it_is_compiled_once():
    x, y = samples("rates", 20, 0), samples("rates", 20, 1)

    def all_of_it(epsilon):
        divergence = lambda x: emd.sinkhorn_divergence(x, y, epsilon=epsilon)  # noqa: E731
        plan = emd.transport_plan(x, y, epsilon=epsilon)
        return divergence(x), jax.grad(divergence)(x), plan

    all_of_it(0.1)
    with compilations() as made:
        all_of_it(0.2)
    assert made == []
