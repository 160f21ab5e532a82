"""Evaluation: accuracy and firing on every image, and timing beside a reference."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from snnjax import _checks
from snnjax.data import Batches, Dataset, as_batches
from snnjax.firing import FiringCounts
from snnjax.layers.inspect import check_model
from snnjax.train import checks, guards, sharding
from snnjax.train.eval_step import (
    NUM_GROUPS,
    EvalSums,
    make_eval_step,
    make_trains_step,
)
from snnjax.train.feeding import EvaluationFeed
from snnjax.train.state import split, stack, unstack


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Accuracy and firing of a network on a data set.

    Attributes:
        accuracy: share of correct predictions.
        accuracy_by_step: the same from the outputs until each step ``[T]``, as of a
            network that runs for so many steps, up to rounding; the last is
            ``accuracy``. A sequence that has ended keeps its last prediction.
        groups: spike counts over the images at each place modulo 32.
        latencies: ``{layer: int32 [neurons...]}``, steps before a neuron's first spike
            (T where there is none, or the sequence's length), summed over images. Like
            counts they are compared by ``emd.emd_from_counts(a, b,
            counts.observations)``, in units of T.
        time_w1: ``{layer: steps}``, distance in time to the reference's spikes
            (`spiketrain.time_wasserstein`), mean over neurons and images; None without
            a reference.
        source_counts: ``{name: int32 [H, W, C]}``, sums over images of what feeds
            synapses and is no neuron's, as ``"layer1.0.out"`` and ``"pool1"``; {}
            without ``outputs``.
        inputs_id: fingerprint of the images in their order; `firing.verdict` compares
            two evaluations of one data set image group by image group.
    """

    accuracy: float
    accuracy_by_step: np.ndarray
    groups: tuple[FiringCounts, ...]
    latencies: dict[str, np.ndarray]
    time_w1: dict[str, float] | None
    source_counts: dict[str, np.ndarray]
    inputs_id: str | None = None

    @functools.cached_property
    def counts(self) -> FiringCounts:
        """Spike counts over all images, with their groups, for `firing.verdict`."""
        total = sum(self.groups[1:], self.groups[0])
        spikes = {name: total.spikes[name] for name in self.groups[0].spikes}
        layers = {
            name: np.stack([np.asarray(group.spikes[name]) for group in self.groups])
            for name in spikes
        }
        sizes = np.array([group.observations for group in self.groups])
        return FiringCounts(spikes, total.observations, layers, sizes, self.inputs_id)

    @property
    def spikes(self) -> dict[str, np.ndarray]:
        """Counts of all that feeds synapses, for `cost.synaptic_operations`."""
        counts = {name: np.asarray(x) for name, x in self.counts.spikes.items()}
        return counts | self.source_counts


def evaluate(
    model: nnx.Module | Sequence[nnx.Module],
    dataset: Dataset | Batches | Iterable[Any],
    *,
    reference: nnx.Module | None = None,
    timesteps: int = 4,
    batch_size: int = 128,
    on_step: Callable[[], None] = lambda: None,
    mesh: Mesh | None = None,
    outputs: bool = False,
) -> Any:
    """Measure accuracy and firing of a network, or of several, on every image.

    Networks are evaluated in evaluation mode, whichever they are in.

    Args:
        model: a network, or a sequence of networks of one structure, side by side as
            in `steps`: as many as the devices along ``config``, or a multiple.
        dataset: images, or sequences of ``timesteps`` steps, and labels; in memory, or
            batches of them as of `data.Batches`, of which the last may be smaller.
        reference: a network of the same layers, to compare spike times with: it runs
            beside them, and no trains are kept but those of a batch.
        timesteps: T.
        batch_size: images at a time, no more than there are; of batches it is theirs.
            It changes the result by rounding at most: from 64 channels on, convolutions
            of few images are computed otherwise, and 1 of 60,000 spikes was another
            then.
        on_step: called after each batch.
        mesh: of `make_mesh`: devices along ``data`` share each batch.
        outputs: also count what feeds synapses without being a neuron's, for
            `cost.synaptic_operations`: networks joined by AND or IAND and such with
            max-pooling need it. The network must take ``outputs=True``.

    Returns:
        `Evaluation`; a list of them where a sequence was given.

    Raises:
        ValueError: fewer than two images: there is no sampling noise then; labels
            beyond the network's outputs; a reference of other layers, or with T**2 x
            images from 2**31; networks of several structures; random keys in several;
            an option of another kind; recorded values that are no spikes.
        NonFiniteError: NaN or infinity in a network's numbers, or NaN among its logits:
            a membrane that is NaN does not fire, so firing and accuracy would seem to
            be measured.
    """
    networks = checks.as_list(model)
    total, seen = _sum_over_images(
        networks, dataset, reference, timesteps, batch_size, on_step, mesh, outputs
    )
    order = _order_layers(networks[0])
    found = [_evaluation(one, *seen, order) for one in unstack(total)]
    return found[0] if isinstance(model, nnx.Module) else found


