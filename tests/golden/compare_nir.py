"""Graphs of NIR in SpikingJelly: read by it, they answer as our network does.

    pip install torch torchvision spikingjelly nirtorch -e '.[interop]'
    python tests/golden/compare_nir.py

In float64, through a file. Raises where logits of a step are more than 1e-9 apart, and
where they are equal at all steps, as of a network that does not fire.
"""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import nir
import numpy as np
import torch
from flax import nnx
from spikingjelly.activation_based.nir_exchange import import_from_nir

from snnjax import calibrate, layers, models, neurons
from snnjax.interop import nir as interop
from snnjax.quantize import QuantSpec

STEPS, IMAGES = 4, 2
NEURONS = {
    "lif": neurons.LIF(),
    "not decayed": neurons.LIF(tau=1.7, decay_input=False, v_threshold=1.8),
    "if": neurons.IF(),
    "plif": neurons.PLIF(tau=3.0),
}


def network(make, neuron) -> models.SEWResNet:
    model = make(10, width=8, neuron=neuron, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    drawn = np.random.default_rng(0)
    for _, layer in nnx.iter_modules(model):
        if isinstance(layer, layers.BatchNorm):
            shape = layer.bias.get_value().shape
            for part, low, high in (
                (layer.bias, 0.0, 2.5),
                (layer.mean, -0.2, 0.2),
                (layer.var, 0.5, 1.5),
            ):
                part.set_value(jnp.asarray(drawn.uniform(low, high, shape)))
    spec = QuantSpec(method="uniform", bits=4, clip=0.5, grid="mid_rise")
    return calibrate.quantize(model, {r"layer.*conv\d|fc": spec})


def compare(name: str, make, folder: Path) -> None:
    model = network(make, NEURONS[name])
    image = np.random.default_rng(1).normal(size=(IMAGES, 32, 32, 3))
    logits, spikes = jax.jit(lambda x: model(x, timesteps=STEPS))(image)
    path = folder / "network.nir"
    nir.write(path, interop.graph(model))
    theirs = import_from_nir(path, dtype=torch.float64)
    current = torch.from_numpy(image.transpose(0, 3, 1, 2).copy())
    state, answers = None, []
    with torch.no_grad():
        for _ in range(STEPS):
            answer, state = theirs(current, state)
            answers.append(answer.numpy())
    apart = float(np.abs(np.stack(answers) - np.asarray(logits)).max())
    rates = {layer: float(s.mean()) for layer, s in spikes.items()}
    low, high = min(rates.values()), max(rates.values())
    print(f"{make.__name__}, {name}: {apart:.1e} apart, rates {low:.2f} to {high:.2f}")
    assert apart < 1e-9
    assert float(np.abs(np.diff(answers, axis=0)).max()) > 1e-3


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    print(f"nir {nir.version}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        for name in NEURONS:
            compare(name, models.sew_resnet8, Path(folder))
        compare("lif", models.sew_resnet18, Path(folder))


if __name__ == "__main__":
    main()
