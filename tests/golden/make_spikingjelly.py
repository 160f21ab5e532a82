"""Write spikingjelly.json: what SpikingJelly computes for the networks of nets.py.

    pip install torch torchvision spikingjelly
    python tests/golden/make_spikingjelly.py

Everything in float64 on the CPU: spikes and logits with running statistics; loss,
gradients and new running statistics of one training step.
"""

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import nets
import numpy as np
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet


def network(config: str) -> torch.nn.Module:
    """SpikingJelly's network with the CIFAR stem and our numbers, in float64."""
    name, connect, decay_input = nets.parse(config)
    model = getattr(sew_resnet, name)(
        cnf=connect.upper(),
        spiking_neuron=neuron.LIFNode,
        num_classes=nets.CLASSES,
        tau=2.0,
        decay_input=decay_input,
        surrogate_function=surrogate.ATan(alpha=2.0),
        detach_reset=True,
    )
    model.conv1 = layer.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    model.maxpool = torch.nn.Identity()
    functional.set_step_mode(model, "m")
    model = model.double()
    shapes = {
        key: tuple(tensor.shape)
        for key, tensor in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    state = {key: torch.from_numpy(x) for key, x in nets.weights(shapes).items()}
    missing, unused = model.load_state_dict(state, strict=False)
    assert not unused
    assert all(key.endswith("num_batches_tracked") for key in missing)
    return model


def sequence() -> torch.Tensor:
    images = torch.from_numpy(nets.images())
    return images.unsqueeze(0).repeat(nets.TIMESTEPS, 1, 1, 1, 1)


def record(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Every layer's spikes [T, B, H, W, C] of the next pass, by name."""
    spikes = {}

    def keep(name):
        def hook(module, inputs, output):
            spikes[name] = output.detach().permute(0, 1, 3, 4, 2).numpy()

        return hook

    for name, module in model.named_modules():
        if isinstance(module, neuron.BaseNode):
            module.register_forward_hook(keep(name))
    return spikes


def compute(config: str) -> dict:
    model = network(config).eval()
    spikes = record(model)
    with torch.no_grad():
        logits = model(sequence())
    evaluated = {
        name: [nets.fingerprint(train), float(train.mean())]
        for name, train in spikes.items()
    }
    silent = {name: rate for name, (_, rate) in evaluated.items() if rate < 0.02}
    assert not silent, f"{config}: {silent}"

    model = network(config).train()
    trained = model(sequence())
    labels = torch.from_numpy(nets.labels())
    loss = torch.nn.functional.cross_entropy(trained.mean(0), labels)
    loss.backward()
    gradients = {
        key: nets.sketch(key, parameter.grad.numpy())
        for key, parameter in model.named_parameters()
    }
    statistics = {
        key: nets.sketch(key, tensor.numpy())
        for key, tensor in model.state_dict().items()
        if "running" in key
    }
    return {
        "spikes": evaluated,
        "logits": logits.numpy().tolist(),
        "loss": loss.item(),
        "gradients": gradients,
        "statistics": statistics,
    }


def main() -> None:
    packages = ("torch", "spikingjelly", "numpy")
    versions = {name: version(name) for name in packages}
    versions["python"] = platform.python_version()
    found = {}
    for config in nets.CONFIGS:
        found[config] = compute(config)
        rates = [rate for _, rate in found[config]["spikes"].values()]
        print(f"{config}: rates {min(rates):.3f} to {max(rates):.3f}", file=sys.stderr)
    lines = [
        f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found.items()
    ]
    path = Path(__file__).with_name("spikingjelly.json")
    path.write_text(
        f'{{"versions": {json.dumps(versions)},\n' + ",\n".join(lines) + "\n}\n"
    )


if __name__ == "__main__":
    main()
