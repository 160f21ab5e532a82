"""SpikingJelly: multi-step, in the contiguous or in the channels-last format."""

from typing import Any

import torch  # pyrefly: ignore[missing-import]
from spikingjelly.activation_based import (  # pyrefly: ignore[missing-import]
    functional,
    layer,
    neuron,
    surrogate,
)
from spikingjelly.activation_based.model.sew_resnet import (  # pyrefly: ignore[missing-import]
    BasicBlock,
    conv1x1,
)

from experiments.benchmark.workers.serve import Commands, serve
from experiments.benchmark.workers.torch_steps import make_commands

LIF = {
    "tau": 2.0,
    "surrogate_function": surrogate.ATan(alpha=2.0),
    "detach_reset": True,
}


def sew_resnet(blocks: list[int], width: int) -> torch.nn.Module:
    """Return SpikingJelly's own network, with CIFAR's stem and any number of stages."""
    block = {"cnf": "ADD", "spiking_neuron": neuron.LIFNode, **LIF}
    stem = layer.Conv2d(3, width, 3, padding=1, bias=False)
    layers = [stem, layer.BatchNorm2d(width), neuron.LIFNode(**LIF)]
    planes = width
    for stage, number in enumerate(blocks):
        wide = width * 2**stage
        for i in range(number):
            stride, downsample = 1, None
            if stage and i == 0:
                stride = 2
                shortcut = conv1x1(planes, wide, stride), layer.BatchNorm2d(wide)
                downsample = torch.nn.Sequential(*shortcut)
            norm = {"norm_layer": layer.BatchNorm2d}
            layers.append(BasicBlock(planes, wide, stride, downsample, **norm, **block))
            planes = wide
    return torch.nn.Sequential(*layers, *head(planes))


def conv_net(widths: list[int], strides: list[int]) -> torch.nn.Module:
    """3x3 convolutions, each with neurons behind it, and a linear layer."""
    layers = []
    for c_in, c_out, stride in zip((3, *widths), widths, strides, strict=False):
        layers += [
            layer.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False),
            neuron.LIFNode(decay_input=False, v_reset=None, **LIF),
        ]
    return torch.nn.Sequential(*layers, *head(widths[-1]))


def head(features: int) -> tuple[torch.nn.Module, ...]:
    """Return the mean over positions, and a linear layer."""
    pool = layer.AdaptiveAvgPool2d((1, 1))
    return pool, torch.nn.Flatten(2), layer.Linear(features, 10)


def make_network_commands(spec: dict[str, Any]) -> Commands:
    if "widths" in spec:
        net = conv_net(spec["widths"], spec["strides"])
    else:
        net = sew_resnet(spec["blocks"], spec["width"])
    functional.set_step_mode(net, "m")
    images = torch.randn(spec["batch"], 3, 32, 32)
    if spec["channels_last"]:
        net = net.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    timesteps, batch = spec["timesteps"], spec["batch"]

    def sequence() -> torch.Tensor:
        # Repeated along the batch, which keeps the format of the images.
        return images.repeat(timesteps, 1, 1, 1).unflatten(0, (timesteps, batch))

    return make_commands(net, sequence, batch, lambda: functional.reset_net(net))


def make_neurons(spec: dict[str, Any]) -> Commands:
    """Return ``step``: a layer of LIF neurons forward and backward."""
    timesteps, batch, channels = spec["timesteps"], spec["batch"], spec["channels"]
    norm = [layer.BatchNorm2d(channels)] if spec["norm"] else []
    net = torch.nn.Sequential(*norm, neuron.LIFNode(**LIF))
    functional.set_step_mode(net, "m")
    x, dy = torch.randn(2, timesteps * batch, channels, 32, 32)
    if spec["channels_last"]:
        x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
    x, dy = (t.unflatten(0, (timesteps, batch)) for t in (x, dy))
    x.requires_grad_()

    def step() -> None:
        x.grad = None
        net.zero_grad(set_to_none=True)
        net(x).backward(dy)
        functional.reset_net(net)

    return {"step": step}


def make(spec: dict[str, Any]) -> Commands:
    torch.manual_seed(0)
    return make_neurons(spec) if "channels" in spec else make_network_commands(spec)


if __name__ == "__main__":
    serve(make)
