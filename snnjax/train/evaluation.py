"""Evaluation: accuracy and firing on every image, and timing beside a reference."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from snnjax import _checks
from snnjax.data import Dataset, eval_batches, on_device
from snnjax.firing import FiringCounts
from snnjax.train import checks, devices, guards
from snnjax.train.eval_steps import GROUPS, Fired, make_eval_step, make_trains_step
from snnjax.train.steps import split
from snnjax.train.sweep import check_alike


@functools.partial(jax.jit, donate_argnums=0)
def _add(total, new):
    return jax.tree.map(jnp.add, total, new)


@functools.cache
def _sum_of_devices(mesh: Mesh, sweep: bool) -> jax.stages.Wrapped:
    """The one sum over devices that an evaluation takes, of whole numbers."""
    axis, spec = (1, P(devices.CONFIG)) if sweep else (0, P())
    add = lambda x: jnp.sum(x, axis, dtype=x.dtype)  # noqa: E731
    return jax.jit(
        lambda found: jax.tree.map(add, found), out_shardings=NamedSharding(mesh, spec)
    )


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
        behind: ``{name: int32 [H, W, C]}``, sums over images of what is no neuron's but
            feeds synapses, as ``"layer1.0.out"`` and ``"pool1"``; {} without
            ``outputs``.
    """

    accuracy: float
    groups: tuple[FiringCounts, ...]
    latencies: dict[str, np.ndarray]
    time_w1: dict[str, float] | None
    behind: dict[str, np.ndarray]

    @property
    def spikes(self) -> dict[str, np.ndarray]:
        """Counts of all that feeds synapses, for `cost.synaptic_operations`."""
        counts = {name: np.asarray(x) for name, x in self.counts.spikes.items()}
        return counts | self.behind

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
    mesh: Mesh | None = None,
    outputs: bool = False,
) -> Evaluation:
    """Accuracy and firing of ``model`` on every image, in whole batches.

    Args:
        model: the network.
        dataset: images, or event frames of ``timesteps`` steps, and labels.
        reference: a network of the same layers, to compare spike times with: it runs
            beside ``model``, and no trains are kept but those of a batch.
        timesteps: T.
        batch_size: images at a time, no more than there are. It changes the result by
            rounding at most: from 64 channels on, convolutions of few images are
            computed otherwise, and 1 of 60,000 spikes was another then.
        on_step: called after each batch.
        mesh: of `make_mesh`: devices along ``data`` share each batch.
        outputs: also count what feeds synapses without being a neuron's, for
            `cost.synaptic_operations`: networks joined by AND or IAND and such with
            max-pooling need it. The network must take ``outputs=True``.

    Raises:
        ValueError: fewer than two images: there is no sampling noise then; labels
            beyond the network's outputs; a reference of other layers, or with T**2 x
            images from 2**31; an option of another kind.
        NonFinite: NaN in the network's numbers or among its logits: a membrane that is
            NaN does not fire, so firing and accuracy would seem to be measured.
    """
    checks.check_model(model)
    state = split(model)[1:]
    options = (timesteps, batch_size, on_step, mesh, outputs)
    total = _total(model, state, dataset, reference, *options, sweep=False)
    return _evaluation(total, len(dataset), timesteps)


def evaluate_sweep(
    models: Sequence[nnx.Module],
    dataset: Dataset,
    *,
    reference: nnx.Module | None = None,
    timesteps: int = 4,
    batch_size: int = 128,
    on_step: Callable[[], None] = lambda: None,
    mesh: Mesh | None = None,
    outputs: bool = False,
) -> list[Evaluation]:
    """`evaluate` for networks of one structure, side by side as in `sweep`.

    Args:
        models: as many as the devices along ``config``, or a multiple.
        dataset: images and labels.
        reference: one for all.
        timesteps: T.
        batch_size: images at a time, of each network.
        on_step: called after each batch.
        mesh: of ``make_mesh(configs=...)``; None is one device.
        outputs: as of `evaluate`.

    Raises:
        ValueError: as `evaluate` and `sweep`; random keys in a network.
        NonFinite: as `evaluate`.
    """
    models = list(models)
    check_alike(models, mesh)
    parts = [split(model)[1:] for model in models]
    devices.check_no_keys(parts)
    state = devices.stacked(parts)
    options = (timesteps, batch_size, on_step, mesh, outputs)
    total = _total(models[0], state, dataset, reference, *options, sweep=True)
    each = devices.unstacked(total)
    return [_evaluation(one, len(dataset), timesteps) for one in each]


