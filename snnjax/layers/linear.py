"""Convolution and linear layers whose kernels may be quantized."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from snnjax import _checks
from snnjax.conv import conv2d
from snnjax.layers.quantized import QuantizedLayer
from snnjax.layers.variables import (
    check_features,
    check_rngs,
    check_sizes,
    is_training,
)
from snnjax.quantize import QuantSpec


def kaiming_normal_fan_out(key: Array, shape: tuple[int, ...], dtype: DTypeLike):
    """SpikingJelly's convolution kernels: N(0, 2 / (k * k * C_out))."""
    std = math.sqrt(2 / (math.prod(shape[:-2]) * shape[-1]))
    # Drawn flat, since XLA takes seconds to compile the draw of a small 4-D array.
    values = jax.random.normal(key, (math.prod(shape),), dtype)
    return std * values.reshape(shape)


def as_sizes(
    name: str, value: int | tuple[int, ...], axes: int, least: int
) -> tuple[int, ...]:
    """Return one number for each axis; raise ValueError for any other."""
    several = isinstance(value, tuple) and len(value) == axes
    sizes: Any = tuple(value) if several else (value,) * axes
    for number in sizes:
        _checks.require_whole(name, number, least)
    return sizes


class QuantConv(QuantizedLayer):
    """2-D or 1-D convolution, its kernel quantized if asked.

    Args:
        in_features: input channels.
        out_features: output channels.
        kernel_size: of both axes, or (height, width); (length,) convolves one axis.
        strides: of all axes, or of each.
        padding: zeros on each side, as in torch, of all axes, or of each.
        dilation: distance of the kernel's entries, of all axes, or of each.
        groups: output channels see only their group's input channels; ``in_features``
            groups make a depthwise convolution.
        use_bias: add a bias to each output channel, at first 0.
        quant: quantizer of the kernel ``[k, m, C_in / groups, C_out]``, or
            ``[k, C_in / groups, C_out]``.
        spikes: the input is spikes, or sums of up to 127: kept in training for the
            backward pass as int8, exactly, in a quarter of the memory. Of other inputs
            the gradients are then NaN, and outside jit an error.
        dtype: of the computation; None is the input's.
        param_dtype: of the kernel.
        rngs: for the kernel, see `kaiming_normal_fan_out`.

    Raises:
        ValueError: sizes below 1, negative padding, groups that do not divide the
            channels, no keys, or a quantizer that is no `QuantSpec`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        use_bias: bool = False,
        quant: QuantSpec | None = None,
        spikes: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_sizes(in_features=in_features, out_features=out_features, groups=groups)
        if in_features % groups or out_features % groups:
            raise ValueError(
                f"groups must divide in_features and out_features, got {groups} for "
                f"{in_features} and {out_features}"
            )
        axes = len(kernel_size) if isinstance(kernel_size, tuple) else 2
        if axes not in (1, 2):
            raise ValueError(
                "kernel_size must be one number, (height, width) or (length,), got "
                f"{kernel_size}"
            )
        sizes = as_sizes("kernel_size", kernel_size, axes, 1)
        self.strides = as_sizes("strides", strides, axes, 1)
        self.padding = tuple((n, n) for n in as_sizes("padding", padding, axes, 0))
        self.dilation = as_sizes("dilation", dilation, axes, 1)
        check_rngs(rngs)
        shape = (*sizes, in_features // groups, out_features)
        kernel = kaiming_normal_fan_out(rngs.params(), shape, param_dtype)
        self.kernel = nnx.Param(kernel)
        self.groups = groups
        bias = nnx.Param(jnp.zeros(out_features, param_dtype)) if use_bias else None
        self.bias = nnx.data(bias)
        self.keep = jnp.int8 if spikes else None
        self.dtype = dtype
        self.use_running_average = False
        self.quantize(quant)

    def __call__(self, x: ArrayLike, *, train: bool | None = None) -> Array:
        """Convolve ``[..., H, W, C_in]`` to ``[..., H', W', C_out]``.

        Of one axis, ``[..., L, C_in]`` to ``[..., L', C_out]``.
        ``train``: update LQ-Net's basis; None follows ``.train()`` and ``.eval()``.

        Raises:
            ValueError: x of another shape, or not floating point; outside jit x that
                is no spikes in a layer with ``spikes=True``.
        """
        axes = len(self.strides)
        names = "H W C" if axes == 2 else "L C"
        x = check_features(x, names, self.kernel.shape[-2] * self.groups)
        self._show(x)
        w = self.quantized_kernel(train=train)
        dtype = self.dtype or x.dtype
        # Evaluation keeps what second derivatives need.
        keep = self.keep if is_training(self, train) else None
        if self.keep is not None:
            _require_spikes(x)
        # One axis is two, of which the second has length 1.
        more: Any = (1,) * (2 - axes)
        strides: Any = (*self.strides, *more)
        padding: Any = (*self.padding, *((0, 0),) * len(more))
        dilation: Any = (*self.dilation, *more)
        y = conv2d(
            x.reshape(-1, *x.shape[-1 - axes : -1], *more, x.shape[-1]).astype(dtype),
            w.reshape(*w.shape[:axes], *more, *w.shape[axes:]).astype(dtype),
            strides=strides,
            padding=padding,
            groups=self.groups,
            dilation=dilation,
            keep=keep,
            spikes=self.keep is not None,
        )
        y = y.reshape(*x.shape[: -1 - axes], *y.shape[1 : 1 + axes], y.shape[-1])
        return add_bias(y, self.bias)


def _require_spikes(x: Array) -> None:
    is_spike = lambda x: (x == jnp.round(x)) & (jnp.abs(x) <= 127)  # noqa: E731
    if not _checks.all_satisfy(x, is_spike):
        raise ValueError(
            "x must be spikes, or whole numbers up to 127, in a convolution that was "
            "made with spikes=True; make it with spikes=False for an input of other "
            "numbers, such as an image or average-pooled spikes"
        )


def keep_inputs(model: nnx.Module) -> nnx.Module:
    """Copy ``model`` so that its convolutions have second derivatives in training too.

    They keep their inputs for the backward pass in floating point, in four times the
    memory of the int8 spikes that they keep otherwise.

    Args:
        model: any NNX model of `layers`.

    Returns:
        The copy, in the mode of ``model``.
    """
    copy = nnx.clone(model)
    for _, module in nnx.iter_modules(copy):
        if isinstance(module, QuantConv):
            module.keep = None
    return copy


def add_bias(y: Array, bias: nnx.Param | None) -> Array:
    """Add a bias ``[C]`` to ``[..., C]``, in its dtype; None adds nothing."""
    if bias is None:
        return y
    value = bias.get_value().astype(y.dtype)
    return y + value.reshape(*(1,) * (y.ndim - 1), -1)


class QuantLinear(QuantizedLayer):
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
        self._show(x)
        dtype = self.dtype or x.dtype
        w = self.quantized_kernel(train=train).astype(dtype)
        return add_bias(x.astype(dtype) @ w, self.bias)


class QuantScale(QuantizedLayer):
    """Multiply each channel by a weight of its own, quantized if asked.

    Args:
        features: channels.
        init: first weight of all channels.
        quant: quantizer of the weights ``[C, 1]``, one channel of C weights.
        param_dtype: of the weights.

    Raises:
        ValueError: features below 1, or a weight that is not finite.
    """

    def __init__(
        self,
        features: int,
        *,
        init: float = 1.0,
        quant: QuantSpec | None = None,
        param_dtype: DTypeLike = jnp.float32,
    ):
        check_sizes(features=features)
        _checks.require_finite("init", init)
        self.kernel = nnx.Param(jnp.full((features, 1), init, param_dtype))
        self.use_running_average = False
        self.quantize(quant)

    def __call__(self, x: ArrayLike, *, train: bool | None = None) -> Array:
        """Scale ``[..., C]``.

        Raises:
            ValueError: x of another shape, or not floating point.
        """
        x = check_features(x, "C", self.kernel.shape[0])
        w = self.quantized_kernel(train=train).astype(x.dtype)
        return x * w.reshape(*(1,) * (x.ndim - 1), -1)
