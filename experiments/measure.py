"""A row's measurements: accuracy, firing against the baseline, noise floors, cost."""

from collections.abc import Iterable, Mapping

import jax
import numpy as np

from experiments.common import Row, StudyConfig
from experiments.provenance import versions
from experiments.report.names import FLOORS
from experiments.run_folder import Fired, RunFolder
from snnjax import calibrate, cost, emd, firing
from snnjax.firing import FiringCounts
from snnjax.models import SEWResNet
from snnjax.models.connections import INPUT
from snnjax.train import Evaluation


def layers_of(model: SEWResNet) -> list[str]:
    """The spiking layers as the network has them; JAX sorts them by name."""
    fed = (name for synapse in model.synapses() for name in synapse.sources)
    return [name for name in dict.fromkeys(fed) if name != INPUT]


def measure(
    part: Row,
    config: StudyConfig,
    model: SEWResNet,
    found: Evaluation,
    folder: RunFolder,
    done: Mapping[str, Row],
    epoch_before: Evaluation | None = None,
) -> tuple[Row, Fired]:
    """The whole row of ``part``, and its spike counts and latencies.

    Firing is compared with the baseline of the row's seed; a baseline's own distances
    are 0. The floors are those of that baseline: its distance to its control, to the
    other seeds' baselines, and to itself on other images. ``done``, the finished rows,
    must hold the baselines and, where the row is quantized, the control of its seed.
    ``epoch_before`` is of a control as its last epoch began.
    """
    seed, mode = part["seed"], part["mode"]
    layers = layers_of(model)
    total = found.counts  # a sum over all groups of images, each time it is asked for
    counts = FiringCounts(
        {name: total.spikes[name] for name in layers}, total.observations
    )
    own = Fired(counts, {name: found.latencies[name] for name in layers})

    def finished(name: str) -> Fired:
        fired = folder.fired(done[name])
        if not fired.latencies:
            raise ValueError(
                f"{folder.path} was begun by an earlier version, which kept no "
                "latencies; give another folder with --out"
            )
        return fired

    def distance(a: Fired, b: Fired) -> float:
        return firing.report(a.counts, b.counts, method=config.emd).emd_mean

    reference = own if mode == "fp32" else finished(f"fp32-s{seed}")
    fired = firing.report(reference.counts, counts, method=config.emd)
    if mode == "fp32":
        # As many images as there are, not halves: so many are compared.
        noise = firing.noise_floor(found.groups, method="bootstrap")
        floors = dict.fromkeys(FLOORS) | {"floor_sampling": noise.high_mean}
    elif mode == "control":
        others = [finished(f"fp32-s{other}") for other in config.seeds if other != seed]
        floors = {
            "floor_control": distance(reference, own),
            "floor_seed": mean(distance(reference, other) for other in others)
            if others
            else None,
            "floor_sampling": done[f"fp32-s{seed}"]["floor_sampling"],
        }
    else:
        # One seed's floors are one for all of its rows, and measured once.
        control = done[f"control-s{seed}"]
        floors = {name: control[name] for name in FLOORS}
    latency_emd = {
        name: config.timesteps * float(emd.emd_from_counts(x, y, counts.observations))
        for (name, x), y in zip(
            reference.latencies.items(), own.latencies.values(), strict=True
        )
    }
    assert found.time_w1 is not None, "a study evaluates beside its baseline"
    time_w1 = {name: found.time_w1[name] for name in layers}
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
        "emd_mean_epoch_before": None
        if epoch_before is None
        else distance(reference, Fired(epoch_before.counts, {})),
        "emd": fired.emd,
        "paired_shift": fired.paired_shift,
        "mean_shift": fired.mean_shift,
        "ks": fired.ks,
        "latency_emd_mean": mean(latency_emd.values()),
        "latency_emd": latency_emd,
        "time_w1_mean": mean(time_w1.values()),
        "time_w1": time_w1,
        **floors,
        "synops": sum(operations.values()),
        "weight_memory_bits": weight_bits,
        "membrane_memory_bits": membrane_bits,
        "precision": config.precision,
        "platform": jax.default_backend(),
        "config_hash": config.hash(),
        "versions": versions(),
    }
    return row, own


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
