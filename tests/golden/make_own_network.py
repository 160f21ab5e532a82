"""Write own_network.npz: what SpikingJelly computes for a network of one's own.

    pip install torch spikingjelly
    python tests/golden/make_own_network.py

A feed-forward network with all kinds of layers that `models.Sequential` is made of, in
float64 on the CPU: spikes and logits with running statistics; loss, gradients and new
running statistics of one training step. Thresholds and time constants are numbers that
float32 holds, in which snnjax keeps them.
"""

import platform
from collections import OrderedDict
from importlib.metadata import version
from pathlib import Path

import nets
import numpy as np
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate

STEPS, BATCH, CLASSES = 5, 4, 6


def lif(**more) -> neuron.LIFNode:
    return neuron.LIFNode(
        surrogate_function=surrogate.ATan(alpha=2.0), detach_reset=True, **more
    )


def network() -> torch.nn.Sequential:
    layers = OrderedDict(
        conv1=layer.Conv2d(2, 6, (2, 5), padding=(1, 2), bias=False),
        bn1=layer.BatchNorm2d(6),
        sn1=lif(tau=2.0),
        pool1=layer.AvgPool2d(2),
        conv2=layer.Conv2d(6, 8, 3, stride=2, padding=1, groups=2),
        bn2=layer.BatchNorm2d(8),
        sn2=lif(tau=3.0, v_threshold=3.0, decay_input=False, v_reset=None),
        pool2=layer.MaxPool2d(2),
        flatten=layer.Flatten(),
        fc1=layer.Linear(16, 12),
        sn3=lif(tau=1.5, v_threshold=0.75),
        fc2=layer.Linear(12, CLASSES),
    )
    model = torch.nn.Sequential(layers).double()
    functional.set_step_mode(model, "m")
    shapes = {
        key: tuple(x.shape)
        for key, x in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    state = {key: torch.from_numpy(x) for key, x in nets.weights(shapes).items()}
    model.load_state_dict(state, strict=False)
    return model


def main() -> None:
    images = torch.from_numpy(nets.draw("own images", (BATCH, 2, 8, 16)))
    sequence = images.unsqueeze(0).repeat(STEPS, 1, 1, 1, 1)
    labels = torch.arange(BATCH) * 5 % CLASSES
    found = {
        f"weights/{k}": x.numpy().copy() for k, x in network().state_dict().items()
    }

    model = network().eval()
    for name, module in model.named_children():
        if isinstance(module, neuron.LIFNode):
            module.register_forward_hook(
                lambda _, inputs, output, name=name: found.update(
                    {f"spikes/{name}": output.detach().numpy().astype(np.uint8)}
                )
            )
    with torch.no_grad():
        found["logits"] = model(sequence).numpy()

    model = network().train()
    loss = torch.nn.functional.cross_entropy(model(sequence).mean(0), labels)
    loss.backward()
    found["loss"] = np.array(loss.item())
    for key, parameter in model.named_parameters():
        found[f"gradients/{key}"] = parameter.grad.numpy()
    for key, tensor in model.state_dict().items():
        if "running" in key:
            found[f"statistics/{key}"] = tensor.numpy()
    versions = [
        f"{name} {version(name)}" for name in ("torch", "spikingjelly", "numpy")
    ]
    found["versions"] = np.array([f"python {platform.python_version()}", *versions])
    found["images"], found["labels"] = images.numpy(), labels.numpy()
    for key, x in found.items():
        if key.startswith("spikes"):
            print(key, x.shape, x.mean())
    path = Path(__file__).with_name("own_network.npz")
    np.savez_compressed(path, **found)
    print(path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
