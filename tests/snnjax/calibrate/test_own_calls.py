"""Networks that call their neurons in their own way: recorded right, or refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import calibrate, distill, layers, neurons
from snnjax.quantize import QuantSpec

T = 6
X = jax.random.normal(jax.random.key(0), (T, 16, 5)) * 1.5


class Net(nnx.Module):
    """A layer of neurons that is called as ``call(currents, layer)`` says."""

    def __init__(self, call):
        rngs = nnx.Rngs(0)
        self.call = call
        self.fc1 = layers.QuantLinear(5, 8, rngs=rngs)
        self.sn = layers.Spiking(neurons.LIF(tau=3.0, decay_input=False))
        self.fc2 = layers.QuantLinear(8, 3, rngs=rngs)
        self.eval()

    def __call__(self, x, *, timesteps=T, train=None, record=None):
        spikes = self.call(self.fc1(x, train=train), self.sn)
        kept = spikes if record is None else record(spikes)
        return self.fc2(spikes, train=train), {"sn": kept}


def charged(x, sn):
    return sn(x, v_init=jnp.full(x.shape[1:], 0.7))[0]


def in_halves(x, sn):
    first, v = sn(x[:3], v_init=None)
    return jnp.concatenate([first, sn(x[3:], v_init=v)[0]])


def scanned(x, sn):
    def step(v, current):
        spikes, v = sn(current[None], v_init=v)
        return v, spikes[0]

    return jax.lax.scan(step, jnp.zeros(x.shape[1:]), x)[1]


def potentials(x, v):
    found = []
    for current in x:
        h = v * (1 - 1 / 3) + current
        found.append(h)
        v = np.where(h >= 1, 0, h)
    return np.stack(found)


def test_membranes_begin_with_the_state_that_neurons_are_given():
    model = Net(charged)
    found = distill.record(model, X, T, membranes=True)
    expected = potentials(np.asarray(model.fc1(X), np.float64), 0.7)
    np.testing.assert_allclose(found.membranes["sn"], expected, atol=1e-5)
    np.testing.assert_array_equal(found.spikes["sn"], expected >= 1)


def test_membranes_of_one_call_are_none_of_two():
    with pytest.raises(ValueError, match="sn is called more than once"):
        distill.record(Net(in_halves), X, T, membranes=True)


@pytest.mark.parametrize("see", [distill.record, layers.record_membranes])
def test_a_loop_of_ones_own_hides_its_layers(see):
    options = dict(timesteps=T, membranes=True) if see is distill.record else {}
    with pytest.raises(ValueError, match=r"jax\.lax\.scan"):
        see(Net(scanned), X, **options)


def test_calibration_names_what_it_cannot_see():
    model = Net(scanned)
    quantized = calibrate.quantize(model, {"fc1": QuantSpec(bits=2, clip="mse")})
    with pytest.raises(ValueError, match="the whole sequence"):
        calibrate.correct_bias(quantized, model, [X], timesteps=T)


@pytest.mark.parametrize("calibration", [calibrate.fire_match, calibrate.choose_clip])
def test_firing_is_matched_from_rest_alone(calibration):
    model = Net(charged)
    quantized = calibrate.quantize(model, {"fc1": QuantSpec(bits=2, clip=1.0)})
    with pytest.raises(ValueError, match=r"sn from a state of its own \(v_init\)"):
        calibration(quantized, model, [X], timesteps=T)


def test_mean_currents_are_matched_from_any_state():
    model = Net(charged)
    quantized = calibrate.quantize(model, {"fc1": QuantSpec(bits=2, clip="mse")})
    found = calibrate.correct_bias(quantized, model, [X], timesteps=T)
    ours, theirs = (np.mean(m.fc1(X), (0, 1)) for m in (found, model))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_no_potential_is_left_at_the_threshold():
    """Counts of events make currents equal, so that an offset reaches many at once."""
    model = Net(lambda x, sn: sn(x))
    rng = np.random.default_rng(0)
    events = jnp.asarray(rng.poisson(0.6, (T, 64, 5)), jnp.float32)
    quantized = calibrate.quantize(model, {"fc1": QuantSpec(bits=3, clip="mse")})
    found = calibrate.fire_match(quantized, model, [events], timesteps=T)
    assert not np.array_equal(found.fc1.bias.get_value(), model.fc1.bias.get_value())
    membranes = distill.record(found, events, T, membranes=True).membranes["sn"]
    threshold = np.asarray(found.sn.neuron.get_value().v_threshold)
    spread = np.std(np.asarray(found.fc1(events)), axis=(0, 1))
    apart = np.min(np.abs(membranes - threshold), axis=(0, 1)) / spread
    assert apart.min() > 1e-4


@pytest.mark.slow
def test_firing_is_matched_where_float64_is_on(x64):
    """The currents of a float32 network stay float32 there."""
    model = Net(lambda x, sn: sn(x))
    quantized = calibrate.quantize(model, {"fc1": QuantSpec(bits=2, clip="mse")})
    images = X.astype(jnp.float32)
    found = calibrate.fire_match(quantized, model, [images], timesteps=T)
    total = lambda m: np.asarray(m(images)[1]["sn"]).sum((0, 1))  # noqa: E731
    was, now = (np.abs(total(m) - total(model)).sum() for m in (quantized, found))
    assert now < was
