"""Scale kernels to the bounds that their quantizers have."""

from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from snnjax import _checks, _pytree
from snnjax.calibrate.inputs import Inputs, load_batches
from snnjax.calibrate.layerwise import (
    Unit,
    can_scale,
    check_feed_forward,
    find_quantized_units,
    find_spiking,
    observe_batches,
    take_input,
)
from snnjax.calibrate.osbc import check_quantizers
from snnjax.layers import Hyperparameters
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

    Use it before the other steps. Where each channel may have a bound,
    ``QuantSpec(clip="mse", per_channel=True)`` has the same levels. Statistics that are
    re-estimated afterwards are scaled without BatchNorm's constant: channels whose
    variance is about as small as that, 1e-5, change. In training with SGD a scaled
    kernel's effective learning rate is :math:`\alpha^2` times smaller.

    Args:
        model: a network whose kernels have uniform quantizers, as `quantize` puts them
            on, which hold the kernels in full precision still.
        dataset: its first batch shows how the layers follow; else as `correct_bias`.
        timesteps: T.

    Returns:
        The copy, in evaluation mode.

    Raises:
        ValueError: kernels without a uniform quantizer, with a bound that follows the
            weights, or with one for each group of them; a recurrent layer, one that
            runs twice, or two with one kernel; a BatchNorm or neurons that see more
            than what the kernel returns; no kernel whose scale is free.

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
    units = find_quantized_units(copy, batches[0], timesteps)
    free = [unit for unit in units if can_scale(copy, unit)]
    if units and not free:
        raise ValueError(
            "model must have a BatchNorm, or neurons that rest at 0, behind a kernel "
            "to take its scale; nothing does here: use calibrate.choose_clip"
        )
    check_quantizers(layers, free, ("uniform",))
    kernels = [id(getattr(layer, "kernel", None)) for layer in layers.values()]
    for unit in free:
        layer = layers[unit.weights]
        _check_bound(unit.weights, layer.quant.get_value())
        if kernels.count(id(layer.kernel)) > 1:
            raise ValueError(f"{unit.weights} must not share its kernel to be scaled")
    before = _observe_in_full_precision(copy, free, batches[:1], timesteps)
    factors = {unit.weights: _scale(copy, unit, layers) for unit in free}
    after = _observe_in_full_precision(copy, free, batches[:1], timesteps)
    for unit in free:
        behind = _name_next(unit)
        found, wanted = after[behind], before[behind] * factors[unit.weights]
        # A spike may flip by rounding; what is added in between changes all.
        if np.mean(np.abs(found - wanted)) > 1e-2 * np.mean(np.abs(wanted)):
            raise ValueError(
                f"{behind} must see what {unit.weights} returns and nothing else to "
                "take its scale; something is added or done in between"
            )
    return copy


def _observe_in_full_precision(
    model: nnx.Module, units: list[Unit], batches: list[Array], timesteps: int
) -> dict[str, np.ndarray]:
    """Return what is right behind each kernel, without the kernels' quantizers."""
    copy = nnx.clone(model)
    layers: dict[str, Any] = dict(observable_layers(copy))
    for unit in units:
        layers[unit.weights].quant = nnx.data(None)
    observers = {_name_next(unit): take_input for unit in units}
    [found] = observe_batches(copy, batches, observers, timesteps)
    return {name: np.asarray(x, np.float64) for name, x in found.items()}


def _name_next(unit: Unit) -> str:
    return unit.norm or unit.spiking or ""


def _check_bound(name: str, spec: Any) -> None:
    if spec.clip is None or spec.group_size is not None:
        kind = "that follows the weights" if spec.clip is None else "for each group"
        raise ValueError(
            f"{name} must have a given bound, as QuantSpec(clip=1.0), got one {kind}"
        )


def _scale(copy: nnx.Module, unit: Unit, layers: dict[str, Any]) -> np.ndarray:
    """Scale a unit's kernel, and what is behind it back, in place; return the scale."""
    layer = layers[unit.weights]
    kernel, spec = layer.kernel.get_value(), layer.quant.get_value()
    fitted = _pytree.replace(spec, clip=None, clip_rule="mse", per_channel=True)
    best = np.asarray(fitted.fit(kernel).clip, np.float64)
    bound = np.reshape(np.asarray(spec.bounds(kernel), np.float64), -1)
    is_zero = ~np.any(np.asarray(kernel), axis=tuple(range(kernel.ndim - 1)))
    factor = np.where(is_zero, 1.0, bound / best)
    for param in (layer.kernel, layer.bias):
        if param is not None:
            _multiply(param, factor)
    if unit.norm is None:
        spiking = find_spiking(copy, unit)
        neuron = spiking.neuron.get_value()
        threshold = np.asarray(neuron.v_threshold)
        dtype = np.promote_types(threshold.dtype, np.float32)
        threshold = jnp.asarray(threshold * factor, dtype)
        neuron = _pytree.replace(neuron, v_threshold=threshold)
        spiking.neuron = Hyperparameters(neuron)
        return factor
    norm = layers[unit.norm]
    _multiply(norm.mean, factor)
    # With the constant that BatchNorm adds, so that nothing changes; what a variance of
    # 0 cannot take goes into the scale.
    wanted = (np.asarray(norm.var.get_value(), np.float64) + EPSILON) * factor**2
    var = np.maximum(wanted - EPSILON, 0)
    norm.var.set_value(jnp.asarray(var, norm.var.get_value().dtype))
    _multiply(norm.scale, np.sqrt((var + EPSILON) / wanted))
    return factor


def _multiply(param: Any, factor: np.ndarray) -> None:
    value = param.get_value()
    param.set_value(jnp.asarray(np.asarray(value, np.float64) * factor, value.dtype))
