"""Re-estimate BatchNorm's statistics, with the quantizers in place."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from snnjax import layers
from snnjax.calibrate.inputs import Inputs, make_masked_batches
from snnjax.calibrate.layerwise import list_calls
from snnjax.layers.inspect import check_model
from snnjax.layers.norm import normalize_by_batch

Model = TypeVar("Model", bound=nnx.Module)


@partial(jax.jit, static_argnums=(0, 3))
def _batch_statistics(
    graphdef, state, images: Array, timesteps: int, mask: Array | None = None
) -> nnx.State:
    """Mean and variance of every BatchNorm on one batch of normalised images."""
    model = nnx.merge(graphdef, state, copy=True)
    zero = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.BatchStat))
    nnx.update(model, zero)
    layers.mask_time(model, mask)
    # All else as in evaluation: no dropout, no stochastic rounding, no new bases.
    model.eval()
    normalize_by_batch(model)
    model(images, timesteps=timesteps, train=False)
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
        _name(path)
        for path, _ in nnx.to_flat_state(nnx.state(model, nnx.BatchStat))
        if path not in own
    ]
    if others:
        raise ValueError(
            "statistics can be re-estimated for snnjax.layers.BatchNorm alone, got "
            f"others: {', '.join(others)}"
        )


def reestimate_batchnorm(
    model: Model,
    dataset: Inputs,
    *,
    timesteps: int = 4,
    images: int = 2048,
    batch_size: int = 128,
    augment: Callable[..., Any] | None = None,
    seed: int = 0,
    on_step: Callable[[], None] = lambda: None,
) -> Model:
    """Copy ``model`` and re-estimate the statistics of its BatchNorms.

    Each BatchNorm gets the mean over the batches of the batch's mean and unbiased
    variance, with the quantizers in place, of the network as it is evaluated: without
    dropout and stochastic rounding. Nothing else changes, LQ-Net's bases included.

    Args:
        model: a network that is called as `models.SEWResNet` is.
        dataset: the calibration set, of which the first images are taken; or batches of
            normalised images ``[B, H, W, C]`` or sequences ``[T, B, H, W, C]``, as
            `data.network_input` makes them, all of one shape.
        timesteps: T.
        images: how many images of labelled data are taken, in full batches.
        batch_size: images of each batch of a `data.Dataset`.
        augment: ``augment(key, images, *, part) -> images`` for labelled data, such as
            `data.augment`: a network that was trained on crops needs crops, as whole
            images have other statistics.
        seed: of the augmentation: a batch that starts with image i has the key
            ``fold_in(key(seed), i)``.
        on_step: called after each batch.

    Returns:
        The copy, in evaluation mode.

    Raises:
        ValueError: no batches, batches of different shapes, or such as give NaN;
            statistics of other layers than `layers.BatchNorm`, or of one that runs
            twice; ``augment`` with batches that are prepared already.
    """
    check_model(model)
    _check_statistics(model)
    batches = make_masked_batches(
        dataset, images=images, batch_size=batch_size, augment=augment, seed=seed
    )
    graphdef, state = nnx.split(model)
    total, number, shape, unused = None, 0, None, set()
    for batch, mask in batches:
        if shape is None:
            shape, unused = jnp.shape(batch), _find_unused(model, batch, timesteps)
        if jnp.shape(batch) != shape:
            raise ValueError(
                f"batches must all have one shape, got {shape} and then "
                f"{jnp.shape(batch)}; leave out a last one that is not full"
            )
        stats = _batch_statistics(graphdef, state, batch, timesteps, mask)
        total = stats if total is None else jax.tree.map(jnp.add, total, stats)
        number += 1
        on_step()
    if total is None:
        raise ValueError("re-estimating BatchNorm needs at least one batch")
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(total)):
        raise ValueError(
            "batches must give finite statistics, got NaN or infinity; look for them "
            "in the images and the weights"
        )
    copy = nnx.clone(model)
    copy.eval()
    found = nnx.to_flat_state(jax.tree.map(lambda x: x / number, total))
    kept = ((path, x) for path, x in found if _name(path[:-1]) not in unused)
    nnx.update(copy, nnx.from_flat_state(kept))
    return copy


def _name(path: tuple) -> str:
    return ".".join(map(str, path))


def _find_unused(model: nnx.Module, images: ArrayLike, timesteps: int) -> set[str]:
    """Return the BatchNorms that do not run; ValueError for one that runs twice."""
    calls = list_calls(model, images, timesteps, train=False)
    modules = nnx.iter_modules(model)
    norms = {_name(path) for path, m in modules if isinstance(m, layers.BatchNorm)}
    if twice := sorted(name for name in norms if calls.count(name) > 1):
        raise ValueError(
            f"model runs {', '.join(twice)} more than once, and its statistics cannot "
            "be those of each; give each place a BatchNorm of its own"
        )
    return norms - set(calls)
