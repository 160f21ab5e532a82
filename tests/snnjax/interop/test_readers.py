"""Other libraries run our files: NIR's by their readers, snnTorch's script by itself.

In an environment of their own, since torch must not come into ours: its python is in
``$SNNJAX_PEERS_PYTHON`` (tests/golden/compare_readers.py says what it needs).
"""

import copy
import json
import os
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins
from flax import nnx

from snnjax import models, neurons
from snnjax.interop import nir as interop
from snnjax.interop import snntorch
from snnjax.quantize import QuantSpec

ROOT = Path(__file__).parents[3]
STEPS = 4
VGG = dict(stages=((1, 1), (2, 2)), image_size=(8, 8))
NETWORKS = {
    "vgg": (models.SpikingVGG, VGG),
    "if": (models.SpikingVGG, VGG | dict(neuron=neurons.IF())),
    "tau3": (models.SpikingVGG, VGG | dict(neuron=neurons.LIF(tau=3.0))),
    "sew": (models.SEWResNet, dict(blocks=(1, 1))),
}
# What each reads right: our graphs, and the same neurons with R = 1, which are valid
# too. snn-mlir 1.0 silently reads those without memory; it and snnTorch 1.0 refuse IF;
# sinabs 2.0 refuses neurons of images.
WITH_LEAK = [name for name in NETWORKS if name != "if"]
RIGHT = {
    "snntorch": {f"{n}-{form}" for n in WITH_LEAK for form in ("ours", "one")},
    "spikingjelly": {f"{n}-{form}" for n in NETWORKS for form in ("ours", "one")},
    "sinabs": set(),
    "snn_mlir": {"vgg-ours", "tau3-ours"},
}


@pytest.fixture(scope="module")
def peers():
    """Python of an environment with the other libraries."""
    python = os.environ.get("SNNJAX_PEERS_PYTHON")
    if not python:
        pytest.skip("$SNNJAX_PEERS_PYTHON names no python with torch and the readers")
    return python


def make(name, **options):
    cls, own = NETWORKS[name]
    spec = QuantSpec(bits=4, clip="absmax")
    return twins.make(cls, weight_quant=spec, **own, **options)


def with_r_of_1(graph):
    """The same network with R = 1 and weights that many times as large."""
    import nir

    graph = copy.deepcopy(graph)
    for source, target in graph.edges:
        node, before = graph.nodes[target], graph.nodes[source]
        if isinstance(node, nir.LIF) and hasattr(before, "weight"):
            tau = node.r.ravel()[0]
            before.weight, before.bias = before.weight * tau, before.bias * tau
            node.r = np.ones_like(node.r)
        elif isinstance(node, nir.LIF):  # behind a pooling
            node.v_threshold = node.v_threshold / node.r
            node.r = np.ones_like(node.r)
    return graph


@pytest.mark.slow
def test_readers_of_nir(peers, tmp_path):
    nir = pytest.importorskip("nir")
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    for name in NETWORKS:
        model = make(name)
        logits, spikes = jax.jit(lambda m, x: m(x, timesteps=STEPS))(model, image)
        assert min(float(s.mean()) for s in spikes.values()) > 0.02
        graph = interop.graph(model, image_size=(8, 8), dt=1e-4)
        nir.write(tmp_path / f"{name}-ours.nir", graph)
        nir.write(tmp_path / f"{name}-one.nir", with_r_of_1(graph))
        turned = image.transpose(0, 3, 1, 2).copy()
        np.savez(tmp_path / f"{name}.npz", image=turned, logits=np.asarray(logits))
    script = ROOT / "tests/golden/compare_readers.py"
    done = subprocess.run(
        [peers, script, tmp_path], capture_output=True, text=True, check=True
    )
    answers = json.loads(done.stdout)
    right = {
        reader: {name for name, answer in graphs.items() if answer == "right"}
        for reader, graphs in answers.items()
    }
    assert right == RIGHT, done.stdout


def widen(x):
    return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x


def put_channels_first(x, axis):
    return np.moveaxis(x, -1, axis)


RUN = """
import importlib.util, sys
import numpy as np, torch
spec = importlib.util.spec_from_file_location("network", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
network = module.Network().eval()
with np.load(sys.argv[2]) as arrays, torch.no_grad():
    image = torch.from_numpy(arrays["image"])
    for step in range(len(arrays["logits"])):
        logits, spikes = network(image)
        assert np.abs(logits.numpy() - arrays["logits"][step]).max() < 1e-9
        assert spikes.keys() | {"image", "logits"} == set(arrays.files)
        for name, train in spikes.items():
            assert np.array_equal(train.numpy(), arrays[name][step]), name
"""


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [*NETWORKS, "own", "vectors"])
def test_the_script_for_snntorch_fires_as_the_network(name, peers, tmp_path):
    if name in NETWORKS:
        model = make(name, param_dtype=jnp.float64)
    else:
        shape = (8, 8, 1) if name == "own" else (16,)
        spec = QuantSpec(bits=4, clip="absmax")
        model = twins.make_sequential(neurons.LIF(), spec, shape)
        graphdef, state = nnx.split(model)
        model = nnx.merge(graphdef, jax.tree.map(widen, state))
    shape = (16,) if name == "vectors" else (8, 8, 1)
    image = np.random.default_rng(0).uniform(size=(3, *shape))
    logits, spikes = jax.jit(lambda m, x: m(x, timesteps=STEPS))(model, image)
    assert min(float(s.mean()) for s in spikes.values()) > 0.02
    turned = {
        layer.replace(".", "_"): put_channels_first(np.asarray(s), 2)
        for layer, s in spikes.items()
    }
    path = tmp_path / "expected.npz"
    turned |= dict(image=put_channels_first(image, 1), logits=np.asarray(logits))
    np.savez(path, **turned)
    script = snntorch.write(model, tmp_path / "torch")
    subprocess.run([peers, "-c", RUN, script, path], check=True)
