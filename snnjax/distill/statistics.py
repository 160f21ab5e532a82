"""Losses that need no teacher at hand: at most the rates that it was seen to have."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax.distill.distances import (
    axis_of,
    batch_rates,
    image_rates,
    mask_of,
    mean,
    relative_square,
)
from snnjax.distill.loss import Loss, configurable
from snnjax.distill.recording import Recording
from snnjax.firing import FiringCounts


@configurable
def rate_regulariser(
    student: Any,
    teacher: Any = None,
    *,
    weight: ArrayLike = 1.0,
    target: ArrayLike = 0.5,
) -> Array:
    r"""Pull each layer's mean rate towards a number; needs no teacher.

    .. math:: \frac{w}{L} \sum_l (\bar r_l - \rho)^2

    Args:
        student: a recording, or ``{layer: spikes [T, B, neurons...]}``.
        teacher: not used.
        weight: w.
        target: :math:`\rho`; a spike tells most at 0.5.

    Source: Wei et al., `Q-SNN <https://arxiv.org/abs/2406.13672>`_, 2024. Its code was
    not at hand. Differs from the paper in: the square of the distance, of the mean over
    a layer.
    """
    spikes = student.spikes if isinstance(student, Recording) else student
    axis, mask = axis_of(student), mask_of(student)
    means = [mean(image_rates(s, mask), axis) for s in spikes.values()]
    each = [jnp.square(average - target) for average in means]
    return jnp.mean(jnp.stack(each)) * weight


def match_counts(
    counts: FiringCounts,
    *,
    weight: Any = 1.0,
    paired: Any = 1.0,
    distribution: Any = 1.0,
) -> Loss:
    r"""Return a loss that pulls each neuron's rate to one that was counted.

    .. math:: \frac{w}{L} \sum_l \frac{p\, \langle (r_i - \rho_i)^2 \rangle
              + d\, \langle (r_{(i)} - \rho_{(i)})^2 \rangle}{\mathrm{Var}(\rho_i)}

    with rates r over the batch and the T steps, and :math:`\rho` those of ``counts``,
    sorted in the second term. It needs no teacher in training: only its spike counts,
    of a file or of another library's network. A batch's rates scatter about those of
    all images, so that the first term does not reach 0.

    Args:
        counts: the teacher's, of `train.evaluate`, `firing.FiringCounts.from_spikes` or
            a file of counts.
        weight: w; each number is traced, or a schedule of the step.
        paired: p.
        distribution: d.

    Raises:
        ValueError: no counts, or numbers below 0.
    """
    if not isinstance(counts, FiringCounts):
        raise ValueError(
            f"counts must be a FiringCounts, got {_checks.format_value(counts)}"
        )
    rates = {
        name: jnp.asarray(np.asarray(spikes) / counts.observations, jnp.float32)
        for name, spikes in counts.spikes.items()
    }
    loss = _compare_with_rates(weight=weight, paired=paired, distribution=distribution)
    return loss.with_arrays(rates=rates)


@configurable
def _compare_with_rates(
    student: Any,
    teacher: Any = None,
    *,
    rates: Any = None,
    weight: ArrayLike = 1.0,
    paired: ArrayLike = 1.0,
    distribution: ArrayLike = 1.0,
) -> Array:
    spikes = student.spikes if isinstance(student, Recording) else student
    if set(spikes) != set(rates) or any(
        np.shape(spikes[name])[2:] != np.shape(x) for name, x in rates.items()
    ):
        raise ValueError(
            "counts must be of the layers and neurons of the network that trains: "
            f"{_sizes(rates, 0)}, got {_sizes(spikes, 2)}"
        )
    axis, mask, each = axis_of(student), mask_of(student), []
    for name, wanted in rates.items():
        found = batch_rates(spikes[name], axis, mask)
        wanted = jnp.ravel(wanted).astype(found.dtype)
        by_neuron = relative_square(found, wanted, None)
        ordered = relative_square(jnp.sort(found), jnp.sort(wanted), None)
        each.append(paired * by_neuron + distribution * ordered)
    return jnp.mean(jnp.stack(each)) * weight


def _sizes(layers: Mapping[str, Any], first: int) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(x)[first:] for name, x in layers.items()}
