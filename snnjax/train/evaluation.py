"""Evaluation: accuracy and firing on every image, and timing beside a reference."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from snnjax import data, firing, spiketrain
from snnjax.batches import eval_batches
from snnjax.data import Dataset
from snnjax.firing import FiringCounts
from snnjax.train import checks
from snnjax.train.steps import on_device, split

# Sets of images that are counted apart: their differences are the sampling noise.
GROUPS = 32


@functools.cache
def make_trains_step(graphdef: nnx.GraphDef, *, timesteps: int) -> jax.stages.Wrapped:
    """The spike trains of one network structure on a batch, compiled once and kept.

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
        batch = data.normalize(images[indices], mean, std)
        record = lambda spikes: spikes != 0  # noqa: E731
        return model(batch, timesteps=timesteps, record=record)[1]

    return jax.jit(trains_step)


class Fired(NamedTuple):
    """What an evaluation step adds up over images, by layer; all int32.

    Attributes:
        spikes: counts ``[GROUPS, neurons...]``, by the image's place modulo GROUPS.
        latency: steps before the first spike ``[neurons...]``.
        moved: twice the time-W1 to the reference's trains ``[neurons...]``; empty
            without a reference.
    """

    spikes: Mapping[str, Array]
    latency: Mapping[str, Array]
    moved: Mapping[str, Array]


@functools.cache
def make_eval_step(graphdef: nnx.GraphDef, *, timesteps: int) -> jax.stages.Wrapped:
    """The evaluation step of one network structure, compiled once and kept.

    Returns:
        ``eval_step(params, rest, images, labels, mean, std, indices, mask, trains)`` to
        the number of correct predictions and what `Fired`. Images whose ``mask`` is 0
        only fill the batch up. ``trains`` are the reference's on this batch, as
        `make_trains_step` makes them, or None.

    Raises:
        ValueError: timesteps below 1.
    """
    checks.check_whole(timesteps=timesteps)

    def eval_step(params, rest, images, labels, mean, std, indices, mask, trains):
        model = nnx.merge(graphdef, params, rest, copy=True)
        batch = data.normalize(images[indices], mean, std)
        group = jnp.where(mask, indices % GROUPS, GROUPS)
        logits, found = model(batch, timesteps=timesteps)
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
        )
        predicted = jnp.argmax(jnp.mean(logits.astype(jnp.float32), axis=0), axis=-1)
        return jnp.sum((predicted == labels[indices]) & mask), fired

    return jax.jit(eval_step)


class Evaluation(NamedTuple):
    """What `evaluate` finds.

    Attributes:
        accuracy: share of correct predictions.
        groups: spike counts over the images at each place modulo GROUPS, for
            `firing.noise_floor`.
        latencies: ``{layer: int32 [neurons...]}``, steps before a neuron's first spike
            (T where there is none), summed over images. Like counts they are compared
            by ``emd.emd_from_counts(a, b, counts.observations)``, here in units of T.
        time_w1: ``{layer: steps}``, how far the reference's spikes have to move in time
            (`spiketrain.time_wasserstein`), mean over neurons and images; None without
            a reference.
    """

    accuracy: float
    groups: tuple[FiringCounts, ...]
    latencies: dict[str, np.ndarray]
    time_w1: dict[str, float] | None

    @property
    def counts(self) -> FiringCounts:
        """Spike counts over all images."""
        return sum(self.groups[1:], self.groups[0])


def evaluate(
    model: nnx.Module,
    dataset: Dataset,
    *,
    reference: nnx.Module | None = None,
    timesteps: int = 4,
    batch_size: int = 128,
    on_step: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Accuracy and firing of ``model`` on every image, in whole batches.

    Args:
        model: the network.
        dataset: images and labels.
        reference: a network of the same layers, to compare spike times with: it runs
            beside ``model``, and no trains are kept but those of a batch.
        timesteps: T.
        batch_size: images at a time; it does not change the result.
        on_step: called after each batch.

    Raises:
        ValueError: fewer than two images: there is no sampling noise then; labels
            beyond the network's outputs; a reference of other layers, or with T**2 x
            images from 2**31.
    """
    checks.check_model(model)
    checks.check_dataset(dataset)
    checks.check_whole(timesteps=timesteps, batch_size=batch_size)
    if len(dataset) < 2:
        raise ValueError("evaluation needs at least two images, to compare halves")
    if reference is not None and timesteps**2 * len(dataset) >= 2**31:
        raise ValueError(
            f"spike times of {timesteps} steps in {len(dataset)} images do not fit "
            "into int32 sums; compare fewer images with the reference"
        )
    graphdef, *state = parts = split(model)
    checks.check_outputs(parts, dataset, timesteps)
    eval_step = make_eval_step(graphdef, timesteps=timesteps)
    arrays = on_device(dataset)
    trains_of = lambda indices: None  # noqa: E731
    if reference is not None:
        other, *beside = split(reference)
        trains_step = make_trains_step(other, timesteps=timesteps)
        trains_of = functools.partial(trains_step, *beside, *arrays)
    correct, fired = 0, None
    for indices, mask in eval_batches(len(dataset), batch_size):
        trains = trains_of(indices)
        right, new = eval_step(*state, *arrays, indices, mask, trains)
        correct += int(right)
        fired = new if fired is None else jax.tree.map(jnp.add, fired, new)
        on_step()
    fired = jax.tree.map(np.asarray, fired)
    groups = []
    for g in range(min(GROUPS, len(dataset))):
        images = len(range(g, len(dataset), GROUPS))
        spikes = {name: counts[g] for name, counts in fired.spikes.items()}
        groups.append(FiringCounts(spikes, timesteps * images))
    time_w1 = None
    if reference is not None:
        time_w1 = {
            name: int(np.sum(twice, dtype=np.int64)) / (2 * twice.size * len(dataset))
            for name, twice in fired.moved.items()
        }
    return Evaluation(
        correct / len(dataset), tuple(groups), dict(fired.latency), time_w1
    )
