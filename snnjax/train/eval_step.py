"""The evaluation step: firing of a batch, as a pure function under ``jax.jit``."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snnjax import firing, spiketrain
from snnjax._arrays import mean_over_time, widen
from snnjax.models.connections import is_output
from snnjax.train import checks, sharding

# Sets of images that are counted apart: their differences are the sampling noise.
NUM_GROUPS = 32


@functools.cache
def make_trains_step(
    graphdef: nnx.GraphDef, *, timesteps: int, mesh: Mesh | None = None
) -> jax.stages.Wrapped:
    """Return the function to a batch's spike trains, compiled once a structure.

    Args:
        graphdef: the structure.
        timesteps: T.
        mesh: of `make_mesh`: ``indices`` and the trains' images are sharded along
            ``data``, all else is on every device.

    Returns:
        ``trains_step(params, model_state, dataset, indices)`` to
        ``{layer: bool [T, B, neurons...]}``.

    Raises:
        ValueError: timesteps below 1.
    """
    checks.check_whole(timesteps=timesteps)

    def trains_step(params, model_state, dataset, indices):
        model = nnx.merge(graphdef, params, model_state, copy=True)
        model.eval()
        batch = dataset.network_input(dataset.images(indices))
        mask = dataset.mask(indices)
        record = lambda spikes: _steps_only(spikes, mask) != 0  # noqa: E731
        return model(batch, timesteps=timesteps, record=record)[1]

    def run(params, model_state, dataset, indices):
        specs = (P(), P(), sharding.batch_specs(dataset), P(sharding.DATA))
        program = sharding.on_mesh(trains_step, mesh, specs, P(None, sharding.DATA))
        return program(params, model_state, dataset, indices)

    return jax.jit(run)


class EvalSums(NamedTuple):
    """Sums of an evaluation step over images, by layer; all int32.

    Attributes:
        spikes: counts ``[NUM_GROUPS, neurons...]``, by the image's place modulo
            NUM_GROUPS.
        latency: steps before the first spike ``[neurons...]``.
        time_w1: twice the time-W1 to the reference's trains ``[neurons...]``; empty
            without a reference.
        source_counts: sums of block outputs and of spikes behind pooling ``[H, W, C]``;
            empty unless asked for.
        graded: number of batches with values that are no counts, of all of these.
    """

    spikes: Mapping[str, Array]
    latency: Mapping[str, Array]
    time_w1: Mapping[str, Array]
    source_counts: Mapping[str, Array]
    graded: Mapping[str, Array]


def _steps_only(spikes: Array, steps: Array | None) -> Array:
    """Return the spikes of a sequence's own steps, 0 in the padding behind it."""
    if steps is None:
        return spikes
    mask = steps.reshape(*steps.shape, *(1,) * (spikes.ndim - 2))
    return jnp.where(mask, spikes, jnp.zeros((), spikes.dtype))


def _end_at(fired: Array, steps: Array | None) -> Array:
    """Let a sequence's end be a spike: silent neurons are late by its length, not T."""
    if steps is None:
        return fired
    return fired | ~steps.reshape(*steps.shape, *(1,) * (fired.ndim - 2))


def _logits_until_each_step(logits: Array, mask: Array | None) -> Array:
    """Return logits ``[T, B, classes]`` whose largest is that of the mean until a step.

    The last are the mean itself: sums in another order might round to another class.
    """
    wide = widen(logits)
    if mask is not None:
        wide = jnp.where(mask[..., None], wide, 0)
    return jnp.cumsum(wide, axis=0).at[-1].set(mean_over_time(logits, mask))


def is_graded(spikes: Array) -> Array:
    """Return 1 where something is no whole number from 0, else 0: int32."""
    if not jnp.issubdtype(spikes.dtype, jnp.inexact):
        return jnp.any(spikes < 0).astype(jnp.int32)
    return jnp.any((spikes != jnp.floor(spikes)) | (spikes < 0)).astype(jnp.int32)


