"""Losses of logits over time, and the loss function for training loops of one's own."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax._arrays import mean_over_time
from snnjax.layers import mask_time
from snnjax.layers.inspect import check_model
from snnjax.train import checks

Loss = Callable[[Array, Array], Array]


def cross_entropy(
    logits: Array,
    labels: ArrayLike,
    *,
    label_smoothing: float = 0.0,
    mask: Array | None = None,
) -> Array:
    r"""Return the mean cross-entropy of the logits' mean over time.

    .. math:: -\frac{1}{B} \sum_b \sum_c q_{bc} \log \mathrm{softmax}(\bar z_b)_c

    with the one-hot label, smoothed: ``(1 - s) * onehot + s / classes``.

    Args:
        logits: ``[T, B, classes]``.
        labels: whole numbers ``[B]``.
        label_smoothing: share s in [0, 1) that is spread evenly over all classes.
        mask: bool ``[T, B]``, True for the steps of each sequence, of which alone the
            mean is taken; None is all.

    Raises:
        ValueError: label smoothing outside [0, 1); logits or labels of other shapes;
            outside ``jit``, labels that are no classes.

    Source: Szegedy et al., `Rethinking the Inception Architecture
    <https://arxiv.org/abs/1512.00567>`_, 2016, section 7.
    """
    _check_smoothing(label_smoothing)
    _check_classes(logits, labels)
    logits = mean_over_time(logits, mask)
    if not label_smoothing:
        each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    else:
        onehot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        smooth = optax.smooth_labels(onehot, label_smoothing)
        each = optax.softmax_cross_entropy(logits, smooth)
    return jnp.mean(each)


@functools.cache
def smoothed_cross_entropy(label_smoothing: float) -> Loss:
    """Return `cross_entropy` with that smoothing, one function for equal numbers.

    A step is compiled for each loss function, so a sweep makes one of each.

    Raises:
        ValueError: label smoothing outside [0, 1).
    """
    _check_smoothing(label_smoothing)
    return functools.partial(cross_entropy, label_smoothing=label_smoothing)


def _check_classes(logits: Array, labels: ArrayLike) -> None:
    """Raise ValueError where losses would broadcast, or take a label for another."""
    shape = np.shape(logits)
    if len(shape) != 3:
        raise ValueError(f"logits must be [T, B, classes], got shape {shape}")
    found = labels if isinstance(labels, Array) else np.asarray(labels)
    if found.shape != shape[1:2] or not jnp.issubdtype(found.dtype, jnp.integer):
        raise ValueError(
            f"labels must be integers [B] of the {shape[1]} images, got {found.dtype} "
            f"{list(found.shape)}"
        )
    expected = f"labels must be classes from 0 to {shape[2] - 1}"
    _checks.require_values(found, lambda x: (x >= 0) & (x < shape[2]), expected)


def _check_smoothing(label_smoothing: Any) -> None:
    checks.check_number(label_smoothing=label_smoothing)
    if label_smoothing >= 1:
        raise ValueError(f"label_smoothing must be below 1, got {label_smoothing}")


# No argument is by keyword alone: transformations of nnx refuse such functions.
def loss_fn(
    model: nnx.Module,
    images: ArrayLike,
    labels: ArrayLike,
    timesteps: int = 4,
    loss: Loss = cross_entropy,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Return loss and logits of a batch, for ``nnx.value_and_grad(..., has_aux=True)``.

    ``functools.partial(loss_fn, timesteps=8)`` sets the options there.

    Args:
        model: a network in training mode, after ``model.train()``; its BatchNorm
            statistics move.
        images: floats ``[B, H, W, C]``, see `data.normalize`, or a sequence
            ``[T, B, ...]``.
        labels: whole numbers ``[B]``.
        timesteps: T.
        loss: of (logits ``[T, B, classes]``, labels).
        mask: bool ``[T, B]``, True for the steps of each sequence, behind which padding
            counts neither in BatchNorm's statistics nor in the loss, which takes
            ``mask``; None is all.

    Returns:
        The loss, and the mean of the logits over time ``[B, classes]``.

    Raises:
        ValueError: the network is in evaluation mode: BatchNorm would normalise by
            statistics that never move, and the network would learn badly in silence.
    """
    check_model(model)
    _checks.require_callable("loss", loss)
    if is_evaluating(model):
        raise ValueError(
            "model must be in training mode, got one in evaluation mode, whose "
            "BatchNorm statistics stay as they are; call model.train() before the "
            "loop, and model.eval() after it"
        )
    known = None if mask is None else jnp.asarray(mask)
    check_mask_argument(loss, known is not None)
    if known is not None:
        mask_time(model, known)
    logits, _ = model(images, timesteps=timesteps, record=lambda spikes: ())
    more = {}
    if known is not None:
        mask_time(model, None)
        more["mask"] = known
    return loss(logits, jnp.asarray(labels), **more), mean_over_time(logits, known)


def check_mask_argument(loss: Loss, masked: bool) -> None:
    """Raise ValueError unless a loss of padded sequences takes their mask."""
    if masked and "mask" not in inspect.signature(loss).parameters:
        raise ValueError(
            "loss must take mask=..., bool [T, B], for sequences of different lengths: "
            "it is True for their steps, and padding must not count; "
            "train.cross_entropy takes it"
        )


def is_evaluating(model: nnx.Module) -> bool:
    """Return True if all layers of ``model`` use running averages, as after `eval()`.

    A few of them may: BatchNorm that is frozen on purpose.
    """
    modes = [
        module.use_running_average
        for _, module in nnx.iter_modules(model)
        if hasattr(module, "use_running_average")
    ]
    return bool(modes) and all(modes)
