"""Losses that compare distributions of rates: neurons may swap theirs."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from snnjax import emd
from snnjax.distill.distances import (
    LEAST_VARIANCE,
    batch_rates,
    image_rates,
    mean_of_layers,
    relative_square,
)
from snnjax.distill.loss import configurable


@configurable
def sorted_w2(student: Any, teacher: Any, *, weight: ArrayLike = 1.0) -> Array:
    r"""Compare the distributions of the neurons' rates, by squared W2 in one dimension.

    .. math:: \frac{w}{L} \sum_l \frac{\frac1n \sum_i (r_{(i)} - r^T_{(i)})^2}
              {\mathrm{Var}(r^T_i)}

    with rates over the batch and the T steps, sorted. Neurons may swap their rates at
    no cost: use it beside `paired_rates`.

    Args:
        student: a recording, or ``{layer: spikes [T, B, neurons...]}``.
        teacher: the same of the teacher.
        weight: w.
    """
    return mean_of_layers(student, teacher, "spikes", _compare_sorted) * weight


def _compare_sorted(s, t, axis, mask):
    s, t = (batch_rates(x, axis, mask) for x in (s, t))
    # The batch is in the rates already: every device has all of them.
    return relative_square(jnp.sort(s), jnp.sort(t), None)


@configurable
def soft_cdf(
    student: Any,
    teacher: Any,
    *,
    weight: ArrayLike = 1.0,
    temperature: ArrayLike = 0.02,
    points: int = 32,
) -> Array:
    r"""Compare the distribution functions of the neurons' rates, blurred.

    .. math:: \frac{w}{L} \sum_l \frac{1}{\mathrm{sd}(r^T_i)}
              \frac1K \sum_k \big(F(t_k) - F^T(t_k)\big)^2

    with `emd.soft_cdf` of the rates over the batch and the T steps. Nothing is sorted.

    Args:
        student: a recording, or ``{layer: spikes [T, B, neurons...]}``.
        teacher: the same of the teacher.
        weight: w.
        temperature: of the blur, in the unit of rates.
        points: K.
    """

    def compare(s, t, axis, mask):
        s, t = (_clip(batch_rates(x, axis, mask)) for x in (s, t))
        cdf = lambda x: emd.soft_cdf(x, points=points, temperature=temperature)  # noqa: E731
        apart = jnp.mean(jnp.square(cdf(s) - cdf(t)))
        return apart / jnp.sqrt(jnp.maximum(jnp.var(t), LEAST_VARIANCE))

    return mean_of_layers(student, teacher, "spikes", compare) * weight


def _clip(rates: Array) -> Array:
    """Cut what rounding left outside [0, 1]; the gradient is that of all others."""
    return rates + jax.lax.stop_gradient(jnp.clip(rates, 0, 1) - rates)


@configurable
def sliced_w2(
    student: Any, teacher: Any, *, weight: ArrayLike = 1.0, directions: int = 16
) -> Array:
    r"""Compare the joint distribution of the channels' rates, by sliced W2 squared.

    Each image and position is a point whose coordinates are the rates of the channels;
    the points are projected on random directions, the same at every call, and sorted.

    .. math:: \frac{w}{L} \sum_l \frac{\sum_d \langle (p_{d(j)} - p^T_{d(j)})^2 \rangle}
              {\sum_d \mathrm{Var}(p^T_{dj})}

    Args:
        student: a recording, or ``{layer: spikes [T, B, neurons...]}``.
        teacher: the same of the teacher.
        weight: w.
        directions: how many.

    Source: Bonneel et al., `Sliced and Radon Wasserstein Barycenters of Measures
    <https://doi.org/10.1007/s10851-014-0506-3>`_, 2015.
    """

    def compare(s, t, axis, mask):
        projected = []
        for x in (s, t):
            points = image_rates(x, mask)
            points = points.reshape(-1, points.shape[-1])
            shape = (points.shape[-1], directions)
            # Of a named dtype, or float64 would draw others.
            along = jax.random.normal(jax.random.key(0), shape, jnp.float32)
            along = (along / jnp.linalg.norm(along, axis=0)).astype(points.dtype)
            points = jnp.matmul(points, along, precision="highest")
            if axis is not None:
                points = jax.lax.all_gather(points, axis, axis=0, tiled=True)
            projected.append(jnp.sort(points, axis=0))
        s, t = projected
        spread = jnp.mean(jnp.square(t - jnp.mean(t, axis=0)))
        return jnp.mean(jnp.square(s - t)) / jnp.maximum(spread, LEAST_VARIANCE)

    return mean_of_layers(student, teacher, "spikes", compare) * weight
