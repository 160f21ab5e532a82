"""The evaluation step: what a batch fired, as a pure function under ``jax.jit``."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snnjax import data, firing, spiketrain
from snnjax.models.connections import is_output
from snnjax.train import checks, devices

# Sets of images that are counted apart: their differences are the sampling noise.
GROUPS = 32


@functools.cache
def make_trains_step(
    graphdef: nnx.GraphDef, *, timesteps: int, mesh: Mesh | None = None
) -> jax.stages.Wrapped:
    """The spike trains of one network structure on a batch, compiled once and kept.

    Args:
        graphdef: the structure.
        timesteps: T.
        mesh: of `make_mesh`: ``indices`` and the trains' images are sharded along
            ``data``, all else is on every device.

    Returns:
        ``trains_step(params, rest, images, labels, mean, std, indices)`` to
        ``{layer: bool [T, B, neurons...]}``.

    Raises:
        ValueError: timesteps below 1.
    """
    checks.check_whole(timesteps=timesteps)

    def trains_step(params, rest, images, labels, mean, std, indices):
        del labels
        model = nnx.merge(graphdef, params, rest, copy=True)
        batch = data.network_input(images[indices], mean, std)
        record = lambda spikes: spikes != 0  # noqa: E731
        return model(batch, timesteps=timesteps, record=record)[1]

    arrays, batch = (P(),) * 4, P(devices.DATA)
    trains = P(None, devices.DATA)
    specs = (P(), P(), *arrays, batch)
    return jax.jit(devices.on_mesh(trains_step, mesh, specs, trains))


class Fired(NamedTuple):
    """What an evaluation step adds up over images, by layer; all int32.

    Attributes:
        spikes: counts ``[GROUPS, neurons...]``, by the image's place modulo GROUPS.
        latency: steps before the first spike ``[neurons...]``.
        moved: twice the time-W1 to the reference's trains ``[neurons...]``; empty
            without a reference.
        behind: sums of block outputs and of spikes behind pooling ``[H, W, C]``; empty
            unless asked for.
    """

    spikes: Mapping[str, Array]
    latency: Mapping[str, Array]
    moved: Mapping[str, Array]
    behind: Mapping[str, Array]


@functools.cache
def make_eval_step(
    graphdef: nnx.GraphDef,
    *,
    timesteps: int,
    mesh: Mesh | None = None,
    sweep: bool = False,
    outputs: bool = False,
) -> jax.stages.Wrapped:
    """The evaluation step of one network structure, compiled once and kept.

    Args:
        graphdef: the structure.
        timesteps: T.
        mesh: of `make_mesh`: ``indices``, ``mask`` and the images of ``trains`` are
            sharded along ``data``, and each device finds what its part fired: the
            results have an axis of devices in front, which nothing is sent for.
        sweep: parameters, rest and results have an axis of networks in front, sharded
            along ``config``.
        outputs: count block outputs and what is behind pooling too.

    Returns:
        ``eval_step(params, rest, images, labels, mean, std, indices, mask, trains)`` to
        the number of correct predictions, that of images with NaN among their logits,
        and what `Fired`. Images whose ``mask`` is 0 only fill the batch up. ``trains``
        are the reference's on this batch, as `make_trains_step` makes them, or None.

    Raises:
        ValueError: timesteps below 1.
    """
    checks.check_whole(timesteps=timesteps)

    def eval_step(params, rest, images, labels, mean, std, indices, mask, trains):
        model = nnx.merge(graphdef, params, rest, copy=True)
        batch = data.network_input(images[indices], mean, std)
        group = jnp.where(mask, indices % GROUPS, GROUPS)
        more = {"outputs": True} if outputs else {}
        logits, found = model(batch, timesteps=timesteps, **more)
        behind = {k: found.pop(k) for k in list(found) if outputs and is_output(k)}
        if trains is not None and set(trains) != set(found):
            raise ValueError(
                "the reference must have the same layers; only in one of the two: "
                f"{sorted(set(trains) ^ set(found))}"
            )

        def moved(spikes, reference):
            away = spiketrain.time_wasserstein(spikes != 0, reference)
            away = (2 * away).astype(jnp.int32)  # whole: a spike left over costs T/2
            mask_ = mask.reshape(-1, *(1,) * (away.ndim - 1))
            return jnp.sum(jnp.where(mask_, away, 0), axis=0, dtype=jnp.int32)

        fired = Fired(
            {k: firing.total_by_group(s, group, GROUPS) for k, s in found.items()},
            {k: spiketrain.latency_total(s != 0, mask) for k, s in found.items()},
            {k: moved(found[k], train) for k, train in (trains or {}).items()},
            {k: firing.total(spikes, mask) for k, spikes in behind.items()},
        )
        nan = jnp.any(jnp.isnan(logits), axis=(0, 2))
        predicted = jnp.argmax(jnp.mean(logits.astype(jnp.float32), axis=0), axis=-1)
        correct = jnp.sum((predicted == labels[indices]) & mask)
        found = correct, jnp.sum(nan & mask), fired
        return found if mesh is None else jax.tree.map(lambda x: x[None], found)

    own = P(devices.CONFIG) if sweep else P()
    out = P(devices.CONFIG, devices.DATA) if sweep else P(devices.DATA)
    arrays, batch, trains = (P(),) * 4, P(devices.DATA), P(None, devices.DATA)
    specs = (own, own, *arrays, batch, batch, trains)
    program = devices.each(eval_step, 2) if sweep else eval_step
    program = devices.on_mesh(program, mesh, specs, out)
    return jax.jit(program, compiler_options=devices.compiler_options(mesh))
