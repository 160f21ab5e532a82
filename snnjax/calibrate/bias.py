"""Correct the bias that quantization adds to each channel's current."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax.numpy as jnp
from flax import nnx
from jax import Array

from snnjax import _checks
from snnjax.calibrate.inputs import Inputs, load_batches
from snnjax.calibrate.layerwise import (
    Unit,
    observe_batches,
    prepare,
    require_moved,
    scale_and_shift,
)
from snnjax.layers import QuantConv
from snnjax.layers.inspect import check_model
from snnjax.layers.observe import observable_layers

Model = TypeVar("Model", bound=nnx.Module)
Progress = Callable[[str, int, int], Any]


def ignore_progress(layer: str, done: int, layers: int) -> None:
    """Do nothing with the progress."""


def correct_bias(
    model: Model,
    reference: nnx.Module,
    dataset: Inputs,
    *,
    timesteps: int = 4,
    images: int = 512,
    batch_size: int = 128,
    on_layer: Progress = ignore_progress,
) -> Model:
    r"""Copy ``model`` with each channel's mean current as in the reference.

    .. math:: b_c \leftarrow b_c + \overline{I^{ref}_c} - \overline{I_c}

    layer by layer, the means over time, inputs and positions, those of ``model`` on
    what its corrected layers before give. The bias is BatchNorm's where there is one,
    and a last linear layer's own, whose output is corrected.

    Args:
        model: a quantized network of `layers`.
        reference: the network in full precision.
        dataset: the calibration set, labels unused, as of `reestimate_batchnorm`.
        timesteps: T.
        images: how many images of labelled data are taken, in full batches.
        batch_size: images of each batch of a `data.Dataset`.
        on_layer: ``on_layer(name, done, layers)``, called after each layer.

    Returns:
        The copy, in evaluation mode.

    Raises:
        ValueError: a reference of other layers, no batches or such of different
            shapes, a layer without bias or one that runs twice, or a layer and its
            neurons with a shortcut or sums of windows in between.

    Source: Li et al., `A Free Lunch From ANN: Towards Efficient, Accurate Spiking
    Neural Networks Calibration <https://arxiv.org/abs/2106.06984>`_, 2021, section 4.1.
    Differs from the paper in: it corrects what conversion to spikes adds, here it is
    what quantization adds; potentials start at rest.
    """
    batches, units = check_arguments(
        model, reference, dataset, timesteps, images, batch_size, on_layer
    )
    copy = nnx.clone(model)
    copy.eval()
    wanted = _mean_currents(reference, units, batches, timesteps)
    for done, unit in enumerate(units, start=1):
        [mean] = _mean_currents(copy, [unit], batches, timesteps)
        offset = wanted[done - 1] - mean
        see = functools.partial(_observe_first, copy, unit, batches[:1], timesteps)
        before = see() if unit.spiking else None
        scale_and_shift(copy, unit, jnp.ones_like(offset), offset)
        if before is not None:
            require_moved(unit, before[0], see()[0], before[0] + offset, before[1])
        on_layer(unit.spiking or unit.weights, done, len(units))
    return copy


def _observe_first(model, unit: Unit, batches, timesteps: int) -> tuple[Array, Array]:
    """Return each channel's mean current, and the mean magnitude of all."""
    observer = {unit.spiking or "": _mean_and_size}
    [found] = observe_batches(model, batches, observer, timesteps)
    return found[unit.spiking or ""]


def _mean_and_size(layer: Any, x: Array) -> tuple[Array, Array]:
    return _mean_channel(layer, x), jnp.mean(jnp.abs(x), dtype=jnp.float32)


def check_arguments(
    model: Any,
    reference: Any,
    dataset: Any,
    timesteps: Any,
    images: int,
    batch_size: int,
    on_layer: Any,
) -> tuple[list[Array], list[Unit]]:
    """Return the batches and the units; ValueError for what cannot be calibrated."""
    check_model(model)
    check_model(reference, "reference")
    _checks.require_whole("timesteps", timesteps, 1)
    _checks.require_callable("on_layer", on_layer, "of a layer's name, done and layers")
    batches = load_batches(dataset, images, batch_size)
    return batches, prepare(model, reference, batches[0], timesteps)


def _mean_input(layer: Any, x: Array) -> Array:
    """Average over all axes in front of those that the layer sees."""
    seen = len(layer.strides) + 1 if isinstance(layer, QuantConv) else 1
    return jnp.mean(x, tuple(range(x.ndim - seen)), dtype=jnp.float32)


def _mean_channel(layer: Any, x: Array) -> Array:
    return jnp.mean(x, tuple(range(x.ndim - 1)), dtype=jnp.float32)


def _mean_currents(
    model: nnx.Module, units: list[Unit], batches: list[Array], timesteps: int
) -> list[Array]:
    """Average each channel's current, or the output where no neurons follow."""
    observers = {
        unit.spiking or unit.weights: _mean_channel if unit.spiking else _mean_input
        for unit in units
    }
    found = observe_batches(model, batches, observers, timesteps)
    layers: dict[str, Any] = dict(observable_layers(model))
    means = []
    for unit in units:
        name = unit.spiking or unit.weights
        mean = jnp.mean(jnp.stack([each[name] for each in found]), axis=0)
        if not unit.spiking:
            # The mean output is the output of the mean input.
            layer = nnx.clone(layers[name])
            if isinstance(layer, QuantConv):
                layer.keep = None  # means of spikes are none
            out = layer(mean[None].astype(batches[0].dtype), train=False)
            if unit.norm:
                out = layers[unit.norm](out, train=False)
            mean = _mean_channel(None, out[0])
        means.append(mean)
    return means
