"""A network of one's own against the same in SpikingJelly, in float64.

The numbers are those of make_own_network.py.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import layers, models, neurons
from snnjax import train as training

WIDE = dict(dtype=jnp.float64, param_dtype=jnp.float64)


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).with_name("own_network.npz")) as file:
        return dict(file)


def network():
    wide = WIDE | dict(rngs=nnx.Rngs(0))
    lif = functools.partial(neurons.LIF, alpha=2.0)
    soft = lif(tau=3.0, v_threshold=3.0, decay_input=False, v_reset=None)
    return models.Sequential(
        {
            "conv1": layers.QuantConv(2, 6, kernel_size=(2, 5), padding=(1, 2), **wide),
            "bn1": layers.BatchNorm(6, param_dtype=jnp.float64),
            "sn1": layers.Spiking(lif(tau=2.0)),
            "pool1": layers.AvgPool(2),
            "conv2": layers.QuantConv(
                *(6, 8),
                **dict(kernel_size=3, strides=2, padding=1, groups=2, use_bias=True),
                **wide,
            ),
            "bn2": layers.BatchNorm(8, param_dtype=jnp.float64),
            "sn2": layers.Spiking(soft),
            "pool2": layers.MaxPool(2),
            "flatten": layers.Flatten(),
            "fc1": layers.QuantLinear(16, 12, **wide),
            "sn3": layers.Spiking(lif(tau=1.5, v_threshold=0.75)),
            "fc2": layers.QuantLinear(12, 6, **wide),
        },
        in_shape=(8, 16, 2),
    )


def to_ours(key, x):
    """Return a name and an array in our layout."""
    layer, part = key.split(".")
    names = {"running_mean": "mean", "running_var": "var", "bias": "bias"}
    if part == "weight" and x.ndim == 1:
        return layer, "scale", x
    if key == "fc1.weight":  # flattened channels first there
        x = x.reshape(12, 8, 1, 2).transpose(0, 2, 3, 1).reshape(12, 16)
    if part == "weight":
        x = x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T
    return layer, names.get(part, "kernel"), x


def of(golden, kind):
    for key, x in golden.items():
        if key.startswith(kind + "/") and not key.endswith("num_batches_tracked"):
            yield to_ours(key.removeprefix(kind + "/"), x)


@pytest.mark.slow
def test_a_network_of_ones_own_is_spikingjellys(golden, x64):
    model = network()
    for layer, part, x in of(golden, "weights"):
        getattr(getattr(model, layer), part).set_value(jnp.asarray(x))
    images = jnp.asarray(golden["images"].transpose(0, 2, 3, 1))
    logits, spikes = nnx.jit(lambda model, x: model(x, timesteps=5))(model, images)
    for layer, found in spikes.items():
        expected = golden[f"spikes/{layer}"]
        if expected.ndim == 5:
            expected = expected.transpose(0, 1, 3, 4, 2)
        assert 0.05 < expected.mean() < 0.95
        assert np.array_equal(found, expected), layer
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-12, atol=1e-12)

    model.train()
    compute = nnx.value_and_grad(training.loss_fn, has_aux=True)
    (loss, _), gradients = nnx.jit(compute, static_argnums=3)(
        model, images, jnp.asarray(golden["labels"]), 5
    )
    assert float(loss) == pytest.approx(float(golden["loss"]), abs=1e-12)
    checked = 0
    for layer, part, expected in of(golden, "gradients"):
        found = gradients[layer][part].get_value()
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * max(scale, 1))
        checked += 1
    assert checked == len(jax.tree.leaves(gradients))
    for layer, part, expected in of(golden, "statistics"):
        found = getattr(getattr(model, layer), part).get_value()
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
