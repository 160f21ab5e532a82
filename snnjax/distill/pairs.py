"""Losses that compare image by image: logits, rates, membrane potentials."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax._arrays import mean_over_time, widen
from snnjax.distill.distances import (
    axis_of,
    image_rates,
    mask_of,
    mean,
    mean_of_layers,
    pair_parts,
    relative_square,
)
from snnjax.distill.loss import configurable
from snnjax.distill.recording import Recording


@configurable
def logits(
    student: Recording | ArrayLike,
    teacher: Recording | ArrayLike,
    *,
    weight: ArrayLike = 1.0,
    temperature: ArrayLike = 2.0,
) -> Array:
    r"""Distil the logits' mean over time.

    .. math:: w\, \theta^2\, \frac1B \sum_b
              \mathrm{KL}\big(\sigma(t_b / \theta) \,\|\, \sigma(s_b / \theta)\big)

    Args:
        student: a recording, or logits ``[T, B, classes]``.
        teacher: the same of the teacher.
        weight: w.
        temperature: :math:`\theta`.

    Source: Hinton et al., `Distilling the Knowledge in a Neural Network
    <https://arxiv.org/abs/1503.02531>`_, 2015.
    """
    s, t = pair_parts(student, teacher, "logits")
    if np.ndim(s) != 3 or np.shape(s) != np.shape(t):
        raise ValueError(
            "student and teacher must have logits [T, B, classes] of one shape, got "
            f"{np.shape(s)} and {np.shape(t)}"
        )
    axis, mask = axis_of(student), mask_of(student)
    log_s, log_t = (
        jax.nn.log_softmax(mean_over_time(x, mask) / temperature) for x in (s, t)
    )
    each = jnp.sum(jnp.exp(log_t) * (log_t - log_s), axis=-1)
    return mean(each, axis) * weight * temperature**2


@configurable
def paired_rates(student: Any, teacher: Any, *, weight: ArrayLike = 1.0) -> Array:
    r"""Compare each neuron's rate in each image with the teacher's.

    .. math:: \frac{w}{L} \sum_l \frac{\langle (r_{bi} - r^T_{bi})^2 \rangle}
              {\mathrm{Var}(r^T_{bi})}

    with means over the images and neurons of layer l, rates over the T steps.

    Args:
        student: a recording, or ``{layer: spikes [T, B, neurons...]}``.
        teacher: the same of the teacher.
        weight: w.
    """
    return mean_of_layers(student, teacher, "spikes", _compare_images) * weight


def _compare_images(s, t, axis, mask):
    s, t = (image_rates(x, mask) for x in (s, t))
    return relative_square(s, t, axis)


@configurable
def membrane(student: Any, teacher: Any, *, weight: ArrayLike = 1.0) -> Array:
    r"""Compare each neuron's membrane potential, before firing, with the teacher's.

    .. math:: \frac{w}{L} \sum_l \frac{\langle (u_{tbi} - u^T_{tbi})^2 \rangle}
              {\mathrm{Var}(u^T_{tbi})}

    Args:
        student: a recording with membranes, or ``{layer: [T, B, neurons...]}``.
        teacher: the same of the teacher.
        weight: w.

    Source: the idea of MD-SNN (arXiv 2512.04443, 2025). Its code was not at hand.
    Differs from the paper in: it is relative to the teacher's variance, in all layers.
    """
    return mean_of_layers(student, teacher, "membranes", _compare_potentials) * weight


def _compare_potentials(s, t, axis, mask):
    return relative_square(widen(s), widen(t), axis, mask)


setattr(membrane, "needs_membranes", True)  # noqa: B010
