import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calibrated import Net, batches
from flax import nnx

from snnjax import layers, models, neurons
from snnjax.quantize import QuantSpec


def keep(layer, x):
    return x


def test_inputs_are_shown_and_the_network_is_as_it_was():
    model, [images] = Net(), batches(1)
    structure, plain = nnx.split(model)[0], model(images)[0]
    with layers.observe(model, {"sn2": keep, "conv2": keep}) as found:
        shown, spikes = model(images)
    assert nnx.split(model)[0] == structure
    np.testing.assert_array_equal(shown, plain)
    np.testing.assert_array_equal(found["conv2"], spikes["sn1"])
    np.testing.assert_array_equal(model.sn2(found["sn2"]), spikes["sn2"])
    with (
        pytest.raises(ValueError, match="observers"),
        layers.observe(model, {"x": keep}),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "full"])
def test_gradients_pass_through_what_is_shown(remat):
    model = models.sew_resnet8(width=2, in_channels=1, remat=remat, rngs=nnx.Rngs(0))
    images = batches(1)[0][..., :1]
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    @jax.grad
    def slope(params):
        copy = nnx.merge(graphdef, params, rest, copy=True)
        copy.train()
        names = {"layer1.0.sn2": layers.Spiking.potentials}
        with layers.observe(copy, names) as found:
            copy(images)
        return jnp.mean(jnp.square(found["layer1.0.sn2"]))

    kernel = slope(params)["layer1"][0]["bn2"]["scale"].get_value()
    assert float(jnp.abs(kernel).min()) > 0


@pytest.mark.parametrize("site", ["post_reset", "pre_fire"])
@pytest.mark.parametrize(
    "neuron", [neurons.LIF(), neurons.IF(v_reset=None), neurons.PLIF(tau=3.0)]
)
def test_potentials_fire_where_the_neuron_does(neuron, site):
    quant = QuantSpec(bits=4, clip=2.0)
    layer = layers.Spiking(neuron, quant=quant, site=site)
    currents = jax.random.normal(jax.random.key(0), (10, 2, 50)) + 0.5
    spikes, potentials = layer(currents), layer.potentials(currents)
    assert 0 < float(spikes.mean()) < 1
    np.testing.assert_array_equal(potentials >= 1, spikes == 1)


def test_potentials_of_a_leaky_neuron_by_hand():
    layer = layers.Spiking(neurons.LIF(tau=2.0))
    currents = np.random.default_rng(0).normal(0.5, 1, (6, 1, 30))
    v, expected = np.zeros((1, 30)), []
    for x in currents:
        h = v + (x - v) / 2
        expected.append(h)
        v = np.where(h >= 1, 0, h)
    found = layer.potentials(jnp.asarray(currents, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("feedback", ["all_to_all", "one_to_one"])
def test_the_current_of_recurrent_neurons_has_what_comes_back(feedback):
    layer = layers.Recurrent(
        4, neurons.LIF(v_threshold=0.5), feedback=feedback, rngs=nnx.Rngs(0)
    )
    x = np.random.default_rng(0).uniform(0, 2, (7, 3, 4)).astype(np.float32)
    with layers.observe(layer, {"sn": lambda layer, x: x}) as found:
        spikes = np.asarray(layer(x))
    w = np.asarray(layer.feedback.kernel.get_value())
    bias = getattr(layer.feedback, "bias", None)
    before = np.concatenate([np.zeros((1, 3, 4)), spikes[:-1]])
    back = before * w.ravel() if feedback == "one_to_one" else before @ w
    expected = x + back + (0 if bias is None else np.asarray(bias.get_value()))
    np.testing.assert_allclose(found["sn"], expected, atol=1e-5)
    assert spikes.any()
    assert "sn" not in vars(layer.sn)
    assert np.array_equal(layer.sn(found["sn"]), spikes)