def _total(
    model,
    state,
    dataset,
    reference,
    timesteps,
    batch_size,
    on_step,
    mesh,
    outputs,
    *,
    sweep,
) -> tuple[Any, Any, Fired]:
    """As of `make_eval_step` over all images, on the host."""
    checks.check_dataset(dataset)
    checks.check_bool(outputs=outputs)
    _checks.function("on_step", on_step)
    if reference is not None:
        checks.check_model(reference, "reference")
    if nan := checks.nan_in(state):
        raise guards.NonFinite(
            f"the network has NaN in {', '.join(nan)}; what it fires would be counted "
            "all the same"
        )
    checks.check_whole(timesteps=timesteps, batch_size=batch_size)
    devices.check_mesh(mesh)
    if len(dataset) < 2:
        raise ValueError("evaluation needs at least two images, to compare halves")
    if reference is not None and timesteps**2 * len(dataset) >= 2**31:
        raise ValueError(
            f"spike times of {timesteps} steps in {len(dataset)} images do not fit "
            "into int32 sums; compare fewer images with the reference"
        )
    parts = split(model)
    checks.check_outputs(parts, dataset, timesteps)
    eval_step = make_eval_step(
        parts[0], timesteps=timesteps, mesh=mesh, sweep=sweep, outputs=outputs
    )
    arrays = devices.put(on_device(dataset), mesh)
    state = devices.put(state, mesh, P(devices.CONFIG) if sweep else P())
    trains_of = lambda indices: None  # noqa: E731
    if reference is not None:
        other, *beside = split(reference)
        beside = devices.put(beside, mesh)
        trains_step = make_trains_step(other, timesteps=timesteps, mesh=mesh)
        trains_of = functools.partial(trains_step, *beside, *arrays)
    total: Any = None
    share = devices.data_devices(mesh)
    batch_size = min(batch_size, len(dataset))
    for batch in eval_batches(len(dataset), -(-batch_size // share) * share):
        indices, mask = devices.put(batch, mesh, P(devices.DATA))
        new = eval_step(*state, *arrays, indices, mask, trains_of(indices))
        total = new if total is None else _add(total, new)
        jax.block_until_ready(total[0])  # so that on_step tells the truth
        on_step()
    if mesh is not None:
        total = _sum_of_devices(mesh, sweep)(total)
    return devices.fetched(total)


def _evaluation(
    total: tuple[Any, Any, Fired], images: int, timesteps: int
) -> Evaluation:
    correct, nan, fired = total
    if nan:
        raise guards.NonFinite(
            f"of {int(nan)} of {images} images the network's logits have NaN; look for "
            "it with jax.config.update('jax_debug_nans', True)"
        )
    groups = []
    for g in range(min(GROUPS, images)):
        spikes = {name: counts[g] for name, counts in fired.spikes.items()}
        observations = timesteps * len(range(g, images, GROUPS))
        groups.append(FiringCounts(spikes, observations))
    time_w1 = None
    if fired.moved:
        time_w1 = {
            name: int(np.sum(twice, dtype=np.int64)) / (2 * twice.size * images)
            for name, twice in fired.moved.items()
        }
    latencies = {name: np.asarray(x) for name, x in fired.latency.items()}
    behind = {name: np.asarray(x) for name, x in fired.behind.items()}
    accuracy = int(correct) / images
    return Evaluation(accuracy, tuple(groups), latencies, time_w1, behind)
