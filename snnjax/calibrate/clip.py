"""Choose the bounds of weight quantizers by what they do to weights or to firing."""

import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from snnjax import _checks, _pytree
from snnjax.calibrate.bias import Progress, check_arguments, ignore_progress
from snnjax.calibrate.fire import measure_firing
from snnjax.calibrate.inputs import Inputs
from snnjax.calibrate.layerwise import (
    find_spiking,
    observe_batches,
    require_rest,
    take_input,
)
from snnjax.calibrate.membranes import choose_membrane, find_membranes
from snnjax.calibrate.osbc import check_quantizers
from snnjax.layers import Hyperparameters
from snnjax.layers.observe import observable_layers
from snnjax.quantize import QuantSpec
from snnjax.quantize.nearest import round_up_to_multiple
from snnjax.quantize.uniform import count_parts

Model = TypeVar("Model", bound=nnx.Module)

MEASURES = ("mse", "kl", "firing")
_CANDIDATES = tuple(k / 20 for k in range(2, 21))  # of the largest magnitude
_BINS = 64


def choose_clip(
    model: Model,
    reference: nnx.Module,
    dataset: Inputs,
    *,
    by: str = "firing",
    membranes: str | None = None,
    timesteps: int = 4,
    images: int = 512,
    batch_size: int = 128,
    on_layer: Progress = ignore_progress,
) -> Model:
    """Copy ``model`` and choose the bounds of its uniform quantizers.

    Of bounds from a tenth of a kernel's largest magnitude up to all of it, the one of
    least

    - ``"mse"``: squared error of the weights;
    - ``"kl"``: Kullback-Leibler divergence from the currents of the reference to those
      of the candidate, by histograms of 64 bins within four deviations;
    - ``"firing"``: paired shift plus W1 of the rates that the candidate causes, beside
      the reference's, as `fire_match` measures them.

    Layers follow each other as they run, each on the spikes of those before it.
    Currents are normalised by their own statistics, as after `reestimate_batchnorm`,
    which is to follow. A quantizer ``per_channel`` gets a bound for each channel. A
    layer without neurons behind it is chosen by ``"mse"``.

    Membranes stay as they are unless ``membranes`` is given: then a uniform or LSQ
    quantizer on them gets the bound, from a quarter of the threshold up to the largest
    potential, of least squared error of the potentials (``"mse"``), or of least
    measure of the firing, with the currents of the copy; LSQ learns from it.

    Args:
        model: a network whose kernels have uniform quantizers.
        reference: the network in full precision.
        dataset: the calibration set, labels unused, as of `reestimate_batchnorm`.
        by: the measure.
        membranes: ``"layer"``, one bound for a layer of neurons, or ``"channel"``, one
            for each channel.
        timesteps: T.
        images: how many images of labelled data are taken, in full batches.
        batch_size: images of each batch of a `data.Dataset`.
        on_layer: ``on_layer(name, done, layers)``, called after each layer.

    Returns:
        The copy, in evaluation mode.

    Raises:
        ValueError: another measure; kernels without a uniform quantizer, or with a
            bound for each group of weights; by firing, neurons that begin elsewhere
            than at rest; else as `correct_bias`.
    """
    _checks.require_one_of("by", by, MEASURES)
    if membranes is not None:
        _checks.require_one_of("membranes", membranes, ("layer", "channel"))
        if by == "kl":
            raise ValueError('by must be "mse" or "firing" for membranes, got "kl"')
    batches, units = check_arguments(
        model, reference, dataset, timesteps, images, batch_size, on_layer
    )
    if by == "firing" or membranes is not None:
        require_rest((model, reference), batches[0], timesteps)
    copy = nnx.clone(model)
    copy.eval()
    layers: dict[str, Any] = dict(observable_layers(copy))
    kernels = [unit for unit in units if layers[unit.weights].quant is not None]
    potentials = [] if membranes is None else find_membranes(copy, units)
    if kernels or not potentials:
        check_quantizers(layers, kernels, ("uniform",))
    units = [unit for unit in units if unit in kernels or unit in potentials]
    for done, unit in enumerate(units, start=1):
        if unit in kernels:
            _choose_kernel(copy, reference, unit, batches, by, timesteps)
        if unit in potentials:
            choose_membrane(copy, reference, unit, batches, by, membranes, timesteps)
        on_layer(unit.weights, done, len(units))
    return copy


