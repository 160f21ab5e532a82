"""Convolution and linear layers whose kernels may be quantized."""

import math
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import errors, nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from snnjax import _checks, quantize
from snnjax.conv import conv2d
from snnjax.layers.observe import Observable
from snnjax.layers.variables import (
    Hyperparameters,
    LearnedScale,
    QuantState,
    check_features,
    check_rngs,
    check_sizes,
    check_spec,
    is_training,
    value_of,
)
from snnjax.quantize import LqState, QuantSpec, packing
from snnjax.quantize.lqnet import clip_weights
from snnjax.quantize.nearest import as_integer


def kaiming_normal_fan_out(key: Array, shape: tuple[int, ...], dtype: DTypeLike):
    """SpikingJelly's convolution kernels: N(0, 2 / (k * k * C_out))."""
    std = math.sqrt(2 / (math.prod(shape[:-2]) * shape[-1]))
    # Drawn flat, since XLA takes seconds to compile the draw of a small 4-D array.
    values = jax.random.normal(key, (math.prod(shape),), dtype)
    return std * values.reshape(shape)


class _Quantized(Observable):
    """A layer with a kernel ``[..., C_out]`` and perhaps a quantizer for it.

    LQ-Net's is clipped before it is encoded: the gradient of a weight is the identity
    up to the clip, and 0 beyond it.
    """

    kernel: nnx.Param
    quant: Any
    quant_scale: Any
    quant_state: Any
    use_running_average: bool  # set by .train() and .eval(), as in flax's BatchNorm

    def quantize(self, spec: QuantSpec | None, *, name: str = "the layer") -> None:
        """Put a quantizer on the kernel, or take it off (None, or method "none").

        What the method takes from the weights it takes from the kernel as it is now:
        LQ-Net's basis (from the clip's grid), a learned scale, the channels' clips.

        Warns (UserWarning) where more than 1 % of the weights are exactly 0, as in a
        pruned network, and become other levels: mid-rise, binary and DoReFa have no
        zero.

        Args:
            spec: the quantizer.
            name: of the layer, for the warning.
        """
        check_spec(spec)
        if spec is not None and spec.method == "lq_net" and not spec.signed:
            raise ValueError("lq_net's levels of weights are symmetric: signed=True")
        if spec is not None and spec.zero_point:
            raise ValueError("zero_point is for membranes; leave it out on weights")
        w = self.kernel.get_value()
        spec = None if spec is None or spec.method == "none" else spec.fit(w)
        _warn_about_zeros(name, spec, w)
        scale = spec.init_scale(w) if spec is not None and spec.learns_scale else None
        # nnx.data: each may be None now and a variable later, or the reverse.
        self.quant = nnx.data(None if spec is None else Hyperparameters(spec))
        self.quant_scale = nnx.data(None if scale is None else LearnedScale(scale))
        self.quant_state = nnx.data(None)
        if spec is not None and spec.method == "lq_net":
            bits = int(spec.bits)
            codes = spec.lq_codes
            fitted = quantize.lq_fit(
                w,
                bits=bits,
                clip=spec.clip,
                init="clip" if codes == (-1, 1) else "uniform",
                codes=codes,
            )
            self.quant_state = nnx.data(QuantState(fitted))
        elif spec is not None and spec.rounding == "stochastic":
            # The kernel's bits are its seed, so that each layer draws its own numbers.
            seed = jnp.sum(as_integer(w.astype(jnp.float32))).astype(jnp.uint32)
            first = DrawState(seed, jnp.zeros((), jnp.uint32))
            self.quant_state = nnx.data(QuantState(first))

    def share_quantizer(self, other: "_Quantized") -> None:
        """Take the quantizer of a layer that has the same kernel, and its scale.

        Each layer moves a state of its own; they start equal and see equal weights.
        """
        self.quant, self.quant_scale = other.quant, other.quant_scale
        state = other.quant_state
        copied = None if state is None else QuantState(state.get_value())
        self.quant_state = nnx.data(copied)

    def quantized_kernel(self, *, train: bool | None = None) -> Array:
        """Return the kernel as the layer uses it; training updates its state.

        The state is LQ-Net's basis, or the count of draws of stochastic rounding, which
        in evaluation rounds to the nearest.

        ``train``: None follows the mode that ``.train()`` and ``.eval()`` set.
        """
        w = self.kernel.get_value()
        if self.quant is None:
            return w
        spec = self.quant.get_value()
        if spec.rounding == "stochastic" and is_training(self, train):
            seed, count = self.quant_state.get_value()
            self._move_state(DrawState(seed, count + 1))
            return spec(w, key=jax.random.fold_in(jax.random.key(seed), count))
        if spec.method != "lq_net":
            return spec(w, value_of(self.quant_scale))
        w, state = self._clipped_kernel(spec), self._fitted()
        if is_training(self, train):
            still = jax.lax.stop_gradient(w)
            learned = quantize.lq_update(still, state, codes=spec.lq_codes)
            self._move_state(learned)
        return quantize.lq_net(w, state, codes=spec.lq_codes)

    def _move_state(self, state: Any) -> None:
        try:
            self.quant_state.set_value(state)
        except errors.TraceContextError:
            method = self.quant.get_value().method
            raise ValueError(
                "call quantized_kernel(train=True) once, in front of the loop: the "
                f"{method} quantizer moves its state once a training step, and a body "
                "of jax.lax.scan, jax.vmap or jax.checkpoint cannot; use the kernel it "
                "returns in the loop, spikes @ kernel + bias, or call the layer there "
                "with train=False"
            ) from None

    def _clipped_kernel(self, spec: QuantSpec) -> Array:
        return clip_weights(self.kernel.get_value(), spec.clip)

    def encode(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the kernel's whole-number codes and their scale.

        See `QuantSpec.encode`; LQ-Net's codes are indices of the levels that come with
        them. ``layer.quant.get_value().decode(codes, scale)`` is `quantized_kernel` in
        evaluation.

        Raises:
            ValueError: a kernel in full precision.
        """
        if self.quant is None:
            raise ValueError(
                "the kernel has no quantizer; put one on by quantize(spec)"
            )
        spec = self.quant.get_value()
        is_lq_net = spec.method == "lq_net"
        w = self._clipped_kernel(spec) if is_lq_net else self.kernel.get_value()
        return spec.encode(w, self._fitted())

    def pack(self) -> tuple[np.ndarray, dict[str, Any]] | None:
        """Return the kernel's codes in bytes, as `packing.pack_kernel` does.

        None for a kernel in full precision, or that is not finite.
        """
        w = self.kernel.get_value()
        if self.quant is None or not np.isfinite(w).all():
            return None
        return packing.pack_kernel(self.quant.get_value(), w, self._fitted())

    def _fitted(self) -> Any:
        """Return the levels of LQ-Net, or the scale where one is learned."""
        if self.quant.get_value().method == "lq_net":
            return LqState(*self.quant_state.get_value())
        return value_of(self.quant_scale)


class DrawState(NamedTuple):
    """State of stochastic rounding: step ``count`` has key ``fold_in(seed, count)``."""

    seed: Array
    count: Array


_MOST_ZEROS = 0.01  # of the weights of a layer that is not pruned


def _warn_about_zeros(name: str, spec: QuantSpec | None, w: Array) -> None:
    if spec is None or isinstance(w, jax.core.Tracer):
        return
    without = ("dorefa", "binary", "uniform")
    if spec.method not in without or spec.has_zero:
        return
    zero = np.asarray(w) == 0
    if zero.mean() <= _MOST_ZEROS:
        return
    # A channel or group of zeros stays zero: its levels are the least normal numbers.
    moved = np.abs(np.asarray(spec(w), np.float64)) > 1e-30
    share = float(np.mean(zero & moved))
    if share > _MOST_ZEROS:
        warnings.warn(
            f"{share:.0%} of the weights of {name} are 0, and the levels of "
            f"{spec.grid or spec.method} have no zero: they become the levels next to "
            'it. Use grid="mid_tread", or method "lsq" or "mint"',
            UserWarning,
            stacklevel=3,
        )


def as_sizes(
    name: str, value: int | tuple[int, ...], axes: int, least: int
) -> tuple[int, ...]:
    """Return one number for each axis; raise ValueError for any other."""
    several = isinstance(value, tuple) and len(value) == axes
    sizes: Any = tuple(value) if several else (value,) * axes
    for number in sizes:
        _checks.require_whole(name, number, least)
    return sizes


class QuantConv(_Quantized):
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
        self._show(x)
        dtype = self.dtype or x.dtype
        w = self.quantized_kernel(train=train).astype(dtype)
        return add_bias(x.astype(dtype) @ w, self.bias)


class QuantScale(_Quantized):
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
