"""Optimal transport by ott-jax, with a ground cost that is safe for coinciding points.

Functions import OTT themselves, because it is slow to import. Epsilon is always
explicit: OTT's default, a fraction of the standard deviation of the cost, is 0 if all
rates are equal, and makes every result NaN.
"""

import contextlib
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax._order import forbid_second_derivative
from snnjax.emd.samples import absolute_value, sample_dtype

# Entries of a cost matrix; a few matrices of 1 GB each are in memory at once.
_MAX_PAIRS = 2**28
_DANSKIN = (
    "the gradient of sinkhorn_divergence follows Danskin's theorem, which gives no "
    "second derivatives"
)


def ott_wasserstein_1d(x: ArrayLike, y: ArrayLike) -> Array:
    """Compute W1 by ott-jax's univariate solver, to cross-check `wasserstein_1d`.

    The ground cost is a custom ``|x - y|`` with gradient 0 where points coincide: under
    ``value_and_grad`` ott-jax 0.6 returns wrong values for its norm-based costs there.

    Args:
        x: samples ``[n]`` (other shapes are flattened).
        y: samples ``[m]``.

    Returns:
        W1 in the unit of ``x``, a float32 scalar (float64 for float64 samples under
        x64), within 3e-5 of the exact value up to 100,000 samples. Slower than
        `wasserstein_1d`, which is to be preferred.

    Raises:
        ValueError: empty samples; outside ``jit`` also NaN or infinity.

    Source: Cuturi et al., `OTT <https://arxiv.org/abs/2201.12324>`_, 2022.
    """
    from ott.solvers import linear

    x, y = _as_columns(x, y)
    with _allow_promotion():
        return linear.solve_univariate(_make_geometry(x, y)).ot_costs[0]


def sinkhorn_divergence(
    x: ArrayLike, y: ArrayLike, *, epsilon: ArrayLike, max_iterations: int = 5000
) -> Array:
    r"""Compute the Sinkhorn divergence between two samples on the line, by ott-jax.

    .. math:: S_\epsilon = OT_\epsilon(x, y) - \tfrac12 OT_\epsilon(x, x)
              - \tfrac12 OT_\epsilon(y, y)

    with cost ``|x - y|`` and the entropic :math:`OT_\epsilon`. It tends to W1 as
    epsilon tends to 0; at an epsilon of the size of the distance little is left of it.
    In one dimension it is a slower, biased W1: use it to compare with others' work,
    `wasserstein_1d` to measure and `soft_cdf_distance` to train.

    Gradient: by every sample (Danskin's theorem; a second derivative raises
    NotImplementedError), smooth where rates are tied; 0, up to the solver's tolerance,
    where the samples are equal.

    Args:
        x: samples ``[n]`` (other shapes are flattened).
        y: samples ``[m]``.
        epsilon: strength of the entropy, in the unit of the cost, positive.
        max_iterations: of Sinkhorn's algorithm. Small epsilons need many.

    Returns:
        A scalar in the unit of ``x``. Inside ``jit`` NaN, and so is its gradient, where
        the iteration did not converge.

    Raises:
        ValueError: empty samples, more than 16,384 of them (all pairs have to fit into
            memory), max_iterations below 1; outside ``jit`` also an epsilon that is not
            positive, NaN, infinity, no convergence. Not for inside ``shard_map``: OTT's
            loop does not vary over a mesh.

    Source: Genevay et al., `Learning Generative Models with Sinkhorn Divergences
    <https://arxiv.org/abs/1706.00292>`_, 2018.
    """
    x, y, epsilon = _prepare_samples(x, y, epsilon, max_iterations)
    divergence = _divergence(x, y, epsilon, max_iterations)
    return _require_convergence(divergence, divergence, epsilon, max_iterations)


class TransportPlan(NamedTuple):
    """An entropic coupling.

    Attributes:
        mass: ``[n, m]``, what goes from each x to each y; sums to 1.
        cost: sum of mass times ``|x - y|``, at least W1. Both up to the solver's
            tolerance, 1e-4.
    """

    mass: Array
    cost: Array


def transport_plan(
    x: ArrayLike, y: ArrayLike, *, epsilon: ArrayLike, max_iterations: int = 5000
) -> TransportPlan:
    """Compute the entropic transport plan between two samples, by ott-jax.

    A larger epsilon spreads mass over more pairs. `flow` has the
    exact coupling, by bins, and takes any number of neurons.

    Args:
        x: as of `sinkhorn_divergence`.
        y: as of `sinkhorn_divergence`.
        epsilon: as of `sinkhorn_divergence`.
        max_iterations: as of `sinkhorn_divergence`.

    Returns:
        A `TransportPlan`; inside ``jit`` NaN where the iteration did not converge.

    Raises:
        ValueError: as `sinkhorn_divergence`.
    """
    x, y, epsilon = _prepare_samples(x, y, epsilon, max_iterations)
    plan = _plan(x, y, epsilon, max_iterations)
    return _require_convergence(plan, plan.cost, epsilon, max_iterations)


