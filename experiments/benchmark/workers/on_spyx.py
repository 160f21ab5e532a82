"""spyx, as its guide writes networks: a scan over time around all layers."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import spyx.nn  # pyrefly: ignore[missing-import]
import spyx.optimize  # pyrefly: ignore[missing-import]
from flax import nnx
from spyx import axn  # pyrefly: ignore[missing-import]

from experiments.benchmark.workers.serve import Commands, serve

# spyx's own arctan has another height; this is the derivative that the others have.
ATAN = axn.custom(lambda x: 1 / (1 + (jnp.pi * x) ** 2))


def conv_net(widths: list[int], strides: list[int]) -> Any:
    """3x3 convolutions, each with neurons behind it, and a linear layer."""
    layers, size, rngs = [], 32, nnx.Rngs(0)
    for c_in, c_out, stride in zip((3, *widths), widths, strides, strict=False):
        size //= stride
        options = {"strides": stride, "padding": 1, "use_bias": False}
        layers += [
            nnx.Conv(c_in, c_out, (3, 3), **options, rngs=rngs),
            spyx.nn.LIF((size, size, c_out), beta=0.5, activation=ATAN, rngs=rngs),
        ]
    linear = nnx.Linear(widths[-1], 10, rngs=rngs)
    return spyx.nn.Sequential(*layers, lambda x: x.mean((1, 2)), linear)


def make(spec: dict[str, Any]) -> Commands:
    """Return ``step``, which trains, and ``eval``, which predicts."""
    net = conv_net(spec["widths"], spec["strides"])
    kx, ky = jax.random.split(jax.random.key(0))
    images = jax.random.normal(kx, (spec["batch"], 32, 32, 3))
    labels = jax.random.randint(ky, (spec["batch"],), 0, 10)

    def logits(net, images):
        sequence = jnp.broadcast_to(images, (spec["timesteps"], *images.shape))
        return spyx.nn.run(net, sequence)[0]

    def loss(net, images, labels):
        mean = logits(net, images).mean(0)
        losses = optax.softmax_cross_entropy_with_integer_labels(mean, labels)
        return losses.mean()

    decay, sgd = optax.add_decayed_weights(5e-4), optax.sgd(0.01, 0.9, nesterov=True)
    optimizer = nnx.Optimizer(net, optax.chain(decay, sgd), wrt=nnx.Param)
    train_step = spyx.optimize.make_train_step(loss)
    forward = nnx.jit(logits)

    def step() -> float:
        return float(train_step(net, optimizer, images, labels))

    if spec["command"] == "step":
        # The types of its states change at first, and each change compiles again.
        for _ in range(3):
            step()
    return {"step": step, "eval": lambda: forward(net, images).block_until_ready()}


if __name__ == "__main__":
    jax.devices()  # the backend's own memory is no network's
    serve(make)
