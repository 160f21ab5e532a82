"""BatchNorm over time and batch, with a backward pass of its own."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from snnjax.layers.variables import check_sizes, checked

EPSILON = 1e-5
MOMENTUM = 0.1  # torch's: the weight of the new batch (flax would say 0.9)


@jax.custom_vjp
def batch_norm(x: Array, scale: Array, bias: Array) -> tuple[Array, Array, Array]:
    r"""Normalise over all axes but the last, by the batch's own statistics.

    .. math:: y = \gamma (x - \mu) / \sqrt{\sigma^2 + 10^{-5}} + \beta

    With its own backward pass, which XLA turns into fewer passes over memory than what
    automatic differentiation leaves. The statistics carry no gradient.

    Args:
        x: ``[..., C]``.
        scale: ``[C]``.
        bias: ``[C]``.

    Returns:
        y ``[..., C]`` of x's dtype, mean and biased variance ``[C]``.

    Source: Ioffe and Szegedy, `Batch Normalization
    <https://arxiv.org/abs/1502.03167>`_, 2015.
    """
    return _batch_norm_fwd(x, scale, bias)[0]


def _batch_norm_fwd(x, scale, bias):
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = jnp.mean(wide, axes)
    var = jnp.mean(jnp.square(wide - mean), axes)
    inverse = jax.lax.rsqrt(var + EPSILON)
    y = (wide - mean) * (inverse * scale) + bias
    return (y.astype(x.dtype), mean, var), (x, mean, inverse, scale)


def _batch_norm_bwd(residuals, cotangents):
    x, mean, inverse, scale = residuals
    axes = tuple(range(x.ndim - 1))
    dy = cotangents[0].astype(mean.dtype)
    unit = (x.astype(mean.dtype) - mean) * inverse
    d_bias = jnp.sum(dy, axes)
    d_scale = jnp.sum(dy * unit, axes)
    n = x.size // x.shape[-1]
    dx = (inverse * scale) * (dy - d_bias / n - unit * (d_scale / n))
    return dx.astype(x.dtype), d_scale.astype(scale.dtype), d_bias.astype(scale.dtype)


batch_norm.defvjp(_batch_norm_fwd, _batch_norm_bwd)


class BatchNorm(nnx.Module):
    """BatchNorm over time, batch and positions at once, as SpikingJelly's multi-step.

    Epsilon 1e-5; running statistics move by 0.1 towards the batch's, the variance
    unbiased, as in torch.

    Args:
        features: channels.
        param_dtype: of the parameters; the statistics are float32 at least.
        scale_init: first value of the scale.

    Raises:
        ValueError: features below 1.
    """

    def __init__(
        self,
        features: int,
        *,
        param_dtype: DTypeLike = jnp.float32,
        scale_init: float = 1.0,
    ):
        check_sizes(features=features)
        self.scale = nnx.Param(jnp.full(features, scale_init, param_dtype))
        self.bias = nnx.Param(jnp.zeros(features, param_dtype))
        # Below float32 a moving average stops moving.
        dtype = jnp.promote_types(param_dtype, jnp.float32)
        self.mean = nnx.BatchStat(jnp.zeros(features, dtype))
        self.var = nnx.BatchStat(jnp.ones(features, dtype))

    def __call__(self, x: ArrayLike, *, train: bool = False, repeats: int = 1) -> Array:
        """Normalise ``[..., C]`` by the batch (train) or by the running statistics.

        ``repeats``: how often the network will see ``x``. A still image is normalised
        once, but counts T times in the unbiased variance.

        Raises:
            ValueError: training on a single value a channel; x of another shape, or
                not floating point.
        """
        x = checked(x, "C", self.scale.shape[0])
        scale, bias = self.scale.get_value(), self.bias.get_value()
        if not train:
            mean, var = self.mean.get_value(), self.var.get_value()
            factor = jax.lax.rsqrt(var + EPSILON) * scale
            return ((x - mean) * factor + bias).astype(x.dtype)
        y, mean, var = batch_norm(x, scale, bias)
        n = x.size // x.shape[-1] * repeats
        if n < 2:
            raise ValueError(
                "BatchNorm needs more than one value a channel to train, got shape "
                f"{x.shape}; use a larger batch or train=False"
            )
        for running, new in ((self.mean, mean), (self.var, var * (n / (n - 1)))):
            old = running.get_value()
            running.set_value(((1 - MOMENTUM) * old + MOMENTUM * new).astype(old.dtype))
        return y
