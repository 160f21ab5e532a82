"""Weights by way of torch's own files: SpikingJelly's .pth in, ours back into its nets.

    pip install torch torchvision spikingjelly -e .
    python tests/golden/compare_files.py

Networks trained in parallel or wrapped in a dict, in bfloat16, with ParametricLIF. A
pickle that is no state_dict must not be opened. Raises where anything differs.
"""

import pickle
import tempfile
from pathlib import Path

import numpy as np
import torch
from flax import nnx
from spikingjelly.activation_based import neuron
from spikingjelly.activation_based.model import sew_resnet

from snnjax import models, neurons
from snnjax.interop import spikingjelly


def theirs(node: type) -> torch.nn.Module:
    torch.manual_seed(0)
    return sew_resnet.sew_resnet18(cnf="ADD", spiking_neuron=node, num_classes=10)


def ours(neuron) -> models.SEWResNet:
    return models.sew_resnet18(10, stem="imagenet", neuron=neuron, rngs=nnx.Rngs(0))


def check(folder: Path, node: type, bundle, wrap, dtype=torch.float32) -> None:
    network = theirs(node)
    state = {
        key: x.to(dtype) if x.is_floating_point() else x
        for key, x in network.state_dict().items()
    }
    path = folder / "network.pth"
    torch.save(wrap(state), path)
    saved = spikingjelly.save(spikingjelly.load(ours(bundle), path))
    for key, x in saved.items():
        np.testing.assert_array_equal(x, state[key].float().numpy(), key)
    back = {key: torch.from_numpy(x) for key, x in saved.items()}
    missing, unused = theirs(node).load_state_dict(back, strict=False)
    assert not unused
    assert all(key.endswith("num_batches_tracked") for key in missing)


class Harm:
    def __reduce__(self):
        return print, ("opened a pickle",)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lif, plif = neurons.LIF(), neurons.PLIF()
        check(folder, neuron.LIFNode, lif, dict)
        check(folder, neuron.LIFNode, lif, lambda state: {"model": state, "epoch": 3})
        check(
            folder,
            neuron.LIFNode,
            lif,
            lambda state: {f"module.{key}": x for key, x in state.items()},
        )
        check(folder, neuron.LIFNode, lif, dict, torch.bfloat16)
        check(folder, neuron.ParametricLIFNode, plif, dict)
        (folder / "harm.pth").write_bytes(pickle.dumps({"conv1.weight": Harm()}))
        try:
            spikingjelly.load(ours(lif), folder / "harm.pth")
        except pickle.UnpicklingError:
            print("all as it was; the pickle stayed shut")
        else:
            raise AssertionError("it opened a pickle")


if __name__ == "__main__":
    main()
