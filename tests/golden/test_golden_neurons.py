"""Neurons and surrogates against SpikingJelly, snnTorch and Norse, in float64.

The numbers are those of make_neurons.py.
"""

import functools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

from snnjax import surrogate
from snnjax.neurons import if_, lif, plif

GOLDEN = json.loads(Path(__file__).with_name("neurons.json").read_text())


def ours(name):
    """Our neuron for one of the names in neurons.json."""
    soft = "soft" in name or "subtract" in name
    options = dict(v_reset=None if soft else 0.0, alpha=2.0)
    library, rest = name.split(" ", 1)
    if library == "snntorch":
        # beta = 0.75; without its delay the reset is not detached.
        options |= dict(tau=1 / (1 - 0.75), decay_input=False, detach_reset=False)
        return functools.partial(lif, **options)
    if library == "norse":
        # tau_mem_inv = 0.5, a step of 1; its surrogate is SuperSpike without a slope.
        options |= dict(tau=1 / 0.5, detach_reset=False, alpha=1.0)
        return functools.partial(lif, **options, surrogate=surrogate.superspike)
    options["detach_reset"] = "not detached" not in name
    kind = rest.split(",")[0]
    if kind == "if":
        return functools.partial(if_, **options)
    options |= dict(tau=3.0, decay_input=" decayed" in name)
    return functools.partial({"lif": lif, "plif": plif}[kind], **options)


@pytest.mark.parametrize("name", GOLDEN["neurons"])
def test_neurons_are_theirs(name, x64):
    golden, neuron = GOLDEN["neurons"][name], ours(name)
    by_spikes, by_v = (
        nets.draw(f"{name} {what}", shape)
        for what, shape in (("spikes", (nets.STEPS, nets.NUMBER)), ("v", nets.NUMBER))
    )

    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(x):
        spikes, v = neuron(x)
        return (by_spikes * spikes).sum() + (by_v * v).sum(), (spikes, v)

    (_, (spikes, v)), gradient = run(jnp.asarray(nets.currents(name)))
    expected = [[int(s) for s in step] for step in golden["spikes"]]
    np.testing.assert_array_equal(spikes, expected)
    np.testing.assert_allclose(v, golden["v"], 1e-12, 1e-13)
    # snnTorch's spikes are float32 whatever the potential is, and so are gradients.
    tolerance = 1e-6 if name.startswith("snntorch") else 1e-11
    np.testing.assert_allclose(gradient, golden["gradient"], tolerance, tolerance)


def test_at_exactly_the_threshold_ours_and_spikingjellys_fire(x64):
    """snnTorch and Norse fire on H > v_threshold, we on H >= v_threshold."""
    x = 2 * np.array([[1.0, np.nextafter(1.0, 0), np.nextafter(1.0, 2)]])
    fires = lif(x, tau=2.0)[0][0].tolist()
    assert fires == GOLDEN["at_threshold"]["spikingjelly"] == [1, 0, 1]
    for library in ("snntorch", "norse"):
        assert GOLDEN["at_threshold"][library] == [0, 0, 1]


@pytest.mark.parametrize("name", GOLDEN["surrogates"]["derivatives"])
def test_surrogates_are_theirs(name, x64):
    kind, slope = re.fullmatch(r"(\w+) ([\d.]+)", name).groups()
    slopes = (float(slope), *([0.125] if kind == "leaky_k_relu" else []))
    function = getattr(surrogate, kind)
    x = jnp.asarray(GOLDEN["surrogates"]["x"])
    got = jax.vmap(jax.grad(lambda x: function(x, *slopes)))(x)
    expected = GOLDEN["surrogates"]["derivatives"][name]
    np.testing.assert_allclose(got, expected, 1e-12, 1e-14)
    assert len(set(np.round(expected, 9))) > 1 or kind == "straight_through"
