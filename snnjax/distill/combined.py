"""The combination that keeps firing and predictions."""

from typing import Any

from jax import Array
from jax.typing import ArrayLike

from snnjax.distill.distributions import sorted_w2
from snnjax.distill.loss import configurable
from snnjax.distill.pairs import logits, paired_rates
from snnjax.distill.recording import Recording


@configurable
def firing(
    student: Any,
    teacher: Any,
    *,
    weight: ArrayLike = 1.0,
    paired: ArrayLike = 100.0,
    distribution: ArrayLike = 1.0,
    predictions: ArrayLike = 4.0,
) -> Array:
    r"""Keep the teacher's firing: each neuron's rates, their distribution, the logits.

    .. math:: w\, (p\, D_{paired} + d\, D_{W2} + q\, D_{logits})

    of `paired_rates`, `sorted_w2` and `logits`. The defaults need no tuning where the
    loss of the labels is a cross-entropy: the distances of firing are relative to the
    teacher's variance. They were chosen on digits, on held-out training images of
    seeds of their own. `calibrate.fire_match` after the training halved the EMD again
    there, at 0.1 points of accuracy in the median and more with some quantizers.

    Args:
        student: a recording; of ``{layer: spikes [T, B, neurons...]}`` the first two
            terms alone.
        teacher: the same of the teacher.
        weight: w.
        paired: p.
        distribution: d.
        predictions: q.
    """
    total: Array = paired_rates(student, teacher) * paired
    total = total + sorted_w2(student, teacher) * distribution
    if isinstance(student, Recording):
        total = total + logits(student, teacher) * predictions
    return total * weight
