"""snnjax: networks through `train`'s own step, and layers of neurons."""

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from experiments.benchmark.workers.serve import Commands, serve
from snnjax import data, models, process, train
from snnjax.layers import BatchNorm, QuantConv, QuantLinear, Spiking
from snnjax.models.parts import norm_and_spike
from snnjax.neurons import LIF
from snnjax.train import sharding


class ConvNet(nnx.Module):
    """3x3 convolutions, each with neurons behind it, and a linear layer."""

    def __init__(self, widths, strides, *, rngs):
        sizes = zip((3, *widths), widths, strides, strict=False)
        self.convs = nnx.List(
            QuantConv(
                i, o, kernel_size=3, strides=s, padding=1, spikes=i > 3, rngs=rngs
            )
            for i, o, s in sizes
        )
        neuron = LIF(decay_input=False, v_reset=None)
        self.neurons = nnx.List(Spiking(neuron) for _ in widths)
        self.fc = QuantLinear(widths[-1], 10, rngs=rngs)

    def __call__(self, x, *, timesteps, train=False, record=None):
        for i, (conv, spiking) in enumerate(zip(self.convs, self.neurons, strict=True)):
            x = conv(x, train=train)
            if i == 0:  # a still image is convolved once
                x = jnp.stack([x] * timesteps)
            x = spiking(x)
        return self.fc(jnp.mean(x, axis=(2, 3)), train=train), {}


def make_network(spec: dict[str, Any]) -> nnx.Module:
    rngs = nnx.Rngs(0)
    if "widths" in spec:
        return ConvNet(spec["widths"], spec["strides"], rngs=rngs)
    sizes = {"blocks": spec["blocks"], "width": spec["width"]}
    return models.SEWResNet(10, **sizes, remat=spec["remat"], rngs=rngs)


def make_network_commands(spec: dict[str, Any]) -> Commands:
    """Return ``step``, ``eval`` and ``compile``: train, predict, compile the step."""
    batch, timesteps = spec["batch"], spec["timesteps"]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, 32, 32, 3), np.uint8)
    dataset = data.from_arrays(images, rng.integers(0, 10, batch), num_classes=10)
    model, optimizer = make_network(spec), train.sgd(0.01, weight_decay=5e-4)
    graphdef, *state = train.split(model)
    mesh = train.make_mesh() if jax.device_count() > 1 else None
    train_step = train.make_train_step(
        graphdef, optimizer, timesteps=timesteps, mesh=mesh
    )
    arrays = data.on_device(dataset)
    indices = sharding.shard(np.arange(batch, dtype=np.int32), mesh, P(sharding.DATA))
    images_on, key = sharding.shard((arrays, jax.random.key(0)), mesh)
    rest = (images_on, indices, key)
    now = sharding.shard(train.init(model, optimizer), mesh, P(sharding.CONFIG))
    steps = 0

    def step() -> float:
        nonlocal now, steps
        now, metrics = train_step(now, *rest)
        steps += 1
        if steps == 2:  # as train.steps
            process.release_freed_memory()
        return float(metrics.loss[0])

    x = arrays.network_input(jnp.asarray(images))

    @jax.jit
    def forward(params, others, x):
        net = nnx.merge(graphdef, params, others, copy=True)
        # No train is kept.
        return net(x, timesteps=timesteps, record=lambda spikes: ())[0]

    return {
        "step": step,
        "eval": lambda: forward(*state, x).block_until_ready(),
        "compile": lambda: train_step.lower(now, *rest).compile(),
    }


class Neurons(nnx.Module):
    """A layer of LIF neurons, behind a BatchNorm as in the models, or alone."""

    def __init__(self, channels: int, norm: bool):
        self.norm = BatchNorm(channels) if norm else None
        self.spiking = Spiking(LIF())

    def __call__(self, x):
        if self.norm is None:
            return self.spiking(x)
        return norm_and_spike(self.norm, self.spiking, x, train=True)


def make_neurons(spec: dict[str, Any]) -> Commands:
    """Return ``step``, which runs a layer of neurons forward and backward."""
    shape = (spec["timesteps"], spec["batch"], 32, 32, spec["channels"])
    rng = np.random.default_rng(0)
    x, dy = (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(2))
    layer = Neurons(spec["channels"], spec["norm"])
    graphdef, params, rest = train.split(layer)

    @jax.jit
    def step(params, rest, x, dy):
        def spikes(params, x):
            return nnx.merge(graphdef, params, rest, copy=True)(x)

        y, backward = jax.vjp(spikes, params, x)
        return y, backward(dy)

    return {"step": lambda: jax.block_until_ready(step(params, rest, x, dy))}


def make(spec: dict[str, Any]) -> Commands:
    if "cache" in spec:
        # Everything is kept, however small and however quickly compiled.
        jax.config.update("jax_compilation_cache_dir", spec["cache"])
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    return make_neurons(spec) if "channels" in spec else make_network_commands(spec)


if __name__ == "__main__":
    process.tune()  # as the pages advise
    devices = json.loads(sys.argv[1]).get("devices", 1)
    jax.config.update("jax_num_cpu_devices", devices)
    jax.devices()  # the backend's own memory is no network's
    serve(make)