@functools.cache
def make_eval_step(
    graphdef: nnx.GraphDef,
    *,
    timesteps: int,
    mesh: Mesh | None = None,
    outputs: bool = False,
) -> jax.stages.Wrapped:
    """Return the evaluation step of one network structure, compiled once and kept.

    Args:
        graphdef: the structure.
        timesteps: T.
        mesh: of `make_mesh`: ``indices``, ``mask`` and the images of ``trains`` are
            sharded along ``data``, networks along ``config``. Each device sums over its
            part: the results have an axis of devices behind that of networks, and
            nothing is sent.
        outputs: count block outputs and spikes behind pooling too.

    Returns:
        ``eval_step(networks, dataset, indices, mask, trains)`` to the numbers of
        correct predictions from the outputs until each step ``[T]``, the number of
        images with NaN among their logits, and `EvalSums`.
        ``networks`` are parameters and model state with the axis of networks in front,
        which the results have too. Images whose ``mask`` is 0 only fill the batch.
        ``trains`` are the reference's on this batch, see `make_trains_step`, or None.

    Raises:
        ValueError: timesteps below 1.
    """
    checks.check_whole(timesteps=timesteps)

    def eval_step(networks, dataset, indices, mask, trains):
        model = nnx.merge(graphdef, *networks, copy=True)
        model.eval()
        batch = dataset.network_input(dataset.images(indices))
        group = jnp.where(mask, indices % NUM_GROUPS, NUM_GROUPS)
        more = {"outputs": True} if outputs else {}
        logits, found = model(batch, timesteps=timesteps, **more)
        steps = dataset.mask(indices)
        found = {k: _steps_only(spikes, steps) for k, spikes in found.items()}
        sources = {k: found.pop(k) for k in list(found) if outputs and is_output(k)}
        if trains is not None and set(trains) != set(found):
            raise ValueError(
                "the reference must have the same layers; only in one of the two: "
                f"{sorted(set(trains) ^ set(found))}"
            )

        def time_w1(spikes, reference):
            twice = 2 * spiketrain.time_wasserstein(spikes != 0, reference)
            twice = twice.astype(jnp.int32)  # whole: a spike left over costs T/2
            counted = mask.reshape(-1, *(1,) * (twice.ndim - 1))
            return jnp.sum(jnp.where(counted, twice, 0), axis=0, dtype=jnp.int32)

        sums = EvalSums(
            {k: firing.total_by_group(s, group, NUM_GROUPS) for k, s in found.items()},
            {
                k: spiketrain.latency_total(_end_at(s != 0, steps), mask)
                for k, s in found.items()
            },
            {k: time_w1(found[k], train) for k, train in (trains or {}).items()},
            {k: firing.total(spikes, mask) for k, spikes in sources.items()},
            {k: is_graded(spikes) for k, spikes in (found | sources).items()},
        )
        nan = jnp.any(jnp.isnan(logits), axis=(0, 2))
        predicted = jnp.argmax(_logits_until_each_step(logits, steps), axis=-1)
        right = (predicted == dataset.classes(indices)) & mask
        correct = jnp.sum(right, axis=1, dtype=jnp.int32)
        found = correct, jnp.sum(nan & mask), sums
        return found if mesh is None else jax.tree.map(lambda x: x[None], found)

    mapped = sharding.map_models(eval_step, 1)

    def named(networks, dataset, indices, mask, trains):
        data, batch = sharding.batch_specs(dataset), P(sharding.DATA)
        specs = (P(sharding.CONFIG), data, batch, batch, P(None, sharding.DATA))
        out = P(sharding.CONFIG, sharding.DATA)
        program = sharding.on_mesh(mapped, mesh, specs, out)
        return program(networks, dataset, indices, mask, trains)

    named.__name__ = "eval_step"  # by which compilations are counted
    return jax.jit(named, compiler_options=sharding.compiler_options(mesh))
