"""Scale kernels to the bounds that their quantizers have."""

from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import _checks, _pytree
from snnjax.calibrate.inputs import Inputs, load_batches
from snnjax.calibrate.layerwise import (
    Unit,
    can_scale,
    check_feed_forward,
    find_units,
    scale_and_shift,
)
from snnjax.calibrate.osbc import check_quantizers
from snnjax.layers.inspect import check_model
from snnjax.layers.norm import EPSILON
from snnjax.layers.observe import observable_layers

Model = TypeVar("Model", bound=nnx.Module)


def scale_to_clip(model: Model, dataset: Inputs, *, timesteps: int = 4) -> Model:
    r"""Copy ``model`` with each kernel's channels scaled to the bound of its quantizer.

    Where a quantizer has one bound for all channels, given by hardware or chosen, the
    weights of some may be too small for its levels or too large. In front of a
    BatchNorm a channel's scale is free: for :math:`\alpha > 0`

    .. math:: \mathrm{BN}_{\alpha\mu,\, \alpha^2\sigma^2}(\alpha w * x)
        = \mathrm{BN}_{\mu,\, \sigma^2}(w * x)

    (with the constant that BatchNorm adds in :math:`\sigma^2`), so in full precision
    the network stays what it was, to rounding, and the levels fit its weights. For
    output channel c of a quantizer with bound m

    .. math:: \alpha_c = m / m^*_c

    with the bound :math:`m^*_c` of least squared error of the channel's weights.
    Without a BatchNorm the neurons' threshold takes the scale, for each channel, where
    they rest at 0, without another floor, and their membrane has no quantizer. Kernels
    whose scale nothing takes, as of the last layer, stay as they are.

    Use it before the other steps, and before training. Where each channel may have a
    bound, ``QuantSpec(clip="mse", per_channel=True)`` has the same levels.

    Args:
        model: a network whose kernels have uniform quantizers, as `quantize` puts them
            on, which hold the kernels in full precision still.
        dataset: one input shows the order of the layers; else as `correct_bias`.
        timesteps: T.

    Returns:
        The copy, in evaluation mode.

    Raises:
        ValueError: kernels without a uniform quantizer, with a bound that follows the
            weights, or with one for each group of them; a recurrent layer, or one that
            runs twice; no kernel whose scale is free.

    Source: the scale that a kernel hands on is that of Nagel et al., `Data-Free
    Quantization Through Weight Equalization and Bias Correction
    <https://arxiv.org/abs/1906.04721>`_, 2019, section 4.1. Differs from the paper in:
    it goes into the normalisation or the threshold right behind the kernel, not into
    the next kernel, and is chosen for the kernel alone.
    """
    check_model(model)
    check_feed_forward(model)
    _checks.require_whole("timesteps", timesteps, 1)
    batches = load_batches(dataset, 1, 1)
    copy = nnx.clone(model)
    copy.eval()
    layers: dict[str, Any] = dict(observable_layers(copy))
    units = [
        unit
        for unit in find_units(copy, batches[0], timesteps)
        if layers[unit.weights].quant is not None
    ]
    check_quantizers(layers, units, ("uniform",))
    for unit in units:
        _check_bound(unit.weights, layers[unit.weights].quant.get_value())
    free = [unit for unit in units if can_scale(copy, unit)]
    if not free:
        raise ValueError(
            "model must have a BatchNorm, or neurons that rest at 0, behind a kernel "
            "to take its scale; nothing does here: use calibrate.choose_clip"
        )
    for unit in free:
        _scale(copy, unit, layers)
    return copy


def _check_bound(name: str, spec: Any) -> None:
    if spec.clip is None or spec.group_size is not None:
        kind = "that follows the weights" if spec.clip is None else "for each group"
        raise ValueError(
            f"{name} must have a given bound, as QuantSpec(clip=1.0), got one {kind}"
        )


def _scale(copy: nnx.Module, unit: Unit, layers: dict[str, Any]) -> None:
    """Scale a unit's kernel, and what is behind it back, in place."""
    layer = layers[unit.weights]
    kernel, spec = layer.kernel.get_value(), layer.quant.get_value()
    fitted = _pytree.replace(spec, clip=None, clip_rule="mse", per_channel=True)
    best = np.asarray(fitted.fit(kernel).clip, np.float64)
    is_zero = ~np.any(np.asarray(kernel), axis=tuple(range(kernel.ndim - 1)))
    factor = np.where(is_zero, 1.0, np.asarray(spec.clip, np.float64) / best)
    for param in (layer.kernel, layer.bias):
        if param is not None:
            value = param.get_value()
            param.set_value(jnp.asarray(np.asarray(value) * factor, value.dtype))
    if unit.norm is None:
        ones = jnp.asarray(factor, kernel.dtype)
        scale_and_shift(copy, unit, 1 / ones, jnp.zeros_like(ones))
        return
    norm = layers[unit.norm]
    mean, var = norm.mean.get_value(), norm.var.get_value()
    norm.mean.set_value(jnp.asarray(np.asarray(mean) * factor, mean.dtype))
    # With the constant that BatchNorm adds, so that nothing changes.
    scaled = (np.asarray(var, np.float64) + EPSILON) * factor**2 - EPSILON
    norm.var.set_value(jnp.asarray(np.maximum(scaled, 0), var.dtype))
