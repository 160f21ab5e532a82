"""Convolution and linear layers whose kernels may be quantized."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from snnjax import _checks, quantize
from snnjax.conv import conv2d
from snnjax.layers.variables import (
    Hyperparameters,
    QuantState,
    check_features,
    check_rngs,
    check_sizes,
    check_spec,
    is_training,
    value_of,
)
from snnjax.quantize import LqState, QuantSpec


def kaiming_normal_fan_out(key: Array, shape: tuple[int, ...], dtype: DTypeLike):
    """SpikingJelly's convolution kernels: N(0, 2 / (k * k * C_out))."""
    std = math.sqrt(2 / (math.prod(shape[:-2]) * shape[-1]))
    # Drawn flat, since XLA takes seconds to compile the draw of a small 4-D array.
    values = jax.random.normal(key, (math.prod(shape),), dtype)
    return std * values.reshape(shape)


class _Quantized(nnx.Module):
    """A layer with a kernel ``[..., C_out]`` and perhaps a quantizer for it.

    LQ-Net's is clipped before it is encoded: the gradient of a weight is the identity
    up to the clip, and 0 beyond it.
    """

    kernel: nnx.Param
    use_running_average: bool  # set by .train() and .eval(), as in flax's BatchNorm

    def quantize(self, spec: QuantSpec | None) -> None:
        """Put a quantizer on the kernel, or take it off (None, or method "none").

        What the method takes from the weights it takes from the kernel as it is now:
        LQ-Net's basis (from the clip's grid), a learned scale, the channels' clips.
        """
        check_spec(spec)
        if spec is not None and spec.method == "lq_net" and not spec.signed:
            raise ValueError("lq_net's levels of weights are symmetric: signed=True")
        w = self.kernel.get_value()
        spec = None if spec is None or spec.method == "none" else spec.fit(w)
        scale = spec.init_scale(w) if spec is not None and spec.learns_scale else None
        # nnx.data: each may be None now and a variable later, or the reverse.
        self.quant = nnx.data(None if spec is None else Hyperparameters(spec))
        self.quant_scale = nnx.data(None if scale is None else nnx.Param(scale))
        self.quant_state = nnx.data(None)
        if spec is not None and spec.method == "lq_net":
            bits = int(spec.bits)
            fitted = quantize.lq_fit(w, bits=bits, clip=spec.clip, init="clip")
            self.quant_state = nnx.data(QuantState(fitted))

    def quantized_kernel(self, *, train: bool | None = None) -> Array:
        """Return the kernel as the layer uses it; training updates LQ-Net's basis.

        ``train``: None follows the mode that ``.train()`` and ``.eval()`` set.
        """
        w = self.kernel.get_value()
        if self.quant is None:
            return w
        spec = self.quant.get_value()
        if self.quant_state is None:
            return spec(w, value_of(self.quant_scale))
        clip = spec.clip.astype(w.dtype)
        # Not jnp.clip, which halves the gradient of a weight that lies on the clip.
        w = jnp.where(jnp.abs(w) > clip, jnp.sign(w) * clip, w)
        state = LqState(*self.quant_state.get_value())
        if is_training(self, train):
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
        spikes: the input is spikes, or sums of up to 127: kept for the backward pass as
            int8, exactly, in a quarter of the memory.
        dtype: of the computation; None is the input's.
        param_dtype: of the kernel.
        rngs: for the kernel, see `kaiming_normal_fan_out`.

    Raises:
        ValueError: sizes below 1, negative padding, no keys, or a quantizer that is no
            `QuantSpec`.
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
        spikes: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_sizes(
            in_features=in_features,
            out_features=out_features,
            kernel_size=kernel_size,
            strides=strides,
        )
        _checks.require_whole("padding", padding, 0)
        check_rngs(rngs)
        shape = (kernel_size, kernel_size, in_features, out_features)
        kernel = kaiming_normal_fan_out(rngs.params(), shape, param_dtype)
        self.kernel = nnx.Param(kernel)
        self.strides = (strides, strides)
        self.padding = ((padding, padding), (padding, padding))
        self.keep = jnp.int8 if spikes else None
        self.dtype = dtype
        self.use_running_average = False
        self.quantize(quant)

    def __call__(self, x: ArrayLike, *, train: bool | None = None) -> Array:
        """Convolve ``[..., H, W, C_in]`` to ``[..., H', W', C_out]``.

        ``train``: update LQ-Net's basis; None follows ``.train()`` and ``.eval()``.

        Raises:
            ValueError: x of another shape, or not floating point.
        """
        x = check_features(x, "H W C", self.kernel.shape[-2])
        w = self.quantized_kernel(train=train)
        dtype = self.dtype or x.dtype
        y = conv2d(
            x.reshape(-1, *x.shape[-3:]).astype(dtype),
            w.astype(dtype),
            strides=self.strides,
            padding=self.padding,
            keep=self.keep,
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
        std: of the first kernel, which is then normal, and the bias 0. None is as in
            torch: both uniform within ``1 / sqrt(C_in)``.
        rngs: for kernel and bias.

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
        std: float | None = None,
        rngs: nnx.Rngs,
    ):
        check_sizes(in_features=in_features, out_features=out_features)
        check_rngs(rngs)
        if std is not None:
            expected = "std must be at least 0 and finite"
            _checks.require_values(std, lambda x: (x >= 0) & (x < np.inf), expected)
        bound = in_features**-0.5

        def uniform(*shape):
            key, size = rngs.params(), (math.prod(shape),)
            values = jax.random.uniform(key, size, param_dtype, -bound, bound)
            return nnx.Param(values.reshape(shape))

        shape = (in_features, out_features)
        if std is None:
            self.kernel, self.bias = uniform(*shape), uniform(out_features)
        else:
            normal = jax.random.normal(rngs.params(), shape, param_dtype)
            self.kernel = nnx.Param(std * normal)
            self.bias = nnx.Param(jnp.zeros(out_features, param_dtype))
        self.dtype = dtype
        self.use_running_average = False
        self.quantize(quant)

    def __call__(self, x: ArrayLike, *, train: bool | None = None) -> Array:
        """Map ``[..., C_in]`` to ``[..., C_out]``.

        ``train``: update LQ-Net's basis; None follows ``.train()`` and ``.eval()``.

        Raises:
            ValueError: x of another shape, or not floating point.
        """
        x = check_features(x, "C", self.kernel.shape[0])
        dtype = self.dtype or x.dtype
        w = self.quantized_kernel(train=train).astype(dtype)
        return x.astype(dtype) @ w + self.bias.get_value().astype(dtype)
