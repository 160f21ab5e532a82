"""snnTorch, as its tutorials write networks: a loop over time around all layers."""

from typing import Any

import snntorch  # pyrefly: ignore[missing-import]
import torch  # pyrefly: ignore[missing-import]
from snntorch import surrogate  # pyrefly: ignore[missing-import]

from experiments.benchmark.workers.serve import Commands, serve
from experiments.benchmark.workers.torch_steps import make_commands


class ConvNet(torch.nn.Module):
    """3x3 convolutions, each with neurons behind it, and a linear layer."""

    def __init__(self, widths: list[int], strides: list[int], timesteps: int):
        super().__init__()
        sizes = zip((3, *widths), widths, strides, strict=False)
        self.convs = torch.nn.ModuleList(
            torch.nn.Conv2d(i, o, 3, s, padding=1, bias=False) for i, o, s in sizes
        )
        # Its reset by subtraction is detached already.
        atan = surrogate.atan(alpha=2.0)
        self.neurons = torch.nn.ModuleList(
            snntorch.Leaky(beta=0.5, spike_grad=atan) for _ in widths
        )
        self.fc = torch.nn.Linear(widths[-1], 10)
        self.timesteps = timesteps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        membranes = [neuron.reset_mem() for neuron in self.neurons]
        logits = []
        for _ in range(self.timesteps):
            x = images
            for i, (conv, neuron) in enumerate(
                zip(self.convs, self.neurons, strict=True)
            ):
                x, membranes[i] = neuron(conv(x), membranes[i])
            logits.append(self.fc(x.mean((2, 3))))
        return torch.stack(logits)


def make(spec: dict[str, Any]) -> Commands:
    torch.manual_seed(0)
    net = ConvNet(spec["widths"], spec["strides"], spec["timesteps"])
    images = torch.randn(spec["batch"], 3, 32, 32)
    return make_commands(net, lambda: images, spec["batch"], reset=lambda: None)


if __name__ == "__main__":
    serve(make)
