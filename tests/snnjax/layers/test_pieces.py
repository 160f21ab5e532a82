"""State that carries on: pieces equal the whole, to the last bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import layers, models, neurons
from snnjax.quantize import QuantSpec

UNIFORM = QuantSpec(bits=4, grid="mid_tread")
NEURONS = {
    "lif": neurons.LIF(tau=3.0),
    "soft": neurons.LIF(tau=3.0, v_reset=None, v_min=-0.5),
    "if": neurons.IF(),
    "plif": neurons.PLIF(tau=4.0),
    "cuba": neurons.CubaLIF(tau=3.0, tau_syn=1.5),
}
QUANTIZERS = {
    "none": (None, "post_reset"),
    "uniform": (UNIFORM, "post_reset"),
    "pre_fire": (UNIFORM, "pre_fire"),
    "lsq": (QuantSpec("lsq", bits=4), "pre_fire"),
    "mint": (QuantSpec("mint", bits=4), "post_reset"),
}


def split_at(x, cuts):
    return np.split(np.asarray(x), cuts)


def mark(neuron, quantizer):
    if neuron == "lif" or quantizer == "none":
        return ()
    # It has two states; the others differ from LIF by a number.
    return pytest.mark.slow if neuron == "cuba" else pytest.mark.nightly


@pytest.mark.parametrize(
    ("neuron", "quantizer"),
    [pytest.param(n, q, marks=mark(n, q)) for n in NEURONS for q in QUANTIZERS],
)
def test_pieces_of_a_layer_equal_the_whole(neuron, quantizer):
    spec, site = QUANTIZERS[quantizer]
    layer = layers.Spiking(NEURONS[neuron], quant=spec, site=site)
    x = jnp.asarray(np.random.default_rng(0).normal(0.5, 1.5, (13, 3, 5)), jnp.float32)
    run = jax.jit(lambda x, v: layer(x, v_init=v))
    whole, end = run(x, None)
    spikes, v = [], None
    for piece in split_at(x, [1, 2, 6, 9]):
        s, v = run(piece, v)
        spikes.append(s)
    assert np.array_equal(np.concatenate(spikes), whole)
    jax.tree.map(np.testing.assert_array_equal, v, end)
    assert 0 < float(whole.mean()) < 1
    # Without a state it begins at rest, as it always did.
    assert np.array_equal(jax.jit(layer)(x), whole)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "make",
    [
        functools.partial(
            models.sew_resnet8, 4, width=4, in_channels=1, membrane_quant=UNIFORM
        ),
        functools.partial(
            models.spiking_vgg_small, 4, width=4, in_channels=1, image_size=(8, 8)
        ),
    ],
)
def test_pieces_of_a_network_equal_the_whole(make):
    model = make(neuron=neurons.LIF(tau=4.0), rngs=nnx.Rngs(0))
    graphdef, weights = nnx.split(model)
    x = np.random.default_rng(1).normal(0, 3, (7, 2, 8, 8, 1)).astype(np.float32)

    @jax.jit
    def whole(weights, x):
        return nnx.merge(graphdef, weights, copy=True)(x, timesteps=len(x))

    @jax.jit
    def advance(weights, x, state):
        model = nnx.merge(graphdef, weights, copy=True)
        return layers.run_piece(model, x, state)

    logits, spikes = whole(weights, x)
    found, state = [], None
    for piece in split_at(x, [1, 2, 5]):
        result, state = advance(weights, piece, state)
        found.append(result)
    assert np.array_equal(np.concatenate([y for y, _ in found]), logits)
    for name, train in spikes.items():
        pieces = [s[name] for _, s in found]
        assert np.array_equal(np.concatenate(pieces), train), name
    assert state.keys() == spikes.keys()
    assert nnx.split(model)[0] == graphdef  # nothing of it stays


@pytest.mark.parametrize("feedback", ["all_to_all", "one_to_one"])
def test_pieces_of_a_recurrent_layer_equal_the_whole(feedback):
    net = nnx.Sequential(
        layers.Recurrent(6, neurons.CubaLIF(), feedback=feedback, rngs=nnx.Rngs(0)),
        layers.Readout(neurons.LI(tau=5.0), quant=UNIFORM),
    )
    x = jnp.asarray(np.random.default_rng(2).uniform(0, 2, (20, 3, 6)), jnp.float32)
    whole = jax.jit(net)(x)
    run = jax.jit(lambda x, state: layers.run_piece(net, x, state))
    first, state = run(x[:7], None)
    middle, state = run(x[7:8], state)
    last, _ = run(x[8:], state)
    assert np.array_equal(np.concatenate([first, middle, last]), whole)
    assert float(whole.std()) > 0


def test_gradients_pass_through_the_state_and_stop_where_they_are_stopped():
    layer = layers.Spiking(neurons.LIF(tau=4.0))
    x = jnp.asarray(np.random.default_rng(3).uniform(0, 1.5, (6, 2, 4)), jnp.float32)

    def loss(x, cut):
        _, state = layers.run_piece(layer, x[:3], None)
        state = jax.lax.stop_gradient(state) if cut else state
        second, _ = layers.run_piece(layer, x[3:], state)
        return (second * jnp.arange(1.0, 4)[:, None, None]).sum()

    def whole(x):
        return (layer(x)[3:] * jnp.arange(1.0, 4)[:, None, None]).sum()

    np.testing.assert_allclose(
        jax.grad(loss)(x, False), jax.grad(whole)(x), rtol=1e-6, atol=1e-9
    )
    truncated = jax.grad(loss)(x, True)
    assert not truncated[:3].any()
    assert truncated[3:].any()


def test_states_that_do_not_fit_are_refused():
    layer = layers.Spiking(neurons.LIF())
    net = nnx.Sequential(layer, layers.Spiking(neurons.IF()))
    x = jnp.ones((2, 3, 4))
    _, state = layers.run_piece(net, x, None)
    with pytest.raises(ValueError, match="state"):
        layers.run_piece(net, x, {"other": state["layers.0"]})
    with pytest.raises(ValueError, match="v_init"):
        layers.run_piece(net, x[:, :2], state)
    with pytest.raises(ValueError, match="state"):
        layers.run_piece(net, x, {"layers.0": state["layers.0"]})
    with pytest.raises(ValueError, match="time first"):
        layers.run_piece(net, x[0], state)
    with pytest.raises(TypeError):  # rest is never a default
        layers.run_piece(net, x)  # pyrefly: ignore[missing-argument]
    with pytest.raises(ValueError, match="no layer"):
        layers.run_piece(nnx.Sequential(layers.Flatten()), x, None)
    with pytest.raises(ValueError, match="twice"):
        layers.run_piece(nnx.Sequential(layer, layer), x, None)


@pytest.mark.slow
def test_a_stream_takes_memory_that_does_not_grow():
    net = models.Sequential(
        {
            "fc1": layers.QuantLinear(64, 64, rngs=nnx.Rngs(0)),
            "sn1": layers.Spiking(neurons.LIF()),
            "fc": layers.QuantLinear(64, 4, rngs=nnx.Rngs(1)),
        },
        in_shape=(64,),
    )
    graphdef, weights = nnx.split(net)

    @jax.jit
    def advance(weights, x, state):
        model = nnx.merge(graphdef, weights, copy=True)
        (logits, _), state = layers.run_piece(model, x, state, record=lambda s: ())
        return logits, state

    x = jax.random.uniform(jax.random.key(0), (1, 8, 64))
    _, state = advance(weights, x, None)
    live = []
    for t in range(1000):
        _, state = advance(weights, x, state)
        if t in (10, 999):
            jax.block_until_ready(state)
            live.append(sum(a.nbytes for a in jax.live_arrays()))
    assert live[0] == live[1]
    used = advance.lower(weights, x, state).compile().memory_analysis()
    assert used.temp_size_in_bytes < 100 * 8 * 64 * 4
