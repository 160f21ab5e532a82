"""Recurrent networks: what can be calibrated is, what cannot is refused by name."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import calibrate, distill, layers, models, neurons
from snnjax.calibrate.fire import count_firing
from snnjax.calibrate.layerwise import find_units
from snnjax.quantize import QuantSpec

X = np.random.default_rng(0).uniform(0, 2, (6, 8, 5))
BATCHES = [jnp.asarray(X, jnp.float32)]


@pytest.fixture(scope="module")
def network():
    rngs = nnx.Rngs(0)
    return models.Sequential(
        {
            "fc1": layers.QuantLinear(5, 4, rngs=rngs),
            "bn": layers.BatchNorm(4),
            "rec": layers.Recurrent(4, neurons.LIF(v_threshold=0.3), rngs=rngs),
            "fc2": layers.QuantLinear(4, 6, rngs=rngs),
            "sn2": layers.Spiking(neurons.LIF(v_threshold=0.3)),
            "fc3": layers.QuantLinear(6, 3, rngs=rngs),
            "out": layers.Readout(),
        },
        in_shape=(5,),
    )


@pytest.mark.slow
def test_firing_that_is_counted_is_the_networks(network):
    units = find_units(network, BATCHES[0], 6)
    assert [unit.spiking for unit in units] == ["rec.sn", "sn2", None]
    found = count_firing(network, units[:2], BATCHES, 6)
    _, spikes = network(BATCHES[0], timesteps=6)
    for unit, firing in zip(units, found, strict=False):
        assert np.array_equal(firing.counts, spikes[unit.spiking].sum((0, 1)))
        assert firing.counts.any()


@pytest.mark.slow
def test_bits_and_rounding(network):
    chosen = calibrate.allocate_bits(network, BATCHES, 0.1, bits=(2, 8), timesteps=6)
    assert chosen == {"fc2": 8}
    quantized = calibrate.quantize(network, {"fc2": QuantSpec(bits=3, clip="mse")})
    rounded = calibrate.osbc(quantized, BATCHES, timesteps=6)
    kernel, before = (m.fc2.kernel.get_value() for m in (rounded, network))
    assert not jnp.array_equal(kernel, before)


def test_a_scale_that_its_own_spikes_do_not_take_is_refused(network):
    quantized = calibrate.quantize(network, {"fc2": QuantSpec(bits=3, clip=1.0)})
    with pytest.raises(ValueError, match="rec sees its own spikes"):
        calibrate.scale_to_clip(quantized, BATCHES, timesteps=6)


@pytest.mark.parametrize("method", [calibrate.correct_bias, calibrate.fire_match])
def test_matching_is_refused(network, method):
    with pytest.raises(ValueError, match="rec sees its own spikes"):
        method(network, network, BATCHES, timesteps=6)


def test_membranes_are_recorded_for_distillation(network):
    found = distill.record(network, BATCHES[0], 6, membranes=True)
    assert set(found.membranes) == set(found.spikes) == {"rec.sn", "sn2"}
    for name, v in found.membranes.items():
        assert np.array_equal(v >= 0.3, found.spikes[name] > 0)
