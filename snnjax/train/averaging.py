"""Averages of the weights along a training run, by any optimizer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from snnjax import _arrays
from snnjax.layers import project_scales
from snnjax.train import checks
from snnjax.train.state import Model, TrainState, model_from_state


class AverageState(NamedTuple):
    """State of `average_weights`: the optimizer's, the average, and the steps."""

    inner: Any
    average: Any
    count: Array


def average_weights(
    optimizer: optax.GradientTransformation, decay: float
) -> optax.GradientTransformation:
    r"""Return an optimizer that keeps an exponential average of the weights.

    .. math:: \bar w_k = d_k \bar w_{k-1} + (1 - d_k) w_k, \quad
        d_k = \min(d, (1 + k) / (10 + k))

    The steps are the optimizer's own. `averaged_model` reads the average.

    Args:
        optimizer: any optax transformation.
        decay: :math:`d`, in [0, 1); the mean age of the weights is ``1 / (1 - d)``
            steps.

    Raises:
        ValueError: no transformation, or a decay out of range.

    Source: Polyak and Juditsky, 1992; the rising decay is TensorFlow's.

    >>> import optax
    >>> optimizer = average_weights(optax.adam(1e-3), 0.999)
    """
    checks.check_optimizer(optimizer)
    checks.check_number(decay=decay)
    if decay >= 1:
        raise ValueError(f"decay must be below 1, got {decay}")
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> AverageState:
        # In float32 at least: below it a slow average stops moving.
        average = jax.tree.map(_arrays.widen, params)
        return AverageState(optimizer.init(params), average, jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any):
        if params is None:
            raise ValueError("params must be given: the average is of the weights")
        updates, inner = optimizer.update(updates, state.inner, params, **extra)
        count = state.count + 1
        updated = count.astype(float)
        rising = (1 + updated) / (10 + updated)
        share = 1 - jnp.minimum(decay, rising)
        # As the training step does behind this.
        new = project_scales(params, optax.apply_updates(params, updates))
        average = jax.tree.map(
            lambda old, w: old + share.astype(old.dtype) * (w.astype(old.dtype) - old),
            state.average,
            new,
        )
        return updates, AverageState(inner, average, count)

    return optax.GradientTransformationExtraArgs(init, update)


def averaged_model(model: Model, state: TrainState, index: int = 0) -> Model:
    """Return the network of a state with the averaged weights.

    BatchNorm's statistics are those of the last weights: re-estimate them, see
    `calibrate.reestimate_batchnorm`.

    Args:
        model: any network of that structure; it stays as it is.
        state: of a training run by `average_weights`.
        index: place among the networks of the state.

    Raises:
        ValueError: the optimizer of the state kept no average, or as
            `model_from_state`.
    """
    kept = state.opt_state
    if not isinstance(kept, AverageState):
        raise ValueError(
            "state must be of an optimizer that average_weights made, got one with "
            f"{type(kept).__name__}"
        )
    average = jax.tree.map(
        lambda mean, w: mean.astype(w.dtype), kept.average, state.params
    )
    return model_from_state(model, state._replace(params=average), index)
