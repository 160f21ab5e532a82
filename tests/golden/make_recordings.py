"""Record networks of SpikingJelly, snnTorch and Norse; check them on their raw spikes.

Needs torch and the three libraries, in an environment of its own, and snnjax:
``python tests/golden/make_recordings.py`` writes ``recordings.json``: counts by group,
W1 by SciPy and paired shift by NumPy, of two networks each, and the versions.
"""

import json
from importlib.metadata import version
from pathlib import Path

import norse.torch as norse
import numpy as np
import scipy.stats
import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snnjax import firing
from snnjax.interop.torch import record

T, BATCH, BATCHES, GROUPS = 4, 6, 3, 4


def spikingjelly_net(mode):
    net = nn.Sequential(
        layer.Conv2d(1, 3, 3, padding=1, step_mode=mode),
        neuron.LIFNode(step_mode=mode),
        layer.Flatten(step_mode=mode),
        layer.Linear(75, 7, step_mode=mode),
        neuron.IFNode(step_mode=mode),
    )
    with torch.no_grad():
        net[3].weight *= 4  # or the last layer is silent
    return net


class SnnTorchNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(25, 11), snntorch.Leaky(beta=0.9)
        self.fc2, self.lif2 = nn.Linear(11, 5), snntorch.Synaptic(alpha=0.8, beta=0.9)

    def forward(self, x):
        one = self.lif1.init_leaky()
        two = self.lif2.init_synaptic()
        found = []
        for step in x:
            spikes, one = self.lif1(self.fc1(step.flatten(1)), one)
            spikes, *two = self.lif2(self.fc2(spikes), *two)
            found.append(spikes)
        return torch.stack(found)


class NorseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = norse.SequentialState(
            nn.Flatten(2), nn.Linear(25, 9), norse.LIF(), nn.Linear(9, 4), norse.LI()
        )

    def forward(self, x):
        return self.net(x)[0]


class NorseCells(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(25, 9), norse.LIFCell()

    def forward(self, x):
        state, found = None, []
        for step in x:
            spikes, state = self.lif(self.fc(step.flatten(1)), state)
            found.append(spikes)
        return torch.stack(found)


def run(net, inputs, timesteps):
    """Record a network; return the counts, and the raw spikes of hooks of our own."""
    raw = {}
    names = []
    with record(net, timesteps=timesteps, groups=GROUPS, inputs_id="noise") as found:
        hooks = []
        modules = dict(net.named_modules())
        for name, module in modules.items():
            kind = type(module).__name__
            if kind in ("LIFNode", "IFNode", "Leaky", "Synaptic", "LIF", "LIFCell"):
                names.append(name)
                hooks.append(
                    module.register_forward_hook(
                        lambda _m, _i, out, name=name: raw.setdefault(name, []).append(
                            (out[0] if isinstance(out, tuple) else out).detach().numpy()
                        )
                    )
                )
        for batch in inputs:
            if timesteps:
                for step in batch:
                    net(step)
            else:
                net(batch)
            functional.reset_net(net)
        for hook in hooks:
            hook.remove()
    spikes = {}
    for name, outputs in raw.items():
        steps = len(outputs) // BATCHES  # calls for a batch
        trains = [
            np.concatenate(outputs[i : i + steps])
            if steps == 1
            else np.stack(outputs[i : i + steps])
            for i in range(0, len(outputs), steps)
        ]
        spikes[name] = np.concatenate(trains, axis=1)  # [T, images, ...]
    return found.counts, spikes


def check(make, timesteps=None):
    torch.manual_seed(0)
    inputs = (torch.rand(BATCHES, T, BATCH, 1, 5, 5) * 3).float()
    result, counts, raws = [], [], []
    for _ in range(2):
        net = make().eval()
        with torch.no_grad():
            found, raw = run(net, inputs, timesteps)
        for name, train in raw.items():
            total = train.sum((0, 1))
            if total.ndim == 3:
                total = np.moveaxis(total, 0, -1)
            np.testing.assert_array_equal(found.spikes[name], total)
            group = np.arange(train.shape[1]) % GROUPS
            for g in range(GROUPS):
                part = train[:, group == g].sum((0, 1))
                if part.ndim == 3:
                    part = np.moveaxis(part, 0, -1)
                np.testing.assert_array_equal(found.groups[name][g], part)
        counts.append(found)
        raws.append(raw)
    judged = firing.report(*counts)
    for name in raws[0]:
        one, two = (raw[name].mean((0, 1)).ravel().astype(float) for raw in raws)
        w1 = scipy.stats.wasserstein_distance(one, two)
        paired = np.abs(one - two).mean()
        np.testing.assert_allclose(judged.emd[name], w1, atol=1e-6)
        np.testing.assert_allclose(judged.paired_shift[name], paired, atol=1e-6)
        result.append(
            {
                "layer": name,
                "counts": [np.asarray(c.spikes[name]).ravel().tolist() for c in counts],
                "observations": counts[0].observations,
                "w1": float(w1),
                "paired_shift": float(paired),
            }
        )
    return result


def main():
    found = {
        "versions": {
            name: version(name)
            for name in ("torch", "spikingjelly", "snntorch", "norse", "numpy", "scipy")
        },
        "spikingjelly multi-step": check(lambda: spikingjelly_net("m")),
        "spikingjelly step by step": check(lambda: spikingjelly_net("s"), T),
        "snntorch": check(SnnTorchNet),
        "norse": check(NorseNet),
        "norse cells": check(NorseCells),
    }
    path = Path(__file__).with_name("recordings.json")
    path.write_text(json.dumps(found) + "\n")
    for name, layers in found.items():
        print(name, layers if name == "versions" else [x["w1"] for x in layers])


if __name__ == "__main__":
    main()
