"""Van Rossum distance between exponentially filtered trains."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from snnjax import _arrays
from snnjax.spiketrain import trains
from snnjax.spiketrain.sequences import as_sequence, scan_steps


def van_rossum(x: ArrayLike, y: ArrayLike, *, tau: ArrayLike) -> Array:
    r"""Compute the Euclidean distance of exponentially filtered spike trains.

    .. math::
        D^2 = \frac{2}{\tau} \int_0^\infty f(s)^2\, ds, \quad
        f(s) = \sum_t (x_t - y_t)\, e^{-(s - t)/\tau}\, [s \ge t]

    Between two steps :math:`f` decays, so that the integral is a sum, without
    cancellation and with the tail behind the last step:

    .. math::
        f_t = e^{-1/\tau} f_{t-1} + x_t - y_t, \quad
        D^2 = (1 - e^{-2/\tau}) \sum_{t < T - 1} f_t^2 + f_{T-1}^2.

    ``tau`` is the memory: at 0 the distance is the square root of the number of spikes
    that do not coincide, at infinity the difference of the spike counts. One spike
    against none is 1, two spikes :math:`d` steps apart are
    :math:`\sqrt{2 - 2 e^{-d/\tau}}`.

    Gradient: by the spikes, for real values between 0 and 1 too, so that it flows on
    through a surrogate; and by ``tau``. Both are 0, not NaN, where the trains are
    equal. As a training signal take the square, whose gradient does not jump there (its
    second derivative is given as 0 there too, which it is not).

    Args:
        x: spikes ``[T, ...]``, 0 or 1 of any dtype.
        y: spikes of the same shape.
        tau: time constant in steps, 0 and infinity included. May be traced.

    Returns:
        One distance for each neuron, ``[...]``, without unit (the square root of a
        number of spikes); float32, or wider where a train is.

    Raises:
        ValueError: shapes that differ, T = 0; outside ``jit`` values other than 0 and
            1; tau negative or NaN (a traced one gives NaN).

    Source: van Rossum, 2001, in the normalisation of Elephant's
    ``van_rossum_distance``. Differs from the paper in: its distance is this one over
    :math:`\sqrt2`. Differs from Elephant in: at tau = 0 spikes that coincide do not
    count, which is the limit of small tau.

    >>> x, y = jnp.array([1, 0, 0, 0]), jnp.array([0, 0, 0, 0])
    >>> round(float(van_rossum(x, y, tau=2.0)), 6)
    1.0
    """
    x, y = trains.as_pair(x, y)
    return _van_rossum(
        x, y, trains.as_nonnegative("tau", tau, _arrays.compute_dtype(x, y))
    )


@jax.jit
def _van_rossum(x, y, tau):
    # Below 1/1000 of a step e^(-1/tau) is 0 even in float64, and its derivative too:
    # 1 / tau^2 would make NaN of it.
    rate = 1 / jnp.maximum(tau, 1e-3)
    lost = jnp.expm1(-rate)

    def step(carry, now):
        (f, rounding, passed), (x, y) = carry, now
        # What f loses, rather than e^(-1/tau) f, and made good for its own rounding:
        # for large tau the losses of many steps are small beside f, and all there is.
        change = lost * f + (x.astype(f.dtype) - y.astype(f.dtype)) - rounding
        new = f + change
        rounding = jax.lax.stop_gradient((new - f) - change)
        return (new, rounding, passed + f**2), None

    start = (jnp.zeros_like(x[0], tau.dtype),) * 3
    (f, _, passed), _ = scan_steps(step, start, as_sequence(x), as_sequence(y))
    squared = -jnp.expm1(-2 * rate) * passed + f**2
    # The root has no derivative at 0.
    apart = squared > 0
    root = jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)
    return trains.mask_invalid(tau, root)
