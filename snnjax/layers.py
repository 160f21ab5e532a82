"""The layers of a quantized spiking network, in Flax NNX.

Convolution and BatchNorm see time and batch at once, ``[T, B, ...]`` or ``[B, ...]``;
only `Spiking` knows time. A layer's numbers (a neuron's, a quantizer's) are the value
of one `Numbers` variable, so that they are traced and not part of the graph.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from snnjax import quantize
from snnjax.neurons import SITES, Neuron
from snnjax.quantize import LqState, QuantSpec

EPSILON = 1e-5
MOMENTUM = 0.1  # torch's: the weight of the new batch (flax would say 0.9)


class Numbers(nnx.Variable):
    """A neuron's or a quantizer's numbers: traced, neither trained nor measured."""


class QuantState(nnx.Variable):
    """LQ-Net's basis, which training updates beside the gradient."""


def kaiming_normal_fan_out(key: Array, shape: tuple[int, ...], dtype: DTypeLike):
    """SpikingJelly's convolution kernels: N(0, 2 / (k * k * C_out))."""
    std = math.sqrt(2 / (math.prod(shape[:-2]) * shape[-1]))
    # Drawn flat, since XLA takes seconds to compile the draw of a small 4-D array.
    values = jax.random.normal(key, (math.prod(shape),), dtype)
    return std * values.reshape(shape)


def _checked(x: ArrayLike, axes: str, channels: int) -> Array:
    """Refuse what would broadcast, or turn kernels into integers, without a word."""
    x = jnp.asarray(x)
    rank = len(axes.split())
    if x.ndim < rank or x.shape[-1] != channels:
        raise ValueError(f"x must be [..., {axes}] with C = {channels}, got {x.shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"x must be floating point, got {x.dtype}; convert it with "
            ".astype(jnp.float32)"
        )
    return x


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


class _Quantized(nnx.Module):
    """A layer with a kernel ``[..., C_out]`` and perhaps a quantizer for it."""

    kernel: nnx.Param

    def quantize(self, spec: QuantSpec | None) -> None:
        """Put a quantizer on the kernel, or take it off (None, or method "none").

        LQ-Net's basis is fitted to the kernel as it is now, from the clip's grid.
        """
        if spec is not None and spec.method == "none":
            spec = None
        # nnx.data: either may be None now and a variable later, or the reverse.
        self.quant = nnx.data(None if spec is None else Numbers(spec))
        self.quant_state = nnx.data(None)
        if spec is not None and spec.method == "lq_net":
            w, bits = self.kernel.get_value(), int(spec.bits)
            fitted = quantize.lq_fit(w, bits=bits, clip=spec.clip, init="clip")
            self.quant_state = nnx.data(QuantState(fitted))

    def quantized_kernel(self, *, train: bool = False) -> Array:
        """The kernel as the layer uses it; with ``train`` LQ-Net's basis moves on."""
        w = self.kernel.get_value()
        if self.quant is None:
            return w
        spec = self.quant.get_value()
        if self.quant_state is None:
            return spec(w)
        clip = spec.clip.astype(w.dtype)
        w = jnp.clip(w, -clip, clip)
        state = LqState(*self.quant_state.get_value())
        if train:
            learned = quantize.lq_update(jax.lax.stop_gradient(w), state)
            self.quant_state.set_value(learned)
        return quantize.lq_net(w, state)


