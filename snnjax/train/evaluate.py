"""Evaluation: accuracy and firing on every image, and timing beside a reference."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from snnjax import _checks
from snnjax.data import Dataset, eval_batches, on_device
from snnjax.firing import FiringCounts
from snnjax.layers.inspect import check_model
from snnjax.train import checks, guards, sharding
from snnjax.train.eval_step import (
    NUM_GROUPS,
    EvalSums,
    make_eval_step,
    make_trains_step,
)
from snnjax.train.state import split, stack, unstack


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Accuracy and firing of a network on a data set.

    Attributes:
        accuracy: share of correct predictions.
        groups: spike counts over the images at each place modulo 32.
        latencies: ``{layer: int32 [neurons...]}``, steps before a neuron's first spike
            (T where there is none), summed over images. Like counts they are compared
            by ``emd.emd_from_counts(a, b, counts.observations)``, here in units of T.
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
    groups: tuple[FiringCounts, ...]
    latencies: dict[str, np.ndarray]
    time_w1: dict[str, float] | None
    source_counts: dict[str, np.ndarray]
    inputs_id: str | None = None

    @functools.cached_property
    def counts(self) -> FiringCounts:
        """Spike counts over all images, with their groups, for `firing.verdict`."""
        total = sum(self.groups[1:], self.groups[0])
        layers = {
            name: np.stack([np.asarray(group.spikes[name]) for group in self.groups])
            for name in total.spikes
        }
        sizes = np.array([group.observations for group in self.groups])
        return FiringCounts(
            total.spikes, total.observations, layers, sizes, self.inputs_id
        )

    @property
    def spikes(self) -> dict[str, np.ndarray]:
        """Counts of all that feeds synapses, for `cost.synaptic_operations`."""
        counts = {name: np.asarray(x) for name, x in self.counts.spikes.items()}
        return counts | self.source_counts


def evaluate(
    models: nnx.Module | Sequence[nnx.Module],
    dataset: Dataset,
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
        models: a network, or a sequence of networks of one structure, side by side as
            in `steps`: as many as the devices along ``config``, or a multiple.
        dataset: images, or event frames of ``timesteps`` steps, and labels.
        reference: a network of the same layers, to compare spike times with: it runs
            beside them, and no trains are kept but those of a batch.
        timesteps: T.
        batch_size: images at a time, no more than there are. It changes the result by
            rounding at most: from 64 channels on, convolutions of few images are
            computed otherwise, and 1 of 60,000 spikes was another then.
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
        NonFiniteError: NaN in a network's numbers or among its logits: a membrane that
            is NaN does not fire, so firing and accuracy would seem to be measured.
    """
    networks = checks.as_list(models)
    total = _sum_over_images(
        networks, dataset, reference, timesteps, batch_size, on_step, mesh, outputs
    )
    steps = dataset.lengths
    if steps is None:
        steps = np.full(len(dataset), timesteps)
    inputs_id = _fingerprint(dataset)
    found = [_evaluation(one, steps, inputs_id) for one in unstack(total)]
    return found[0] if isinstance(models, nnx.Module) else found


def _sum_over_images(
    networks, dataset, reference, timesteps, batch_size, on_step, mesh, outputs
) -> tuple[Any, Any, EvalSums]:
    """Sum the results of `make_eval_step` over all images, on the host."""
    checks.check_evaluated(dataset)
    checks.check_bool(outputs=outputs)
    _checks.require_callable("on_step", on_step)
    if reference is not None:
        check_model(reference, "reference")
    checks.check_whole(timesteps=timesteps, batch_size=batch_size)
    checks.check_alike(networks, mesh)
    if reference is not None and timesteps**2 * len(dataset) >= 2**31:
        raise ValueError(
            f"spike times of {timesteps} steps in {len(dataset)} images do not fit "
            "into int32 sums; compare fewer images with the reference"
        )
    parts = split(networks[0])
    if len(networks) > 1:
        sharding.check_no_keys([split(model)[1:] for model in networks])
    state = stack([_with_axis(split(model)[1:]) for model in networks])
    if nan := checks.find_nan(state):
        raise guards.NonFiniteError(
            f"the network has NaN in {', '.join(nan)}; its firing would be counted all "
            "the same"
        )
    checks.check_outputs(parts, dataset, timesteps)
    eval_step = make_eval_step(
        parts[0], timesteps=timesteps, mesh=mesh, outputs=outputs
    )
    arrays = sharding.shard(on_device(dataset), mesh)
    state = sharding.shard(state, mesh, P(sharding.CONFIG))
    trains_of = lambda indices: None  # noqa: E731
    if reference is not None:
        graphdef, *rest = split(reference)
        trains_step = make_trains_step(graphdef, timesteps=timesteps, mesh=mesh)
        trains_of = functools.partial(trains_step, *sharding.shard(rest, mesh), arrays)
    total: Any = None
    share = sharding.data_devices(mesh)
    batch_size = min(batch_size, len(dataset))
    for batch in eval_batches(len(dataset), -(-batch_size // share) * share):
        indices, mask = sharding.shard(batch, mesh, P(sharding.DATA))
        new = eval_step(state, arrays, indices, mask, trains_of(indices))
        total = new if total is None else _add(total, new)
        jax.block_until_ready(total[0])  # so that on_step comes after the work
        on_step()
    if mesh is not None:
        total = _sum_of_devices(mesh)(total)
    return sharding.to_host(total)


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


def _fingerprint(dataset: Dataset) -> str:
    """Return a name that two data sets share where their images are the same."""
    images = np.ascontiguousarray(dataset.images)
    digest = hashlib.blake2b(images.data, digest_size=8)
    digest.update(repr((images.shape, images.dtype.str)).encode())
    return digest.hexdigest()


def _evaluation(total: Any, steps: np.ndarray, inputs_id: str) -> Evaluation:
    """Return the evaluation of one network; ``steps`` are those of each image."""
    images = len(steps)
    correct, nan, sums = jax.tree.map(lambda x: x[0], total)
    if nan:
        raise guards.NonFiniteError(
            f"of {int(nan)} of {images} images the network's logits have NaN; look for "
            "it with jax.config.update('jax_debug_nans', True)"
        )
    guards.check_graded({name: bool(x) for name, x in sums.graded.items()})
    groups = []
    for g in range(min(NUM_GROUPS, images)):
        spikes = {name: counts[g] for name, counts in sums.spikes.items()}
        observations = int(steps[g::NUM_GROUPS].sum())
        groups.append(FiringCounts(spikes, observations))
    time_w1 = None
    if sums.time_w1:
        time_w1 = {
            name: int(np.sum(twice, dtype=np.int64)) / (2 * twice.size * images)
            for name, twice in sums.time_w1.items()
        }
    latencies = {name: np.asarray(x) for name, x in sums.latency.items()}
    sources = {name: np.asarray(x) for name, x in sums.source_counts.items()}
    return Evaluation(
        *(int(correct) / images, tuple(groups), latencies, time_w1, sources, inputs_id)
    )
