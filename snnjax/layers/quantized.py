"""Layers with a kernel share this: its quantizer."""

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import errors, nnx
from jax import Array

from snnjax import quantize
from snnjax.layers.observe import Observable
from snnjax.layers.variables import (
    Hyperparameters,
    LearnedScale,
    QuantState,
    check_spec,
    is_training,
    value_of,
)
from snnjax.quantize import LqState, QuantSpec, packing
from snnjax.quantize.lqnet import clip_weights
from snnjax.quantize.nearest import as_integer


class QuantizedLayer(Observable):
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
            fitted = quantize.lq_fit(
                w, bits=int(spec.bits), clip=spec.clip, codes=spec.lq_codes
            )
            self.quant_state = nnx.data(QuantState(fitted))
        elif spec is not None and spec.rounding == "stochastic":
            # The kernel's bits are its seed, so that each layer draws its own numbers.
            seed = jnp.sum(as_integer(w.astype(jnp.float32))).astype(jnp.uint32)
            first = DrawState(seed, jnp.zeros((), jnp.uint32))
            self.quant_state = nnx.data(QuantState(first))

    def share_quantizer(self, other: "QuantizedLayer") -> None:
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
        evaluation, of a kernel of narrower dtype before it is rounded to that.

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
