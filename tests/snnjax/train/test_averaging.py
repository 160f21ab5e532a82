import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from snnjax import data, layers, models, neurons, train


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_the_average_is_the_documented_sum(decay):
    rng = np.random.default_rng(0)
    inner = optax.sgd(0.1, momentum=0.9)
    plain, averaged = inner, train.average_weights(inner, decay)
    w = expected = rng.normal(size=5)
    params = plain_params = {"w": jnp.asarray(w, jnp.float32)}
    state, plain_state = averaged.init(params), plain.init(params)
    velocity = np.zeros(5)
    for k in range(1, 30):
        gradient = rng.normal(size=5)
        grads = {"w": jnp.asarray(gradient, jnp.float32)}
        updates, state = averaged.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        updates, plain_state = plain.update(grads, plain_state, plain_params)
        plain_params = optax.apply_updates(plain_params, updates)
        velocity = 0.9 * velocity + gradient
        w = w - 0.1 * velocity
        d = min(decay, (1 + k) / (10 + k))
        expected = d * expected + (1 - d) * w
    np.testing.assert_allclose(state.average["w"], expected, atol=1e-5)
    np.testing.assert_array_equal(params["w"], plain_params["w"])


@pytest.mark.nightly
def test_a_network_with_averaged_weights():
    digits = data.load("digits", "train", limit=64)
    model = models.sew_resnet8(10, width=4, in_channels=1, rngs=nnx.Rngs(0))
    optimizer = train.average_weights(train.sgd(0.1), 0.5)
    options = dict(epochs=2, batch_size=32, seed=0, timesteps=2)
    *_, last = train.steps(model, digits, optimizer=optimizer, **options)
    averaged = train.averaged_model(model, last.state)
    trained = train.model_from_state(model, last.state)
    plain = train.fit(model, digits, optimizer=train.sgd(0.1), **options)
    kernels = [np.asarray(m.fc.kernel) for m in (averaged, trained, plain)]
    np.testing.assert_allclose(kernels[1], kernels[2], atol=1e-6)
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-4
    with pytest.raises(ValueError, match="average_weights"):
        train.averaged_model(
            model, last.state._replace(opt_state=last.state.opt_state.inner)
        )


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_decays_out_of_range(decay):
    with pytest.raises(ValueError, match="decay"):
        train.average_weights(optax.sgd(0.1), decay)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_weights_have_an_average_in_float32(dtype):
    """In their own dtype it stops before it is there."""
    optimizer = train.average_weights(optax.sgd(1.0), 0.999)
    params = {"w": jnp.full(2, 2.0, dtype)}
    state = optimizer.init({"w": jnp.ones(2, dtype)})
    still = {"w": jnp.zeros(2, dtype)}
    update = jax.jit(optimizer.update)
    for _ in range(3000):
        _, state = update(still, state, params)
    assert state.average["w"].dtype == jnp.float32
    k = np.arange(1, 3001)
    decay = np.minimum(0.999, (1 + k) / (10 + k))
    np.testing.assert_allclose(state.average["w"], 2 - np.prod(decay), rtol=1e-5)


@pytest.mark.slow
def test_the_averaged_network_has_the_weights_dtype():
    make = models.sew_resnet8
    model = make(3, width=4, in_channels=1, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    state = train.init(model, train.average_weights(optax.sgd(0.1), 0.9))
    found = train.averaged_model(model, state)
    assert found.conv1.kernel.get_value().dtype == jnp.bfloat16


def make_net():
    """Its threshold is learned."""
    rngs = nnx.Rngs(0)
    return models.Sequential(
        {
            "fc1": layers.QuantLinear(6, 8, rngs=rngs),
            "sn1": layers.Spiking(neurons.LIF(), learn=("v_threshold",)),
            "fc2": layers.QuantLinear(8, 3, rngs=rngs),
        },
        in_shape=(6,),
    )


def test_the_average_is_of_weights_within_their_bounds():
    """A threshold that a step would make negative is cut in front of the average."""
    net = make_net()
    draw = np.random.default_rng(0)
    x = draw.normal(size=(16, 4, 6)).astype(np.float32)
    decay, seen = 0.9, []
    loop = train.steps(
        net,
        data.from_arrays(x, np.arange(16) % 3),
        optimizer=train.average_weights(optax.sgd(0.1), decay),
        penalty=lambda rates, target: -100 * jnp.mean(rates["sn1"]),
        batch_size=16,
        steps=8,
        seed=0,
    )
    expected = np.float64(net.sn1.v_threshold[...])
    for n, progress in enumerate(loop, 1):
        threshold = train.model_from_state(net, progress.state).sn1.v_threshold[...]
        seen.append(float(threshold))
        share = 1 - min(decay, (1 + n) / (10 + n))
        expected += share * (seen[-1] - expected)
    assert min(seen) > 0
    found = train.averaged_model(net, progress.state).sn1.v_threshold[...]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_part_of_the_weights_is_averaged():
    """The others are masked, learned thresholds too."""
    net = make_net()

    def kind(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "kernels" if "kernel" in str(path) else "others", params
        )

    parts = {"kernels": train.average_weights(optax.sgd(0.1), 0.9)}
    tx = optax.partition(parts | {"others": optax.sgd(0.1)}, kind)
    x = np.random.default_rng(0).normal(size=(8, 4, 6)).astype(np.float32)
    dataset = data.from_arrays(x, np.arange(8) % 3)
    *_, progress = train.steps(
        net, dataset, optimizer=tx, batch_size=8, steps=2, seed=0
    )
    assert progress.step == 2
