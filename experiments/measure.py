"""A row's measurements: accuracy, firing against the baseline, noise floors, cost."""

from collections.abc import Mapping

import jax
import numpy as np

from experiments.common import Row, StudyConfig
from experiments.run_folder import RunFolder, versions
from snnjax import calibrate, cost, firing
from snnjax.firing import FiringCounts
from snnjax.models import SEWResNet
from snnjax.train import Evaluation


def in_order(model: SEWResNet, counts: FiringCounts) -> FiringCounts:
    """The counts with the layers as the network has them; JAX sorts them by name."""
    fed = (name for synapse in model.synapses() for name in synapse.sources)
    layers = [name for name in dict.fromkeys(fed) if name != cost.INPUT]
    spikes = {name: counts.spikes[name] for name in layers}
    return FiringCounts(spikes, counts.observations)


def measure(
    part: Row,
    config: StudyConfig,
    model: SEWResNet,
    found: Evaluation,
    folder: RunFolder,
    done: Mapping[str, Row],
) -> tuple[Row, FiringCounts]:
    """The whole row of ``part``, and its spike counts.

    Firing is compared with the baseline of the row's seed, which must be among
    ``done``, the finished rows; a baseline's own distances are 0. The floors are those
    of that baseline: its distance to its control, to the other seeds' baselines, and
    between two halves of the test images.
    """
    seed, mode = part["seed"], part["mode"]

    def finished(name: str) -> FiringCounts:
        return FiringCounts(*folder.counts(done[name]))

    def distance(a: FiringCounts, b: FiringCounts) -> float:
        return firing.report(a, b, method=config.emd).emd_mean

    counts = in_order(model, found.counts)
    reference = counts if mode == "fp32" else finished(f"fp32-s{seed}")
    fired = firing.report(reference, counts, method=config.emd)
    floor_control = floor_seed = None
    if mode == "fp32":
        floor_sampling = float(np.mean([*firing.noise_floor(found.halves).values()]))
    else:
        floor_sampling = done[f"fp32-s{seed}"]["floor_sampling"]
        others = [finished(f"fp32-s{other}") for other in config.seeds if other != seed]
        if others:
            floor_seed = float(np.mean([distance(reference, o) for o in others]))
        control = counts if mode == "control" else finished(f"control-s{seed}")
        floor_control = distance(reference, control)
    images = counts.observations // config.timesteps
    neurons = {name: np.size(spikes) for name, spikes in counts.spikes.items()}
    synapses = model.synapses(np.shape(counts.spikes["sn1"])[:2])
    operations = cost.synaptic_operations(synapses, counts.spikes, images)
    weight_bits, membrane_bits = calibrate.memory_bits(model, neurons)
    row = {
        "dataset": config.dataset,
        "model": config.model,
        "width": config.width,
        "surrogate": config.surrogate,
        "reset": config.reset,
        **part,
        "accuracy": found.accuracy,
        "mean_rate": fired.mean_rate,
        "dead_fraction": fired.dead_fraction,
        "saturated_fraction": fired.saturated_fraction,
        "emd_mean": fired.emd_mean,
        "emd": fired.emd,
        "paired_shift": fired.paired_shift,
        "mean_shift": fired.mean_shift,
        "floor_control": floor_control,
        "floor_seed": floor_seed,
        "floor_sampling": floor_sampling,
        "synops": sum(operations.values()),
        "weight_memory_bits": weight_bits,
        "membrane_memory_bits": membrane_bits,
        "precision": config.precision,
        "platform": jax.default_backend(),
        "devices": jax.device_count(),
        "config_hash": config.hash(),
        "versions": versions(),
    }
    return row, counts