def _prepare_samples(
    x: ArrayLike, y: ArrayLike, epsilon: ArrayLike, max_iterations: int
) -> tuple[Array, Array, Array]:
    _checks.require_whole("max_iterations", max_iterations, 1)
    x, y = _as_columns(x, y)
    _checks.require_positive_number("epsilon", epsilon, x.dtype)
    pairs = max(x.size, y.size) ** 2
    if pairs > _MAX_PAIRS:
        raise ValueError(
            f"Sinkhorn's algorithm needs a cost of all {pairs} pairs in memory; draw "
            f"at most {int(_MAX_PAIRS**0.5)} samples, or use wasserstein_1d"
        )
    # Of another dtype OTT's loop would change that of what it carries.
    return x, y, jnp.asarray(epsilon, x.dtype)


def _as_columns(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Convert both to ``[n, 1]`` of one dtype."""
    x, y = _checks.require_real("x", x), _checks.require_real("y", y)
    for name, a in (("x", x), ("y", y)):
        if a.size == 0:
            raise ValueError(f"{name} is empty: a distribution needs samples")
        if not isinstance(a, jax.core.Tracer) and not np.all(np.isfinite(a)):
            raise ValueError(f"{name} has NaN or infinite entries")
    # In integers OTT's quantile solver would round the mass itself to 0.
    dtype = sample_dtype(x, y)
    x, y = (jnp.ravel(jnp.asarray(a, dtype))[:, None] for a in (x, y))
    return x, y


@contextlib.contextmanager
def _allow_promotion():
    """Allow OTT, which promotes ranks and dtypes, inside JAX's strict modes."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def _make_geometry(x: Array, y: Array, **options):
    from ott.geometry import pointcloud

    return pointcloud.PointCloud(x, y, cost_fn=_make_absolute_cost(), **options)


def _solve(x, y, epsilon, max_iterations):
    """Solve by OTT; return its output, and 1 if it converged, else NaN."""
    from ott.solvers import linear

    geometry = _make_geometry(x, y, epsilon=epsilon)
    out = linear.solve(geometry, threshold=1e-4, max_iterations=max_iterations)
    valid = epsilon > 0  # a traced one is not checked
    return out, jnp.where(out.converged & valid, 1, jnp.nan).astype(x.dtype)


# Jitted as a whole: otherwise every call compiles OTT's loop.
@_allow_promotion()
@functools.partial(jax.jit, static_argnums=3)
def _compute_divergence(x, y, epsilon, max_iterations) -> Array:
    def cost(x, y):
        out, done = _solve(x, y, epsilon, max_iterations)
        return jnp.asarray(out.reg_ot_cost) * done

    return cost(x, y) - (cost(x, x) + cost(y, y)) / 2


_divergence = jax.custom_vjp(_compute_divergence, nondiff_argnums=(3,))


@_allow_promotion()
def _divergence_fwd(x, y, epsilon, max_iterations):
    by = jax.value_and_grad(_compute_divergence, (0, 1, 2))
    return by(x, y, epsilon, max_iterations)


def _divergence_bwd(max_iterations, slopes, cotangent):
    del max_iterations
    # Danskin's theorem takes the potentials to be constant.
    return tuple(
        cotangent * forbid_second_derivative(slope, _DANSKIN) for slope in slopes
    )


_divergence.defvjp(_divergence_fwd, _divergence_bwd)


@_allow_promotion()
@functools.partial(jax.jit, static_argnums=3)
def _plan(x, y, epsilon, max_iterations) -> TransportPlan:
    out, done = _solve(x, y, epsilon, max_iterations)
    return TransportPlan(out.matrix * done, jnp.asarray(out.primal_cost) * done)


def _require_convergence(result, number: Array, epsilon, max_iterations):
    """Return the result; outside ``jit`` raise ValueError if it is NaN."""
    if not isinstance(number, jax.core.Tracer) and jnp.isnan(number):
        raise ValueError(
            f"Sinkhorn's algorithm did not converge in {max_iterations} iterations at "
            f"epsilon {epsilon}; give a larger epsilon or more max_iterations"
        )
    return result


@functools.cache
def _make_absolute_cost():
    """Make OTT's translation-invariant cost |x - y|, with gradient 0 at 0."""
    from ott.geometry import costs

    @jax.tree_util.register_pytree_node_class
    class AbsoluteCost(costs.TICost):
        def h(self, z):  # pyrefly: ignore[bad-override]
            return jnp.sum(absolute_value(z))

    return AbsoluteCost()
