r"""Smooth substitute for W1 without sorting, for training.

Each rate is blurred by a logistic distribution, so the distribution function is a sum
of sigmoids. The reference is a fixed vector, not a second network.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays, _checks
from snnjax.emd.samples import absolute_value


def soft_cdf(rates: ArrayLike, *, points: int, temperature: ArrayLike) -> Array:
    r"""Compute the distribution function of blurred rates, on a grid of [0, 1].

    .. math:: F_\tau(t_k) = \frac1n \sum_i \sigma\big((t_k - r_i) / \tau\big),
              \quad t_k = (k + \tfrac12) / K

    That of a reference network, computed once, is the target of `soft_cdf_distance`.

    Gradient: by a rate, everywhere, of width :math:`\tau` around each grid point.

    Args:
        rates: ``[n]`` (other shapes are flattened).
        points: K, the number of grid points; a static Python integer.
        temperature: :math:`\tau`, in the unit of rates, positive.

    Returns:
        ``[K]``, rising, within [0, 1].

    Raises:
        ValueError: no rates, fewer than one point; outside ``jit`` also rates that are
            NaN or beyond [0, 1], and a temperature that is not positive (inside it
            gives NaN).
    """
    _checks.require_whole("points", points, 1)
    _require_unit_interval("rates", rates)
    rates = jnp.asarray(rates)
    if rates.size == 0:
        raise ValueError("rates is empty: a distribution needs samples")
    rates = jnp.ravel(_arrays.widen(rates))
    _checks.require_positive_number("temperature", temperature, rates.dtype)
    return _soft_cdf(rates, jnp.asarray(temperature, rates.dtype), int(points))


@functools.partial(jax.jit, static_argnames="points")
def _soft_cdf(rates: Array, temperature: Array, points: int) -> Array:
    # A traced temperature is not checked.
    temperature = jnp.where(temperature > 0, temperature, jnp.nan)
    grid = (jnp.arange(points, dtype=rates.dtype) + 0.5) / points

    # One grid point at a time, rematerialized for the gradient: one pass over the rates
    # each. With all points at once XLA stores 3 K n numbers and is 14 times slower at
    # n = 1e6.
    @jax.checkpoint
    def evaluate_cdf(point):
        return jnp.mean(jax.nn.sigmoid((point - rates) / temperature))

    return jax.lax.map(evaluate_cdf, grid)


def soft_cdf_distance(
    rates: ArrayLike, reference_cdf: ArrayLike, *, temperature: ArrayLike
) -> Array:
    r"""Compute W1 between blurred rates and a fixed distribution on [0, 1].

    .. math:: D = \frac1K \sum_k |F_\tau(t_k) - F_{ref}(t_k)|

    With a reference blurred alike (`soft_cdf`, same temperature and points) it is 0 for
    the reference's own rates and never above W1 by more than 1/K; it falls below W1
    where the temperature blurs the difference away. Against an unblurred reference it
    is not 0 for equal rates and pulls them apart. Time is linear in n K, memory in n;
    nothing is sorted. Of parts of the rates on several devices the mean of their
    `soft_cdf` is that of all; the mean of their distances is not.

    Gradient: by every rate within some temperatures of a grid point at which the
    distribution functions differ, tied ones too; exactly 0 where they agree.
    Differences up to 1e-6 count as zero, because they may be rounding errors and their
    sign would push as hard as that of a drift. Do not measure with it:
    `emd_from_counts` is exact.

    Args:
        rates: ``[n]`` (other shapes are flattened), within [0, 1].
        reference_cdf: ``[K]``, the target on the grid (k + 1/2) / K.
        temperature: in the unit of rates, positive; start with 0.01 to 0.03. At 0.1
            the direction of the gradient is no longer that of W1.

    Returns:
        A scalar in the unit of rates and their precision, float32 at least. Inside
        ``jit`` NaN among the rates gives NaN, and rates beyond [0, 1] count as beyond
        the grid.

    Raises:
        ValueError: as `soft_cdf`; a reference that is no vector; outside ``jit`` also
            one that falls, as a reference's rates would where its `soft_cdf` belongs.

    >>> target = soft_cdf(jnp.array([0.1, 0.4]), points=32, temperature=0.05)
    >>> float(soft_cdf_distance(jnp.array([0.4, 0.1]), target, temperature=0.05))
    0.0
    """
    _require_unit_interval("reference_cdf", reference_cdf)
    target = jnp.asarray(reference_cdf)
    if target.ndim != 1 or target.size == 0:
        raise ValueError(f"reference_cdf must be [K], got shape {target.shape}")
    if not _checks.all_satisfy(target, lambda x: jnp.diff(x) >= -1e-6):
        raise ValueError(
            "reference_cdf must not fall: it is a distribution function, such as "
            "soft_cdf makes of the reference's rates"
        )
    soft = soft_cdf(rates, points=target.size, temperature=temperature)
    # In the target's own precision, as by standard promotion.
    dtype = _arrays.promote_dtypes(soft.dtype, target.dtype)
    apart = soft.astype(dtype) - target.astype(dtype)
    return jnp.mean(absolute_value(jnp.where(jnp.abs(apart) <= 1e-6, 0, apart)))


def _require_unit_interval(name: str, x: ArrayLike) -> None:
    x = _checks.require_real(name, x)
    if isinstance(x, jax.core.Tracer):
        return
    seen = np.asarray(x)
    # A mean of ones may round to above 1.
    if not np.all((seen >= 0) & (seen <= 1 + 1e-6)):
        raise ValueError(
            f"{name} must lie within 0..1, got {seen.min()} to {seen.max()}"
        )
