"""A recording of SpikingJelly's network is that of the same network imported.

    pip install torch torchvision spikingjelly scipy -e .
    python tests/golden/compare_recordings.py

Both in float64: `interop.torch.record` around SpikingJelly's network, and spikes of the
network that `interop.spikingjelly.load` makes of its weights. Exits with 1 where a
neuron's count in a group differs, or a measure from SciPy's on raw spikes.
"""

import sys
from importlib.metadata import version

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import nets  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from flax import nnx  # noqa: E402
from make_spikingjelly import network, sequence  # noqa: E402
from scipy.stats import wasserstein_distance  # noqa: E402
from spikingjelly.activation_based import functional  # noqa: E402

from snnjax import firing, models, neurons  # noqa: E402
from snnjax.interop import spikingjelly  # noqa: E402
from snnjax.interop.torch import record  # noqa: E402

GROUPS = 2


def record_theirs(config: str) -> tuple[firing.FiringCounts, dict]:
    net = network(config).eval()
    with record(net, groups=GROUPS, inputs_id="nets") as found, torch.no_grad():
        net(sequence())
    functional.reset_net(net)
    return found.counts, {k: v.numpy() for k, v in net.state_dict().items()}


def record_ours(config: str, state: dict) -> tuple[firing.FiringCounts, dict]:
    name, connect, decay_input = nets.parse(config)
    model = getattr(models, name)(
        nets.CLASSES,
        connect=connect,
        neuron=neurons.LIF(tau=2.0, decay_input=decay_input, alpha=2.0),
        param_dtype=jnp.float64,
        rngs=nnx.Rngs(0),
    )
    model = spikingjelly.load(model, state)
    images = jnp.asarray(nets.images().transpose(0, 2, 3, 1))
    _, trains = model(images, timesteps=nets.TIMESTEPS)
    group = jnp.arange(len(images)) % GROUPS
    totals = {
        name: firing.total_by_group(train, group, GROUPS)
        for name, train in trains.items()
    }
    spikes = {name: each.sum(0) for name, each in totals.items()}
    observations = nets.TIMESTEPS * len(images)
    counts = firing.FiringCounts(spikes, observations, totals, inputs_id="nets")
    return counts, {name: np.asarray(train) for name, train in trains.items()}


def main() -> None:
    names = ("spikingjelly", "torch", "jax", "scipy")
    print(", ".join(f"{name} {version(name)}" for name in names))
    first, second = nets.CONFIGS[0], nets.CONFIGS[2]
    recorded, raw, wrong = {}, {}, []
    for config in (first, second):
        theirs, state = record_theirs(config)
        ours, raw[config] = record_ours(config, state)
        recorded[config] = theirs
        for name, each in theirs.spikes.items():
            same = np.array_equal(each, ours.spikes[name])
            same &= np.array_equal(theirs.groups[name], ours.groups[name])
            wrong += [] if same else [(config, name)]
        drift = firing.report(theirs, ours)
        print(config, f"{len(theirs.spikes)} layers, largest EMD to ours", end=" ")
        print(max(drift.emd.values()), "paired", max(drift.paired_shift.values()))
    found = firing.report(*recorded.values())
    for name, value in found.emd.items():
        x, y = (raw[c][name].mean((0, 1)).ravel() for c in (first, second))
        right = wasserstein_distance(x, y), np.abs(x - y).mean()
        got = value, found.paired_shift[name]
        wrong += [] if np.allclose(got, right, atol=1e-12) else [name]
    print("EMD and paired shift of two networks against SciPy and NumPy; wrong:", wrong)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
