"""BatchNorm over time and batch, with a backward pass of its own."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from snnjax import _checks
from snnjax._axes import match_varying_axes
from snnjax._order import compute_once
from snnjax.layers.observe import Observable
from snnjax.layers.variables import check_features, check_sizes, is_training

EPSILON = 1e-5
MOMENTUM = 0.1  # torch's: the weight of the new batch (flax would say 0.9)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def statistics(
    x: Array, pivot: Array | float = 0.0, axis_name: str | None = None
) -> tuple[Array, Array]:
    """Mean and biased variance ``[C]`` over all axes of x ``[..., C]`` but the last.

    In float32 at least. Its own backward pass knows that the variance does not move
    with the mean, which automatic differentiation would sum up to find.

    With ``axis_name`` over the equal parts of x on all devices along that axis of
    `jax.shard_map`; forward and backward one all-reduce each. The variance of the
    devices' means is then a difference of squares, from ``pivot``: a number near the
    mean, the same on all devices, on which the result does not depend otherwise.
    """
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    mean = jnp.mean(wide, axes)
    var = jnp.mean(jnp.square(wide - mean), axes)
    if axis_name is None:
        return mean, var
    away = mean - pivot
    each = jnp.stack([away, jnp.square(away), var])
    away, square, within = jax.lax.pmean(each, axis_name)
    return pivot + away, within + jnp.maximum(square - jnp.square(away), 0)


def _statistics_fwd(x, pivot, axis_name):
    mean, var = statistics(x, pivot, axis_name)
    return (mean, var), (x, mean, pivot)


def _statistics_bwd(axis_name, residuals, cotangents):
    x, mean, pivot = residuals
    if axis_name is not None:
        # What the losses of all devices ask of the common mean and variance.
        cotangents = jax.lax.pmean(jnp.stack(cotangents), axis_name)
    n = x.size // x.shape[-1]
    d_mean, d_var = (d / n for d in cotangents)
    dx = (d_mean + 2 * d_var * (x.astype(mean.dtype) - mean)).astype(x.dtype)
    return dx, jnp.zeros_like(pivot)


statistics.defvjp(_statistics_fwd, _statistics_bwd)


@jax.custom_vjp
def center(x: Array) -> tuple[Array, Array, Array, Array]:
    """Subtract the mean over all axes of x ``[..., C]`` but the last.

    The difference, which the variance needs anyway, is all that the backward pass
    needs: it is the array to keep, and not x.

    Returns:
        x - mean, zeros ``[C]``, and the mean and biased variance ``[C]``. The zeros
        stand for a mean still to subtract, to which `normalize` hands its gradient.
    """
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    # Once: else XLA subtracts again in the backward pass, and keeps x for that too.
    away = compute_once(lambda mean, x: x - mean, None, mean, x)
    return away, jnp.zeros_like(mean), mean, jnp.mean(jnp.square(away), axes)


def _center_fwd(x):
    found = center(x)
    return found, found[0]


def _center_bwd(away, cotangents):
    d_away, *d_means, d_var = cotangents
    n = away.size // away.shape[-1]
    return (d_away + sum(d_means) / n + 2 * d_var / n * away,)


center.defvjp(_center_fwd, _center_bwd)


def normalize(x: Array, mean: Array, factor: Array, bias: Array) -> Array:
    """``(x - mean) * factor + bias`` for x ``[..., C]``, in x's dtype.

    Its own backward pass sums over x once for the bias and the mean.
    """
    return _normalize(*match_varying_axes(x, mean, factor, bias))


@jax.custom_vjp
def _normalize(x, mean, factor, bias):
    mean, factor, bias = (_per_channel(x, a) for a in (mean, factor, bias))
    return ((x.astype(mean.dtype) - mean) * factor + bias).astype(x.dtype)


def _per_channel(x: Array, values: Array) -> Array:
    """Return ``[C]`` with as many axes as x ``[..., C]``."""
    return values.reshape(*(1,) * (x.ndim - 1), -1)


def _normalize_fwd(x, mean, factor, bias):
    return _normalize(x, mean, factor, bias), (x, mean, factor, bias)


def _normalize_bwd(residuals, dy):
    x, mean, factor, bias = residuals
    axes = tuple(range(x.ndim - 1))
    dy = dy.astype(mean.dtype)
    d_bias = jnp.sum(dy, axes)
    d_factor = jnp.sum(dy * (x.astype(mean.dtype) - _per_channel(x, mean)), axes)
    d_mean = -factor * d_bias
    dx = (dy * _per_channel(x, factor)).astype(x.dtype)
    return dx, d_mean, d_factor.astype(factor.dtype), d_bias.astype(bias.dtype)


_normalize.defvjp(_normalize_fwd, _normalize_bwd)


def batch_norm(
    x: ArrayLike, scale: ArrayLike, bias: ArrayLike, *, axis_name: str | None = None
) -> tuple[Array, Array, Array]:
    r"""Normalise over all axes but the last, by the batch's own statistics.

    .. math:: y = \gamma (x - \mu) / \sqrt{\sigma^2 + 10^{-5}} + \beta

    Args:
        x: ``[..., C]``.
        scale: ``[C]``.
        bias: ``[C]``.
        axis_name: an axis of ``jax.shard_map(..., check_vma=False)`` along which x is
            one of equal parts: the statistics are those of all. Where the mean is r
            times the deviation, float32 loses r**2 times 1e-7 of the variance;
            `BatchNorm` counts from its running mean and does not.

    Returns:
        y ``[..., C]`` of x's dtype, mean and biased variance ``[C]``.

    Raises:
        ValueError: x not floating point or empty; scale or bias of another shape.

    Source: Ioffe and Szegedy, `Batch Normalization
    <https://arxiv.org/abs/1502.03167>`_, 2015.
    """
    x = _checks.require_floating("x", x)
    if x.ndim == 0 or x.size == 0:
        raise ValueError(f"x must be [..., C], none of them 0, got shape {x.shape}")
    scale, bias = (
        _checks.require_floating("scale", scale),
        _checks.require_floating("bias", bias),
    )
    if not scale.shape == bias.shape == x.shape[-1:]:
        raise ValueError(
            f"scale and bias must be [C] = {x.shape[-1:]}, got {scale.shape} and "
            f"{bias.shape}"
        )
    mean, var = statistics(x, axis_name=axis_name)
    factor = jax.lax.rsqrt(var + EPSILON) * scale
    return normalize(x, mean, factor, bias), mean, var


class BatchNorm(Observable):
    """BatchNorm over time, batch and positions at once, as SpikingJelly's multi-step.

    Epsilon 1e-5; running statistics move by 0.1 towards the batch's, the variance
    unbiased, as in torch.

    ``.train()`` and ``.eval()``, of the layer or of a network that holds it, set
    ``use_running_average``, as in flax: a new layer trains, while a new network of
    `snnjax.models` is in evaluation mode.

    Args:
        features: channels.
        param_dtype: of the parameters; the statistics are float32 at least.
        scale_init: first value of the scale.
        axis_name: as of `batch_norm`; `train.fit` sets it where it trains on a mesh.

    Raises:
        ValueError: features below 1.
    """

    _by_batch = False  # see `normalize_by_batch`

    def __init__(
        self,
        features: int,
        *,
        param_dtype: DTypeLike = jnp.float32,
        scale_init: float = 1.0,
        axis_name: str | None = None,
    ):
        check_sizes(features=features)
        self.scale = nnx.Param(jnp.full(features, scale_init, param_dtype))
        self.bias = nnx.Param(jnp.zeros(features, param_dtype))
        # Below float32 a moving average stops moving.
        dtype = np.promote_types(param_dtype, np.float32)
        self.mean = nnx.BatchStat(jnp.zeros(features, dtype))
        self.var = nnx.BatchStat(jnp.ones(features, dtype))
        self.axis_name = axis_name
        self.mask: Any = nnx.data(None)  # see `mask_time`
        self.use_running_average = False

    def __call__(
        self, x: ArrayLike, *, train: bool | None = None, repeats: int = 1
    ) -> Array:
        """Normalise ``[..., C]`` by the batch (train) or by the running statistics.

        ``train``: None follows ``.train()`` and ``.eval()``.
        ``repeats``: how often the network will see ``x``. A still image is normalised
        once, but counts T times in the unbiased variance.

        Raises:
            ValueError: training on a single value a channel; x of another shape, or
                not floating point.
        """
        x = check_features(x, "C", self.scale.shape[0])
        return normalize(*self.prepare(x, train=train, repeats=repeats))

    def prepare(
        self, x: Array, *, train: bool | None = None, repeats: int = 1
    ) -> tuple[Array, Array, Array, Array]:
        """Return what `normalize` takes; training moves the averages.

        For whoever wants to normalise later, where the result is needed: x, or x less
        its mean, the mean still to subtract, the factor and the bias.
        """
        self._show(x)
        scale, bias = self.scale.get_value(), self.bias.get_value()
        if not (self._by_batch or is_training(self, train)):
            wide = np.promote_types(x.dtype, self.mean.get_value().dtype)
            mean, var = (s.get_value().astype(wide) for s in (self.mean, self.var))
            return x, mean, jax.lax.rsqrt(var + EPSILON) * scale, bias
        if self.mask is not None:
            mean, var, n = self._masked_statistics(x)
            self._move(mean, var * (n / jnp.maximum(n - 1, 1)))
            return x, mean, jax.lax.rsqrt(var + EPSILON) * scale, bias
        parts = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
        n = x.size // x.shape[-1] * repeats * parts
        if n < 2:
            raise ValueError(
                "BatchNorm needs more than one value a channel to train, got shape "
                f"{x.shape}; use a larger batch, or model.eval(), or train=False"
            )
        if self.axis_name is None and x.dtype == np.promote_types(x.dtype, np.float32):
            x, left, mean, var = center(x)
        else:
            pivot = jax.lax.stop_gradient(self.mean.get_value())
            mean, var = statistics(x, pivot, self.axis_name)
            left = mean
        self._move(mean, var * (n / (n - 1)))
        return x, left, jax.lax.rsqrt(var + EPSILON) * scale, bias

    def _move(self, mean: Array, var: Array) -> None:
        """Move the running statistics towards a batch's."""
        for running, new in ((self.mean, mean), (self.var, var)):
            old = running.get_value()
            moved = (1 - MOMENTUM) * old + MOMENTUM * jax.lax.stop_gradient(new)
            running.set_value(moved.astype(old.dtype))

    def _masked_statistics(self, x: Array) -> tuple[Array, Array, Array]:
        """Return mean and variance over the steps of the mask, and their number."""
        mask = self.mask.get_value()
        if x.shape[:2] != mask.shape:
            raise ValueError(
                f"x must be [T, B, ...] of the mask's T and B, {mask.shape}, got "
                f"{x.shape}; hand sequences to BatchNorm with time and batch in front"
            )
        wide = x.astype(np.promote_types(x.dtype, np.float32))
        weight = mask.reshape(*mask.shape, *(1,) * (x.ndim - 2))
        axes = tuple(range(x.ndim - 1))
        n = self._sum(jnp.sum(mask)) * (x[0, 0].size // x.shape[-1])
        divide = lambda x: self._sum(jnp.sum(x, axes)) / n.astype(x.dtype)  # noqa: E731
        mean = divide(jnp.where(weight, wide, 0))
        away = jnp.square(wide - _per_channel(x, mean))
        return mean, divide(jnp.where(weight, away, 0)), n

    def _sum(self, x: Array) -> Array:
        """Sum over the devices that share a batch."""
        return x if self.axis_name is None else jax.lax.psum(x, self.axis_name)


class TimeMask(nnx.Variable):
    """True for the steps of each sequence, bool ``[T, B]``; not trained."""


def normalize_by_batch(model: nnx.Module) -> None:
    """Let each BatchNorm normalise by the batch, in evaluation too, in place."""
    for _, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm):
            module._by_batch = True


def mask_time(model: nnx.Module, mask: Array | None) -> None:
    """Let BatchNorm's statistics see the steps of sequences alone, not their padding.

    For a training step of your own; `train.fit` calls it where a data set has
    ``lengths``. Neurons need none: padding behind the end changes nothing before it.

    Args:
        model: changed in place.
        mask: bool ``[T, B]``, True for steps; None takes it off.

    Raises:
        ValueError: a mask of another shape or kind.
    """
    if mask is not None and (jnp.ndim(mask) != 2 or jnp.result_type(mask) != jnp.bool_):
        raise ValueError(f"mask must be bool [T, B], got {_checks.format_value(mask)}")
    for _, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm):
            module.mask = nnx.data(
                None if mask is None else TimeMask(jnp.asarray(mask))
            )
