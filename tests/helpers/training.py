"""Training runs of tests: by a table of learning rates, one network seen as alone."""

import jax
import numpy as np
from flax import nnx
from jax.tree_util import Partial

from snnjax import data, train


def look_up(rates, step):
    return rates[step]


def table(rates):
    """A schedule of these learning rates, which are traced; of one form up to 64."""
    rates = np.asarray(rates, np.float32)
    return Partial(look_up, np.pad(rates, (0, max(0, 64 - len(rates)))))


def alone(tree):
    """Arrays without the axis of networks, of which there is one."""
    return jax.tree.map(lambda x: x[0], tree)


def steps(
    models,
    dataset,
    rates,
    *,
    optimizer=train.sgd,
    weight_decay=5e-4,
    label_smoothing=0.0,
    augment=False,
    **options,
):
    """`train.steps` by a learning rate for each step.

    Of a single network metrics and silent layers are without the axis of networks.
    """
    loss = train.smoothed_cross_entropy(label_smoothing)
    run = train.steps(
        models,
        dataset,
        steps=len(rates),
        optimizer=optimizer(table(rates), weight_decay=weight_decay),
        loss=loss if label_smoothing else train.cross_entropy,
        augment=data.augment if augment else None,
        **options,
    )

    def each():
        for progress in run:
            if isinstance(models, nnx.Module):
                metrics, [silent] = alone(progress.metrics), progress.silent
                progress = progress._replace(metrics=metrics, silent=silent)
            yield progress

    return each()