def _choose_kernel(copy, reference, unit, batches, by, timesteps):
    """Put the best bound on a unit's kernel, in place."""
    layers: dict[str, Any] = dict(observable_layers(copy))
    layer = layers[unit.weights]
    spec = layer.quant.get_value()
    if spec.group_size is not None:
        raise ValueError(
            f"{unit.weights} has a bound for each group of {spec.group_size} "
            "weights; a bound can be chosen for a kernel or a channel"
        )
    w = layer.kernel.get_value()
    if by == "mse" or unit.spiking is None:
        unfitted = _pytree.replace(spec, clip=None, clip_rule="mse")
        clip = unfitted.fit(w).clip
    else:
        theirs = observe_batches(
            reference, batches, {unit.spiking: take_input}, timesteps
        )
        inputs = observe_batches(copy, batches, {unit.weights: take_input}, timesteps)
        inputs, theirs = (
            jnp.stack([each[name] for each in found])
            for name, found in ((unit.weights, inputs), (unit.spiking, theirs))
        )
        out = jax.eval_shape(lambda x: layer(x, train=False), inputs[0])
        behind = theirs.ndim - 3  # axes behind batches, time and images
        if out.shape[-behind:] != theirs.shape[-behind:]:
            raise ValueError(
                f"{unit.spiking} must see what {unit.weights} returns to choose by "
                f"{by!r}, got maps {theirs.shape[-behind:]} of {out.shape[-behind:]}, "
                'as behind pooling; choose by="mse"'
            )
        norm = layers[unit.norm] if unit.norm else None
        parts = nnx.split((layer, norm, find_spiking(copy, unit)))
        clips = _make_candidates(spec, w)
        costs = _measure_candidates(
            *parts,
            inputs,
            theirs,
            clips,
            by,
            timesteps,
        )
        if not spec.per_channel:
            costs = jnp.sum(costs, axis=-1)
        best = jnp.argmin(costs, axis=0)
        clip = jnp.take_along_axis(clips, best[None], axis=0)[0]
    layer.quant = nnx.data(Hyperparameters(_pytree.replace(spec, clip=clip)))


def _make_candidates(spec: QuantSpec, w: Array) -> Array:
    """Return the bounds ``[candidates]``, or ``[candidates, C]`` of channels."""
    largest = jnp.max(jnp.abs(w), axis=tuple(range(w.ndim - 1)))
    largest = largest if spec.per_channel else jnp.max(largest)
    largest = jnp.where(largest > 0, largest, 1)
    factors = jnp.asarray(_CANDIDATES).reshape(-1, *(1,) * largest.ndim)
    grid = spec.grid or "mid_rise"
    parts = count_parts(jnp.asarray(spec.bits), signed=spec.signed, grid=grid)
    return round_up_to_multiple((factors * largest).astype(jnp.float32), parts)


@functools.partial(jax.jit, static_argnums=(0, 5, 6))
def _measure_candidates(graphdef, state, inputs, theirs, clips, by, timesteps):
    """Compute the cost ``[candidates, C]`` of each bound, for each channel."""
    _, _, spiking = nnx.merge(graphdef, state, copy=True)
    axes = tuple(range(theirs.ndim - 1))
    low = jnp.mean(theirs, axes) - 4 * jnp.std(theirs, axes)
    width = 8 * jnp.std(theirs, axes) / _BINS + 1e-6
    wanted = _describe(spiking, theirs, by, low, width)

    def cost(clip):
        def run(x):
            layer, norm, _ = nnx.merge(graphdef, state, copy=True)
            spec = _pytree.replace(layer.quant.get_value(), clip=clip)
            layer.quant = nnx.data(Hyperparameters(spec))
            current = layer(x, train=False)
            if current.ndim == theirs.ndim - 2:
                current = current[None]
            repeats = timesteps // len(current)  # of a still image
            if norm is not None:
                current = norm(current, train=True, repeats=repeats)
            return jnp.concatenate([current] * repeats)

        currents = jax.lax.map(run, inputs)
        found = _describe(spiking, currents, by, low, width)
        if by == "firing":
            return measure_firing(found, wanted)
        p, q = (x / jnp.sum(x, 0) for x in (wanted, found))
        return jnp.sum(p * jnp.log(p / q), 0)

    return jax.lax.map(cost, clips)


def _describe(spiking, currents, by, low, width):
    """Return spike counts ``[n, C]``, or a histogram of the currents ``[bins, C]``."""
    if by == "firing":
        count = lambda x: jnp.sum(spiking(x), (0, 1), dtype=jnp.int32)  # noqa: E731
        counts = jnp.sum(jax.lax.map(count, currents), axis=0)
        return counts.reshape(-1, counts.shape[-1])
    place = jnp.clip(jnp.floor((currents - low) / width), 0, _BINS - 1)
    place = place.astype(jnp.int32).reshape(-1, currents.shape[-1])
    count = lambda column: jnp.bincount(column, length=_BINS)  # noqa: E731
    found = jax.vmap(count, 1, 1)(place).astype(jnp.float32)
    return found + 1  # no bin is empty
