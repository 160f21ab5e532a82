"""Re-estimate BatchNorm's statistics, with the quantizers in place."""

from collections.abc import Iterable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks, layers
from snnjax.layers.inspect import check_model

Model = TypeVar("Model", bound=nnx.Module)


@partial(jax.jit, static_argnums=(0, 3))
def _batch_statistics(graphdef, state, images: Array, timesteps: int) -> nnx.State:
    """Mean and variance of every BatchNorm on one batch of normalised images."""
    model = nnx.merge(graphdef, state, copy=True)
    zero = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.BatchStat))
    nnx.update(model, zero)
    model(images, timesteps=timesteps, train=True)
    # From zero, one step of the moving average is its weight times the batch's value.
    return jax.tree.map(lambda x: x / layers.MOMENTUM, nnx.state(model, nnx.BatchStat))


def _check_statistics(model: nnx.Module) -> None:
    """Raise ValueError where statistics are not of `layers.BatchNorm`.

    Others move by another share of the batch's: flax's by a hundredth.
    """
    own = {
        (*path, name)
        for path, module in nnx.iter_modules(model)
        if isinstance(module, layers.BatchNorm)
        for name in ("mean", "var")
    }
    others = [
        ".".join(map(str, path))
        for path, _ in nnx.to_flat_state(nnx.state(model, nnx.BatchStat))
        if path not in own
    ]
    if others:
        raise ValueError(
            "statistics can be measured anew of snnjax.layers.BatchNorm alone, got "
            f"others: {', '.join(others)}"
        )


def reestimate_batchnorm(
    model: Model, batches: Iterable[ArrayLike], *, timesteps: int = 4
) -> Model:
    """A copy of ``model`` with BatchNorm statistics measured anew.

    Each BatchNorm gets the mean over ``batches`` of the batch's mean and unbiased
    variance, with the quantizers in place. Nothing else changes, LQ-Net's bases
    included.

    Args:
        model: a network that is called as `models.SEWResNet` is.
        batches: normalised images ``[B, H, W, C]`` or sequences ``[T, B, H, W, C]``,
            as `data.network_input` makes them, all of one shape; of a network that was
            trained on crops, crops (`data.augment`), as whole images have other
            statistics.
        timesteps: T.

    Raises:
        ValueError: no batches, batches of different shapes, or such as give NaN;
            statistics of other layers than `layers.BatchNorm`.
    """
    check_model(model)
    _check_statistics(model)
    if isinstance(batches, str) or not isinstance(batches, Iterable):
        raise ValueError(
            f"batches must be arrays of images, got {_checks.shown(batches)}"
        )
    graphdef, state = nnx.split(model)
    total, number, shape = None, 0, None
    for images in batches:
        shape = shape or jnp.shape(images)
        if jnp.shape(images) != shape:
            raise ValueError(
                f"batches must all have one shape, got {shape} and then "
                f"{jnp.shape(images)}; leave out a last one that is not full"
            )
        stats = _batch_statistics(graphdef, state, images, timesteps)
        total = stats if total is None else jax.tree.map(jnp.add, total, stats)
        number += 1
    if total is None:
        raise ValueError("re-estimating BatchNorm needs at least one batch")
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(total)):
        raise ValueError(
            "batches must give finite statistics, got NaN or infinity; look for them "
            "in the images and the weights"
        )
    copy = nnx.clone(model)
    copy.eval()
    nnx.update(copy, jax.tree.map(lambda x: x / number, total))
    return copy