class QuantConv(_Quantized):
    """2-D convolution without bias, its kernel quantized if asked.

    Args:
        in_features: input channels.
        out_features: output channels.
        kernel_size: of both axes.
        strides: of both axes.
        padding: zeros on each side, as in torch.
        quant: quantizer of the kernel ``[k, k, C_in, C_out]``.
        dtype: of the computation; None is the input's.
        param_dtype: of the kernel.
        rngs: for the kernel, see `kaiming_normal_fan_out`.

    Raises:
        ValueError: sizes below 1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kernel_size: int,
        strides: int = 1,
        padding: int = 0,
        quant: QuantSpec | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        _check_sizes(
            in_features=in_features,
            out_features=out_features,
            kernel_size=kernel_size,
            strides=strides,
        )
        shape = (kernel_size, kernel_size, in_features, out_features)
        kernel = kaiming_normal_fan_out(rngs.params(), shape, param_dtype)
        self.kernel = nnx.Param(kernel)
        self.strides = (strides, strides)
        self.padding = ((padding, padding), (padding, padding))
        self.dtype = dtype
        self.quantize(quant)

    def __call__(self, x: ArrayLike, *, train: bool = False) -> Array:
        """Convolve ``[..., H, W, C_in]`` to ``[..., H', W', C_out]``.

        Raises:
            ValueError: x of another shape, or not floating point.
        """
        x = _checked(x, "H W C", self.kernel.shape[-2])
        w = self.quantized_kernel(train=train)
        dtype = self.dtype or x.dtype
        y = jax.lax.conv_general_dilated(
            x.reshape(-1, *x.shape[-3:]).astype(dtype),
            w.astype(dtype),
            self.strides,
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y.reshape(*x.shape[:-3], *y.shape[1:])


class QuantLinear(_Quantized):
    """Linear layer with bias, its kernel quantized if asked.

    Args:
        in_features: input channels.
        out_features: output channels.
        quant: quantizer of the kernel ``[C_in, C_out]``.
        dtype: of the computation; None is the input's.
        param_dtype: of kernel and bias.
        rngs: for both, uniform within ``1 / sqrt(C_in)``, as in torch.

    Raises:
        ValueError: sizes below 1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        quant: QuantSpec | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        _check_sizes(in_features=in_features, out_features=out_features)
        bound = in_features**-0.5

        def uniform(*shape):
            key, size = rngs.params(), (math.prod(shape),)
            values = jax.random.uniform(key, size, param_dtype, -bound, bound)
            return nnx.Param(values.reshape(shape))

        self.kernel = uniform(in_features, out_features)
        self.bias = uniform(out_features)
        self.dtype = dtype
        self.quantize(quant)

    def __call__(self, x: ArrayLike, *, train: bool = False) -> Array:
        """Map ``[..., C_in]`` to ``[..., C_out]``.

        Raises:
            ValueError: x of another shape, or not floating point.
        """
        x = _checked(x, "C", self.kernel.shape[0])
        dtype = self.dtype or x.dtype
        w = self.quantized_kernel(train=train).astype(dtype)
        return x.astype(dtype) @ w + self.bias.get_value().astype(dtype)


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
        _check_sizes(features=features)
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
        x = _checked(x, "C", self.scale.shape[0])
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


class Spiking(nnx.Module):
    """A layer of neurons, its membrane quantized if asked.

    Args:
        neuron: `neurons.LIF` or `neurons.IF`.
        quant: quantizer of the membrane; a method without state.
        site: ``"post_reset"``, the stored membrane, or ``"pre_fire"``, the one compared
            with the threshold.
    """

    def __init__(
        self,
        neuron: Neuron,
        *,
        quant: QuantSpec | None = None,
        site: str = "post_reset",
    ):
        self.neuron = Numbers(neuron)
        self.quantize(quant, site=site)

    def quantize(self, spec: QuantSpec | None, *, site: str = "post_reset") -> None:
        """Put a quantizer on the membrane, or take it off (None, or method "none").

        Raises:
            ValueError: LQ-Net, which has no basis for a state, or an unknown site.
        """
        if site not in SITES:
            raise ValueError(f"site must be one of {SITES}, got {site!r}")
        if spec is not None and spec.method == "none":
            spec = None
        if spec is not None and spec.method == "lq_net":
            raise ValueError(
                "LQ-Net learns levels of weights, not of a membrane; use method "
                '"uniform"'
            )
        self.quant = nnx.data(None if spec is None else Numbers(spec))
        self.site = site

    def __call__(self, x_seq: ArrayLike) -> Array:
        """Currents ``[T, B, ...]`` to spikes ``[T, B, ...]``."""
        quantizer = None if self.quant is None else self.quant.get_value()
        neuron = self.neuron.get_value()
        spikes, _ = neuron(x_seq, membrane_quantizer=quantizer, membrane_site=self.site)
        return spikes
