"""Distances between a student's and its teacher's firing, as losses for training.

A loss takes the recordings of two networks on the same batch and returns a scalar:
``train.fit(..., teacher=model, distill=distill.firing())`` adds it to the loss of the
labels. Called without recordings, a loss of this module returns itself with the numbers
that it is given: ``distill.paired_rates(weight=3.0)``; they are traced, so sweeping
them does not compile again. A number may also be a schedule of the step, as of optax:
``distill.firing(weight=optax.linear_schedule(0.0, 1.0, 500))``, which is compiled for.
Losses add: ``distill.firing() + distill.membrane(weight=0.1)``.
In a loop of your own, in training or not::

    student = distill.record(model, images)
    taught = distill.record(teacher, images)
    distance = distill.firing(student, taught)
    total = train.cross_entropy(student.logits, labels) + distance

Distances are relative to the teacher's own variance, layer by layer, so that a weight
means the same for every network. Any function of two recordings is a loss too; one that
reads ``membranes`` says so by an attribute, ``function.needs_membranes = True``. Where
sequences have different lengths, means are over the steps of each; a function of your
own that leaves the others out, by ``Recording.mask``, says ``function.takes_mask =
True``. Where only the spike counts of a teacher are left, `match_counts` is the loss.

A step with a teacher takes about a third more time, most of it the teacher's forward
pass; membrane potentials are computed a second time for their loss, and kept, T times
the neurons. docs/howto/preserve.md has what each loss costs.
"""

from snnjax.distill.combined import firing as firing
from snnjax.distill.distributions import sliced_w2 as sliced_w2
from snnjax.distill.distributions import soft_cdf as soft_cdf
from snnjax.distill.distributions import sorted_w2 as sorted_w2
from snnjax.distill.lesson import Lesson as Lesson
from snnjax.distill.lesson import make_lesson as make_lesson
from snnjax.distill.loss import Loss as Loss
from snnjax.distill.loss import LossSum as LossSum
from snnjax.distill.loss import as_loss as as_loss
from snnjax.distill.pairs import logits as logits
from snnjax.distill.pairs import membrane as membrane
from snnjax.distill.pairs import paired_rates as paired_rates
from snnjax.distill.recording import Recording as Recording
from snnjax.distill.recording import record as record
from snnjax.distill.statistics import match_counts as match_counts
from snnjax.distill.statistics import rate_regulariser as rate_regulariser
