"""Choose the bounds of membrane quantizers by what they do to potentials or firing."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from snnjax import _pytree
from snnjax.calibrate.fire import count_firing, measure_firing
from snnjax.calibrate.layerwise import (
    Unit,
    find_spiking,
    observe_batches,
    take_input,
)
from snnjax.layers import Spiking

_CANDIDATES = 16  # bounds, in equal ratios


def find_membranes(model: nnx.Module, units: list[Unit]) -> list[Unit]:
    """Return the units whose membranes have a uniform or LSQ quantizer."""
    found = []
    for unit in units:
        quant = None if unit.spiking is None else find_spiking(model, unit).quant
        if quant is not None and quant.get_value().method in ("uniform", "lsq"):
            found.append(unit)
    return found


def choose_membrane(
    model: nnx.Module,
    reference: nnx.Module,
    unit: Unit,
    batches: list[Array],
    by: str,
    sharing: str | None,
    timesteps: int,
) -> None:
    """Put the best bound on a layer of neurons, in place; see `choose_clip`."""
    name = unit.spiking or ""
    spiking = find_spiking(model, unit)
    [wanted] = count_firing(reference, [unit], batches, timesteps)
    found = observe_batches(model, batches, {name: take_input}, timesteps)
    currents = jnp.stack([each.pop(name) for each in found])
    clips = _make_candidates(spiking, currents)
    costs = _measure(*nnx.split(spiking), currents, wanted.counts, clips, by)
    if sharing == "layer":
        costs = jnp.sum(costs, axis=-1)
    clip = clips[jnp.argmin(costs, axis=0)]
    _set_clip(spiking, clip)


def _make_candidates(spiking: Spiking, currents: Array) -> Array:
    plain = nnx.clone(spiking)
    plain.quantize(None)
    largest = max(float(jnp.max(jnp.abs(plain.potentials(x)))) for x in currents)
    neuron: Any = plain.learned_neuron()
    threshold = float(np.min(np.asarray(neuron.v_threshold)))
    ends = threshold / 4, max(2 * threshold, largest)
    return jnp.asarray(np.geomspace(*ends, _CANDIDATES), jnp.float32)


def _set_clip(spiking: Spiking, clip: Any) -> None:
    assert spiking.quant is not None
    spec = _pytree.replace(spiking.quant.get_value(), clip=clip)
    spiking.quantize(spec, site=spiking.site)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _measure(graphdef, state, currents, wanted, clips, by):
    """Compute the cost ``[candidates, C]`` of each bound, for each channel."""
    plain = nnx.merge(graphdef, state, copy=True)
    plain.quantize(None)
    goal = wanted.reshape(-1, wanted.shape[-1])

    def cost(clip):
        spiking = nnx.merge(graphdef, state, copy=True)
        _set_clip(spiking, clip)
        if by == "firing":
            count = lambda x: jnp.sum(spiking(x), (0, 1), dtype=jnp.int32)  # noqa: E731
            counts = jnp.sum(jax.lax.map(count, currents), axis=0)
            return measure_firing(counts.reshape(goal.shape), goal)
        axes = tuple(range(currents.ndim - 2))

        def error(x):
            apart = spiking.potentials(x) - plain.potentials(x)
            return jnp.sum(jnp.square(apart), axes)

        return jnp.sum(jax.lax.map(error, currents), axis=0)

    return jax.lax.map(cost, clips)
