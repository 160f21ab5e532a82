"""Post-training rounding with error compensation, by what the membrane sees."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from snnjax import _checks
from snnjax.calibrate.batchnorm import reestimate_batchnorm
from snnjax.calibrate.bias import Progress, ignore_progress
from snnjax.calibrate.compensate import (
    round_up_to_scale,
    round_with_compensation,
)
from snnjax.calibrate.inputs import Inputs, augment_batches, load_batches
from snnjax.calibrate.layerwise import (
    Unit,
    find_quantized_units,
    find_spiking,
    observe_batches,
    take_input,
)
from snnjax.calibrate.levels import find_levels
from snnjax.layers import BatchNorm, QuantConv
from snnjax.layers.inspect import check_model
from snnjax.layers.observe import observable_layers
from snnjax.neurons.modules import find_leak

Model = TypeVar("Model", bound=nnx.Module)

# Of a convolution, for each axis: sizes, strides, padding, dilation; and its groups.
_Window = tuple[tuple, tuple, tuple, tuple, int]
METHODS = ("uniform", "lsq", "lq_net")


def osbc(
    model: Model,
    dataset: Inputs,
    *,
    timesteps: int = 4,
    images: int = 512,
    batch_size: int = 128,
    damping: float = 0.01,
    batchnorm: bool = True,
    augment: Callable[..., Any] | None = None,
    on_layer: Progress = ignore_progress,
) -> Model:
    r"""Copy ``model`` with kernels rounded so that their errors cancel in the membrane.

    A membrane sums its inputs with the neuron's leak, so the errors of a kernel's
    weights count by the second moment of the filtered inputs,

    .. math:: H = \sum_t \tilde x_t \tilde x_t^T, \quad
              \tilde x_t = \lambda \tilde x_{t-1} + x_t

    with the share :math:`\lambda` of the membrane that a step leaves. Each output
    channel is rounded to the levels of its quantizer with least
    :math:`(\hat w - w)^T H (\hat w - w)`, see `compensate.round_with_compensation`:
    never more than rounding to the nearest. In front of a BatchNorm that is
    re-estimated a channel's scale is free, see `compensate.round_up_to_scale`. Layers
    follow each other as they run, each on the spikes of the rounded ones before it. A
    layer has one :math:`\lambda`, the mean over its channels; the leaks of synaptic
    currents and readouts are left out.

    Args:
        model: a network whose kernels have quantizers (uniform, LSQ, LQ-Net), which
            hold the kernels in full precision still.
        dataset: the calibration set, labels unused, as of `reestimate_batchnorm`.
        timesteps: T.
        images: how many images of labelled data are taken, in full batches.
        batch_size: images of each batch of a `data.Dataset`.
        damping: added to H's diagonal, as a share of its mean.
        batchnorm: re-estimate BatchNorm on the same inputs, before and after.
        augment: for that, as of `reestimate_batchnorm`.
        on_layer: ``on_layer(name, done, layers)``, called after each layer.

    Returns:
        The copy, in evaluation mode, with levels as kernels and the same quantizers.

    Raises:
        ValueError: no kernel with a quantizer, or one of another method; no batches; a
            layer that runs twice.

    Source: the idea of "Optimal Spiking Brain Compression" (arXiv 2506.03996, 2025):
    the second moment of inputs filtered by the leak. Differs from the paper in: spikes
    do not reset the filter; channels descend to a minimum where no single weight can
    be rounded better.
    """
    check_model(model)
    _checks.require_whole("timesteps", timesteps, 1)
    _checks.require_callable("on_layer", on_layer, "of a layer's name, done and layers")
    _checks.require_positive("damping", damping)
    batches = load_batches(dataset, images, batch_size)
    seen = augment_batches(batches, dataset, images, batch_size, augment, batchnorm)
    copy = nnx.clone(model)
    copy.eval()
    layers: dict[str, Any] = dict(observable_layers(copy))
    units = find_quantized_units(copy, batches[0], timesteps)
    check_quantizers(layers, units, METHODS)

    def reestimate(copy):
        norms = any(isinstance(layer, BatchNorm) for layer in layers.values())
        if not batchnorm or not norms:
            return copy
        return reestimate_batchnorm(copy, seen, timesteps=timesteps)

    copy = reestimate(copy)
    for done, unit in enumerate(units, start=1):
        layer: Any = observable_layers(copy)[unit.weights]
        kernel = layer.kernel.get_value()
        rounded = np.empty(kernel.shape, np.float64)
        hessians = compute_hessians(copy, unit, batches, timesteps)
        channels = np.split(np.arange(kernel.shape[-1]), len(hessians))
        nearest = find_levels(layer)
        for hessian, own in zip(hessians, channels, strict=True):
            columns = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
            scale_is_free = batchnorm and unit.norm is not None
            find = round_up_to_scale if scale_is_free else round_with_compensation
            levels = find(
                columns[:, own],
                hessian,
                functools.partial(nearest, own),
                damping=damping,
            )
            rounded[..., own] = levels.reshape(*kernel.shape[:-1], len(own))
        layer.kernel.set_value(jnp.asarray(rounded, kernel.dtype))
        # The quantizer's own levels, to the last bit.
        layer.kernel.set_value(layer.quantized_kernel(train=False))
        on_layer(unit.weights, done, len(units))
    return reestimate(copy)


def check_quantizers(layers: Any, units: list[Unit], methods: tuple[str, ...]) -> None:
    """Raise ValueError unless a kernel has a quantizer, and all are of a method."""
    if not units:
        raise ValueError(
            "model has no kernel with a quantizer; put them on by calibrate.quantize"
        )
    for unit in units:
        method = layers[unit.weights].quant.get_value().method
        if method not in methods:
            raise ValueError(
                f"{unit.weights} has a quantizer of method {method!r}; its kernel can "
                f"be calibrated for {', '.join(methods)}"
            )


def compute_hessians(
    model: nnx.Module, unit: Unit, batches: list[Array], timesteps: int
) -> list[np.ndarray]:
    """Compute the second moment of a layer's filtered inputs, for each group.

    Returns:
        ``[n, n]`` for each group of channels, n the weights of an output channel in the
        kernel's order, mean over inputs, time and positions.
    """
    layer: Any = observable_layers(model)[unit.weights]
    leak, axes = jnp.zeros(()), len(getattr(layer, "strides", ()))
    observers: dict[str, Any] = {unit.weights: take_input}
    if unit.spiking:
        observers[unit.spiking] = lambda layer, x: jnp.zeros(x.shape[:2])
        neuron = find_spiking(model, unit).learned_neuron()
        kept = find_leak(neuron)
        leak = jnp.ones(()) if kept is None else jnp.mean(kept)
    window: _Window = ((), (), (), (), 1)
    if isinstance(layer, QuantConv):
        sizes = layer.kernel.shape[:-2]
        window = (sizes, layer.strides, layer.padding, layer.dilation, layer.groups)
    total, number = 0.0, 0
    for batch in batches:  # one after another: the inputs of all may not fit
        [found] = observe_batches(model, [batch], observers, timesteps)
        x, steps = found[unit.weights], found.get(unit.spiking or "")
        # A still image may be seen once; tokens have an axis more, as time would be.
        has_time = x.ndim > axes + 2 and steps is not None
        has_time = has_time and x.shape[:2] == steps.shape
        moments, rows = _second_moments(x, leak if has_time else None, window)
        total, number = total + np.asarray(moments, np.float64), number + int(rows)
    return list(np.asarray(total) / number)


@functools.partial(jax.jit, static_argnums=2)
def _second_moments(x, leak, window: _Window):
    axes, groups = len(window[0]), window[-1]
    x = x.astype(jnp.float32)
    if leak is not None:  # with time in front
        filter_step = lambda h, x: (leak * h + x,) * 2  # noqa: E731
        _, x = jax.lax.scan(filter_step, jnp.zeros_like(x[0]), x)
    x = x.reshape(-1, *x.shape[x.ndim - axes - 1 :])
    moments = []
    for part in jnp.split(x, groups, axis=-1):
        rows = _take_rows(part, window)
        moments.append(jnp.matmul(rows.T, rows, precision="highest"))
    return jnp.stack(moments), len(rows)


def _take_rows(x: Array, window: _Window) -> Array:
    """Return what each output is made of, ``[outputs, n]``: n in the kernel's order."""
    sizes, strides, padding, dilation, _ = window
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    spans = []  # of each axis, a slice for each of the kernel's entries
    axes = zip(x.shape[1:-1], sizes, strides, dilation, strict=True)
    for length, size, stride, gap in axes:
        last = length - gap * (size - 1)
        spans.append([slice(i, i + last, stride) for i in range(0, size * gap, gap)])
    parts = [x[:, *entry] for entry in itertools.product(*spans)]
    return jnp.concatenate(parts, axis=-1).reshape(-1, len(parts) * x.shape[-1])
