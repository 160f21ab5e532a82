"""Play recorded spikes on SANA-FE's Loihi: energy, time and messages.

Run by the python of an environment with the package ``sanafe`` (GPL) and numpy; it
needs and imports nothing of snnjax::

    python play.py RECORDING.npz  # prints JSON

Every neuron fires as recorded, at the energies of Loihi's LIF neurons: the architecture
file's units for inputs are given those, and synapses carry the weight 0. So the chip
pays for updates, spikes, messages and synapses, and the spikes are the network's own.
A layer has its own cores, of up to 1,024 neurons.
"""

import json
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import sanafe  # pyrefly: ignore[missing-import]

NEURONS_OF_A_CORE = 1024
INPUTS = "- name: loihi_inputs[0..1023]"
# Of loihi_lif in the same file: Davies et al., 2018.
LIF = {
    "energy_access_neuron": "51.2e-12",
    "latency_access_neuron": "6.0e-9",
    "energy_update_neuron": "21.6e-12",
    "latency_update_neuron": "3.7e-9",
    "energy_spike_out": "69.3e-12",
    "latency_spike_out": "30.0e-9",
}


def load_chip(folder: Path):
    before, after = (files("sanafe.examples") / "loihi.yaml").read_text().split(INPUTS)
    for name, value in LIF.items():
        after = after.replace(f"{name}: 0.0", f"{name}: {value}", 1)
    path = folder / "loihi.yaml"
    path.write_text(before + INPUTS + after)
    return sanafe.load_arch(str(path))


def play(recording: Path) -> dict:
    with np.load(recording) as arrays, tempfile.TemporaryDirectory() as folder:
        architecture = load_chip(Path(folder))
        cores = iter(architecture.cores())
        network, groups = sanafe.Network(), {}
        layers = [key for key in arrays.files if key.startswith("spikes.")]
        steps = arrays[layers[0]].shape[0]
        for key in layers:
            trains = arrays[key]  # [steps, neurons]
            name = key.removeprefix("spikes.")
            group = network.create_neuron_group(name, trains.shape[1])
            core = None
            for i, train in enumerate(trains.T.tolist()):
                place = i % NEURONS_OF_A_CORE
                core = next(cores) if place == 0 else core
                neuron = group.neurons[i]
                neuron.set_attributes(
                    soma_hw_name=f"loihi_inputs[{place}]",
                    model_attributes={"spikes": train},
                )
                neuron.map_to_core(core)
            groups[name] = group
        for key in arrays.files:
            if key.startswith("edges."):
                _, source, target = key.split("|")
                pairs = [tuple(pair) for pair in arrays[key].tolist()]
                weights = {"weight": [0.0] * len(pairs)}
                groups[source].connect_neurons_sparse(groups[target], weights, pairs)
        chip = sanafe.SpikingChip(architecture)
        chip.load(network)
        found = chip.sim(steps, timing_model="detailed")
    return {
        "energy": found["energy"],
        "time": found["sim_time"],
        "messages": found["packets_sent"],
        "synaptic_events": found["spikes"],
        "fired": found["neurons_fired"],
    }


if __name__ == "__main__":
    answer = play(Path(sys.argv[1]))
    print("\n" + json.dumps(answer))
