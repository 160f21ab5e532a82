"""Write neurons.json: neurons and surrogates of SpikingJelly, snnTorch and Norse.

    pip install torch torchvision spikingjelly snntorch norse
    python tests/golden/make_neurons.py

In float64 on the CPU: spikes, the last potential, and the gradient of a weighted sum of
both by the currents; the derivative of each surrogate. What they are called here stands
in test_golden_neurons.py.
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import nets
import numpy as np
import snntorch
import torch
from norse.torch.functional import lif_box, reset
from snntorch import surrogate as snn_surrogate
from spikingjelly.activation_based import neuron, surrogate

PACKAGES = ("torch", "spikingjelly", "snntorch", "norse", "numpy")


def spikingjelly(node, x):
    """With ATan(2), v_threshold 1."""
    node.step_mode, node.store_v_seq = "m", False
    if isinstance(node.double(), neuron.ParametricLIFNode):
        node.w.data.fill_(-np.log(3.0 - 1))  # which was in float32
    spikes = node(x)
    return spikes, node.v


def snntorch_leaky(beta, mechanism, x):
    cell = snntorch.Leaky(
        beta=beta,
        reset_mechanism=mechanism,
        reset_delay=False,
        spike_grad=snn_surrogate.atan(alpha=2.0),
    )
    mem, spikes = torch.zeros_like(x[0]), []
    for step in x:
        spike, mem = cell(step, mem)
        spikes.append(spike)
    return torch.stack(spikes), mem


def norse_lif_box(tau_mem_inv, method, x):
    """With a time step of 1, whose surrogate has no slope."""
    numbers = lif_box.LIFBoxParameters(
        tau_mem_inv=torch.tensor(tau_mem_inv).double(), reset_method=method
    )
    state, spikes = lif_box.LIFBoxFeedForwardState(torch.zeros_like(x[0])), []
    for step in x:
        spike, state = lif_box.lif_box_feed_forward_step(step, state, numbers, dt=1.0)
        spikes.append(spike)
    return torch.stack(spikes), state.v


def nodes():
    atan = {"surrogate_function": surrogate.ATan(alpha=2.0)}
    for soft in (False, True):
        for detach in (False, True):
            numbers = atan | {"v_reset": None if soft else 0.0, "detach_reset": detach}
            end = f"{'soft' if soft else 'hard'}, {'' if detach else 'not '}detached"
            yield f"if, {end}", neuron.IFNode(**numbers)
            for decay in (False, True):
                middle = "decayed" if decay else "undecayed"
                more = numbers | {"decay_input": decay}
                yield f"lif, {middle}, {end}", neuron.LIFNode(tau=3.0, **more)
                yield (
                    f"plif, {middle}, {end}",
                    neuron.ParametricLIFNode(init_tau=3.0, **more),
                )


def cases():
    for name, node in nodes():
        yield f"spikingjelly {name}", lambda x, node=node: spikingjelly(node, x)
    for mechanism in ("zero", "subtract"):
        yield (
            f"snntorch {mechanism}",
            lambda x, m=mechanism: snntorch_leaky(0.75, m, x),
        )
    for method in ("value", "subtract"):
        function = getattr(reset, f"reset_{method}")
        yield f"norse {method}", lambda x, f=function: norse_lif_box(0.5, f, x)


def run(name, call, x):
    x = torch.from_numpy(x).requires_grad_()
    spikes, v = call(x)
    by_spikes = torch.from_numpy(nets.draw(name + " spikes", (nets.STEPS, nets.NUMBER)))
    by_v = torch.from_numpy(nets.draw(name + " v", (nets.NUMBER,)))
    ((spikes * by_spikes).sum() + (v * by_v).sum()).backward()
    spikes = spikes.detach().numpy()
    assert 0.1 < spikes.mean() < 0.9, (name, spikes.mean())
    return {
        "spikes": ["".join(str(int(s)) for s in step) for step in spikes],
        "v": v.detach().numpy().tolist(),
        "gradient": x.grad.numpy().tolist(),
    }


def at_threshold():
    """What fires where the potential is the threshold, exactly: 1 after one step."""
    x = torch.tensor([[1.0, np.nextafter(1.0, 0), np.nextafter(1.0, 2)]]).double()

    found = {
        "spikingjelly": spikingjelly(neuron.LIFNode(tau=2.0), 2 * x),
        "snntorch": snntorch_leaky(0.5, "zero", x),
        "norse": norse_lif_box(0.5, reset.reset_value, 2 * x),
    }
    return {library: spikes[0].tolist() for library, (spikes, _) in found.items()}


def surrogates():
    """Derivatives on a grid, by our name and slope."""
    x = torch.linspace(-2.0, 2.0, 33).double() + 1 / 64  # off the corners
    oracles = {
        "sigmoid 4": surrogate.Sigmoid(alpha=4.0),
        "atan 2": surrogate.ATan(alpha=2.0),
        "fast_sigmoid 25": snn_surrogate.fast_sigmoid(slope=25),
        "superspike 1.5": surrogate.SuperSpike(alpha=1.5),
        "triangular 0.75": surrogate.PiecewiseQuadratic(alpha=0.75),
        "piecewise_exp 2": surrogate.PiecewiseExp(alpha=2.0),
        "rectangular 0.5": surrogate.Rect(alpha=0.5),
        "erf 2": surrogate.Erf(alpha=2.0),
        "soft_sign 3": surrogate.SoftSign(alpha=3.0),
        "leaky_k_relu 1.5": surrogate.LeakyKReLU(k=1.5, leak=0.125),
        "straight_through 1": snn_surrogate.straight_through_estimator(),
    }
    found = {}
    for name, oracle in oracles.items():
        given = x.clone().requires_grad_()
        oracle(given).sum().backward()
        found[name] = given.grad.numpy().tolist()
    return {"x": x.numpy().tolist(), "derivatives": found}


def main() -> None:
    found = {
        "versions": {name: version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "at_threshold": at_threshold(),
        "surrogates": surrogates(),
        "neurons": {
            name: run(name, call, nets.currents(name)) for name, call in cases()
        },
    }
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items()]
    path = Path(__file__).with_name("neurons.json")
    path.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