def _sum_over_images(
    networks, dataset, reference, timesteps, batch_size, on_step, mesh, outputs
) -> tuple[tuple[Any, Any, EvalSums], tuple[int, np.ndarray, str]]:
    """Sum the results of `make_eval_step` over all images, on the host.

    And return the number of images, the observations by group, and a fingerprint.
    """
    dataset = as_batches(dataset)
    checks.check_evaluated(dataset)
    checks.check_bool(outputs=outputs)
    _checks.require_callable("on_step", on_step)
    if reference is not None:
        check_model(reference, "reference")
    checks.check_whole(timesteps=timesteps, batch_size=batch_size)
    checks.check_alike(networks, mesh)
    parts = [split(model) for model in networks]
    if len(networks) > 1:
        sharding.check_no_keys([arrays for _, *arrays in parts])
    state = stack([_with_axis((params, rest)) for _, params, rest in parts])
    if bad := checks.find_nonfinite(state):
        raise guards.NonFiniteError(
            f"the network has NaN or infinity in {', '.join(bad)}; its firing would be "
            "counted all the same"
        )
    feed = EvaluationFeed(
        dataset,
        batch_size=batch_size,
        timesteps=timesteps,
        groups=NUM_GROUPS,
        mesh=mesh,
    )
    feed.outputs = checks.check_outputs(parts[0], feed.example, timesteps)
    eval_step = make_eval_step(
        parts[0][0], timesteps=timesteps, mesh=mesh, outputs=outputs
    )
    state = sharding.shard(state, mesh, P(sharding.CONFIG))
    trains_of = lambda arrays, indices: None  # noqa: E731
    if reference is not None:
        graphdef, *rest = split(reference)
        trains_step = make_trains_step(graphdef, timesteps=timesteps, mesh=mesh)
        trains_of = functools.partial(trains_step, *sharding.shard(rest, mesh))
    total: Any = None
    for arrays, indices, mask in feed:
        _check_spike_times(reference, timesteps, feed.images)
        new = eval_step(state, arrays, indices, mask, trains_of(arrays, indices))
        total = new if total is None else _add(total, new)
        jax.block_until_ready(total[0])  # so that on_step comes after the work
        on_step()
    if mesh is not None:
        total = _sum_of_devices(mesh)(total)
    seen = feed.finish()
    if seen[0] < 2:
        raise ValueError("dataset must have at least two images, to compare halves")
    return sharding.to_host(total), seen


def _check_spike_times(reference, timesteps, images) -> None:
    if reference is not None and timesteps**2 * images >= 2**31:
        raise ValueError(
            f"spike times of {timesteps} steps in {images} images do not fit into "
            "int32 sums; compare fewer images with the reference"
        )


def _with_axis(state):
    return jax.tree.map(lambda x: jnp.asarray(x)[None], state)


@functools.partial(jax.jit, donate_argnums=0)
def _add(total, new):
    return jax.tree.map(jnp.add, total, new)


@functools.cache
def _sum_of_devices(mesh: Mesh) -> jax.stages.Wrapped:
    """Return the one sum over devices that an evaluation takes, of whole numbers."""
    add = lambda x: jnp.sum(x, 1, dtype=x.dtype)  # noqa: E731
    return jax.jit(
        lambda found: jax.tree.map(add, found),
        out_shardings=NamedSharding(mesh, P(sharding.CONFIG)),
    )


def _order_layers(model: nnx.Module) -> list[str]:
    """Return spiking layers from the first to the last, as far as that is known.

    What comes out of ``jit`` is sorted by name.
    """
    make = getattr(model, "synapses", None)
    try:
        table = make() if callable(make) else ()
    except ValueError:  # connections that cannot be told
        table = ()
    return [source for synapse in table for source in synapse.sources]


def _evaluation(
    total: Any, images: int, observations: np.ndarray, inputs_id: str, order: list[str]
) -> Evaluation:
    """Return the evaluation of one network; ``observations`` are those of groups."""
    correct, nan, sums = jax.tree.map(lambda x: x[0], total)
    if nan:
        raise guards.NonFiniteError(
            f"of {int(nan)} of {images} images the network's logits have NaN; look for "
            "it with jax.config.update('jax_debug_nans', True)"
        )
    guards.check_graded({name: bool(x) for name, x in sums.graded.items()})
    groups = []
    place = {name: at for at, name in reversed(list(enumerate(order)))}
    names = sorted(sums.spikes, key=lambda name: place.get(name, len(order)))
    for g in np.flatnonzero(observations):
        spikes = {name: sums.spikes[name][g] for name in names}
        groups.append(FiringCounts(spikes, int(observations[g])))
    time_w1 = None
    if sums.time_w1:
        time_w1 = {
            name: int(np.sum(twice, dtype=np.int64)) / (2 * twice.size * images)
            for name, twice in sums.time_w1.items()
        }
    latencies = {name: np.asarray(x) for name, x in sums.latency.items()}
    sources = {name: np.asarray(x) for name, x in sums.source_counts.items()}
    accuracies = np.asarray(correct) / images
    return Evaluation(
        *(float(accuracies[-1]), accuracies, tuple(groups)),
        *(latencies, time_w1, sources, inputs_id),
    )
