"""A user's program, checked by mypy and pyright: the types that snnjax ships hold.

``mypy tests/typing && pyright tests/typing``. It is not run.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from snnjax import (
    calibrate,
    checkpoint,
    data,
    distill,
    emd,
    examples,
    firing,
    integer,
    layers,
    models,
    neurons,
    quantize,
    train,
)
from snnjax.quantize import QuantSpec
from snnjax.report import ReportCard, compare


def make_network(rngs: nnx.Rngs) -> models.Sequential:
    return models.Sequential(
        {
            "conv1": layers.QuantConv(1, 8, kernel_size=3, rngs=rngs),
            "sn1": layers.Spiking(neurons.LIF(tau=2.0)),
            "flatten": layers.Flatten(),
            "fc": layers.QuantLinear(288, 10, rngs=rngs),
        },
        in_shape=(8, 8, 1),
    )


def judge(model: nnx.Module, other: nnx.Module, test: data.Dataset) -> ReportCard:
    counts: firing.FiringCounts = train.evaluate(model, test).counts
    return compare(counts, train.evaluate(other, test).counts, margin=0.01)


def main(path: Path) -> float:
    model, digits, test = examples.digits()
    rules = {r"layer.*conv\d": QuantSpec("lsq", bits=4)}
    quantized: models.SEWResNet = calibrate.quantize(model, rules)
    restored = calibrate.fire_match(quantized, model, digits, images=256)
    card = judge(model, restored, test)
    state: str = card.verdict.state
    drift: float = card.verdict.layers["sn1"].measures["emd"].value

    network = make_network(nnx.Rngs(0))
    trained: models.Sequential = train.fit(
        network,
        digits,
        epochs=1,
        optimizer=optax.adam(1e-3),
        batch_size=32,
        seed=0,
        teacher=model,
        distill=distill.firing(),
    )
    checkpoint.export(path / "network.safetensors", trained)
    twin: integer.IntegerNetwork = integer.from_model(restored)
    twin.save(path / "network.npz")

    weights: jax.Array = quantize.uniform(jnp.ones(3), bits=4, clip=1.0)
    spikes, v = neurons.lif(jnp.ones((4, 3)), tau=2.0)
    total: jax.Array = spikes.sum() + v.sum() + weights.sum()
    w1 = emd.emd_from_counts(np.array([1, 2]), np.array([2, 2]), observations=4)
    return drift + float(total) + float(w1) + len(state)
