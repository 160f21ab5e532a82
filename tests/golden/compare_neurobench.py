"""Write neurobench.json: the cost of one network on one input, by NeuroBench.

    pip install torch snntorch tonic "neurobench==2.3.0" -e .
    python tests/golden/compare_neurobench.py

The network is written as an snnTorch module (`interop.snntorch.write`) for NeuroBench.
Compared are effective and dense synaptic operations, sparsity of activations, and
membrane updates; exits with 1 where one differs. NeuroBench counts a still image's
first layer as multiplications, in each step; inputs here are events, which it counts as
accumulations.
"""

import importlib.util
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import cost, layers, models, neurons
from snnjax.firing import FiringCounts
from snnjax.interop import snntorch

T, IMAGES, SIZE = 4, 12, 8


def make_network() -> models.Sequential:
    rngs = nnx.Rngs(0)

    def fire():
        return layers.Spiking(neurons.LIF(v_threshold=0.2, decay_input=False))

    return models.Sequential(
        {
            "conv1": layers.QuantConv(2, 4, kernel_size=3, padding=1, rngs=rngs),
            "sn1": fire(),
            "conv2": layers.QuantConv(
                4, 6, kernel_size=3, strides=2, padding=1, rngs=rngs
            ),
            "sn2": fire(),
            "flatten": layers.Flatten(),
            "fc1": layers.QuantLinear(96, 10, rngs=rngs),
            "sn3": fire(),
            "fc2": layers.QuantLinear(10, 5, rngs=rngs),
        },
        in_shape=(SIZE, SIZE, 2),
    )


def measure_ours(model, events: np.ndarray) -> dict[str, float]:
    """Measure events [T, B, H, W, C]."""
    _, trains = model(jnp.asarray(events), timesteps=T)
    spikes = {
        name: np.asarray(train, int).sum((0, 1)) for name, train in trains.items()
    }
    counts = FiringCounts(spikes, T * IMAGES)
    table = model.synapses()
    operations = cost.synaptic_operations(
        table, spikes | {"input": events.sum((0, 1)).astype(int)}, IMAGES
    )
    rates = np.concatenate([np.ravel(rate) for rate in counts.rates().values()])
    updates = cost.membrane_updates(layers.record_membranes(model, events))
    return {
        "effective ACs": sum(operations.values()),
        "dense": float(T * sum(cost.multiply_accumulates(table).values())),
        "activation sparsity": 1 - float(rates.mean()),
        "membrane updates": sum(updates.values()),
    }


def measure_theirs(model, events: np.ndarray) -> dict[str, float]:
    import torch
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.workload import (
        ActivationSparsity,
        MembraneUpdates,
        SynapticOperations,
    )
    from neurobench.models import SNNTorchModel
    from torch.utils.data import DataLoader, TensorDataset

    with tempfile.TemporaryDirectory() as folder:
        path = snntorch.write(model, Path(folder))
        spec = importlib.util.spec_from_file_location("network", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        network = SNNTorchModel(module.Network())
    x = torch.from_numpy(events.transpose(1, 0, 4, 2, 3).copy())
    data = DataLoader(TensorDataset(x, torch.zeros(IMAGES)), batch_size=IMAGES)
    metrics = [ActivationSparsity, MembraneUpdates, SynapticOperations]
    found = Benchmark(network, data, [], [lambda x: x], [[], metrics]).run()
    operations = found["SynapticOperations"]
    assert operations["Effective_MACs"] == 0
    return {
        "effective ACs": operations["Effective_ACs"],
        "dense": operations["Dense"],
        "activation sparsity": found["ActivationSparsity"],
        "membrane updates": found["MembraneUpdates"],
    }


def make_events() -> np.ndarray:
    draw = np.random.default_rng(0)
    return (draw.random((T, IMAGES, SIZE, SIZE, 2)) < 0.3).astype(np.float32)


def main() -> None:
    model, events = make_network(), make_events()
    ours, theirs = measure_ours(model, events), measure_theirs(model, events)
    names = ("neurobench", "snntorch", "torch", "jax", "numpy")
    found = {"versions": {name: version(name) for name in names}} | theirs
    Path(__file__).with_name("neurobench.json").write_text(json.dumps(found) + "\n")
    for name, value in ours.items():
        print(f"{name}: ours {value:.6f}, NeuroBench {theirs[name]:.6f}")
    sys.exit(any(abs(ours[k] - theirs[k]) > 1e-9 * abs(ours[k]) for k in ours))


if __name__ == "__main__":
    main()
