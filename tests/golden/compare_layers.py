"""Layer by layer in float32: ours against SpikingJelly's, each fed what its got.

    pip install torch torchvision spikingjelly -e .
    python tests/golden/compare_layers.py

A whole float32 network cannot be compared: SpikingJelly's own float32 differs from its
float64 in 1 % of the spikes of a deep net, since one flip makes others. So each layer
(convolution, BatchNorm, neurons) gets the input that SpikingJelly's got. A neuron may
differ first where its membrane lies within 1e-5 of the threshold, and is followed no
further. Exits with 1 where one differs elsewhere.
"""

import re
import sys

import jax
import jax.numpy as jnp
import nets
import numpy as np
import torch
from flax import nnx
from make_spikingjelly import network, sequence
from spikingjelly.activation_based import layer, neuron

from snnjax import models, neurons
from snnjax.interop import spikingjelly

NEAR = 1e-5


def to_ours(x: torch.Tensor) -> np.ndarray:
    """[T, B, C, H, W] as [T, B, H, W, C]."""
    return x.detach().numpy().transpose(0, 1, 3, 4, 2)


def oracle(config: str) -> tuple[dict, dict]:
    """Each convolution's input and each neuron's spikes, by name, in float32."""
    model = network(config).float().eval()
    inputs, spikes = {}, {}

    def keep(name):
        def hook(module, given, output):
            if isinstance(module, neuron.BaseNode):
                spikes[name] = to_ours(output)
            else:
                inputs[name] = to_ours(given[0])

        return hook

    for name, module in model.named_modules():
        if isinstance(module, (neuron.BaseNode, layer.Conv2d)):
            module.register_forward_hook(keep(name))
    with torch.no_grad():
        model(sequence().float())
    return inputs, spikes


def ours(config: str) -> models.SEWResNet:
    name, connect, decay_input = nets.parse(config)
    lif = neurons.LIF(decay_input=decay_input)
    model = getattr(models, name)(
        nets.CLASSES, connect=connect, neuron=lif, rngs=nnx.Rngs(0)
    )
    shapes = {key: x.shape for key, x in spikingjelly.save(model).items()}
    return spikingjelly.load(model, nets.weights(shapes))


def part(model: nnx.Module, name: str) -> nnx.Module:
    for piece in name.split("."):
        model = model[int(piece)] if piece.isdigit() else getattr(model, piece)
    return model


def neighbours(conv: str) -> tuple[str, str]:
    """The BatchNorm and the neurons behind a convolution."""
    if "downsample" in conv:
        return conv[:-1] + "1", conv.removesuffix(".0") + "_sn"
    return re.sub(r"conv(\d)$", r"bn\1", conv), re.sub(r"conv(\d)$", r"sn\1", conv)


def potentials(currents: np.ndarray, spikes: np.ndarray, decay: bool) -> np.ndarray:
    """H of a LIF with tau 2, reset where ``spikes`` say, in float64."""
    v, found = np.zeros(currents.shape[1:]), []
    for x, s in zip(currents.astype(float), spikes, strict=True):
        h = v + (x - v) / 2 if decay else v / 2 + x
        found.append(h)
        v = h * (1 - s)
    return np.array(found)


def compare(config: str) -> tuple[int, int, int, float]:
    """Outputs, potentials near the threshold, flips, the farthest of those from it."""
    inputs, expected = oracle(config)
    model, flips, near, number, farthest = ours(config), 0, 0, 0, 0.0
    decay = nets.parse(config)[2]

    def run(conv, norm, spiking, x):
        currents = part(model, norm)(part(model, conv)(x))
        return currents, part(model, spiking)(currents)

    for conv, x in inputs.items():
        norm, spiking = neighbours(conv)
        currents, got = map(np.asarray, run(conv, norm, spiking, jnp.asarray(x)))
        right = expected[spiking]
        number += right.size
        away = np.abs(potentials(currents, right, decay) - 1)
        near += int((away <= NEAR).sum())
        differs = got != right
        if differs.any():
            first = np.argmax(differs, axis=0)[None]
            where = differs.any(axis=0)
            away = np.take_along_axis(away, first, 0)[0]
            flips += int(where.sum())
            farthest = max(farthest, float(away[where].max()))
    return number, near, flips, farthest


def main() -> None:
    assert not jax.config.jax_enable_x64
    failed = False
    for config in nets.CONFIGS:
        number, near, flips, farthest = compare(config)
        failed |= farthest > NEAR
        print(
            f"{config}: {number} outputs, {near} within {NEAR:g} of the threshold; "
            f"{flips} neurons flip, at most {farthest:.1e} from it"
        )
    sys.exit(failed)


if __name__ == "__main__":
    main()
