"""Eight networks in one program, and each by itself; what they found, as JSON."""

import contextlib
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import small_nets

from snnjax import calibrate, data, runs, train
from snnjax.quantize import QuantSpec
from snnjax.train import guards

STEPS, BROKEN = 4, 5
OPTIONS = {"seed": 0, "batch_size": 8, "timesteps": 2, "augment": data.augment}
OPTIONS |= {"on_nonfinite": "skip", "silent_above": 0.2}
OPTIONS |= {"optimizer": train.sgd(0.1, weight_decay=5e-4)}
COMPILED = "/jax/core/compile/backend_compile_duration"


def networks(base, bits=(2, 3, 4, 6), clips=(0.5, 1.0)):
    """Of other bits and bounds; weights that are NaN make one of them fail."""
    specs = [QuantSpec(bits=b, clip=c) for b in bits for c in clips]
    rule = "fc" if isinstance(base, small_nets.Dense) else r"layer1\.0\.conv1"
    found = [calibrate.quantize(base, {rule: spec}) for spec in specs]
    bias = found[BROKEN].fc.bias
    bias.set_value(bias.get_value().at[0].set(jnp.nan))
    return found


def swept(nets, dataset, mesh, steps=STEPS, start=None):
    """Losses and skipped steps [steps, networks], what fell silent, the last state."""
    losses, silent, p = [], [], None
    options = {"steps": steps, "mesh": mesh, "start": start} | OPTIONS
    for p in train.steps(nets, dataset, **options):
        losses.append(p.metrics.loss)
        silent.append(p.silent)
    return np.array(losses).T, list(zip(*silent, strict=True)), p.state


def alone(net, dataset):
    losses, silent, p = [], [], None
    for p in train.steps(net, dataset, steps=STEPS, **OPTIONS):
        losses.append(float(p.metrics.loss[0]))
        silent.append(p.silent[0])
    return np.array(losses), tuple(silent), p.state


def counted(evaluation):
    spikes = [dict(group.spikes) for group in evaluation.groups]
    return [evaluation.accuracy, spikes, evaluation.latencies, evaluation.time_w1]


def whole(nets, dataset, reference, mesh, expected, evaluated):
    """How far a sweep and its evaluation are from the networks' own runs."""
    losses, silent, state = swept(nets, dataset, mesh)
    states = train.unstack(state)
    trained = [train.model_from_state(net, state, i) for i, net in enumerate(nets)]
    options = {"reference": reference, "timesteps": 2, "batch_size": 12}
    evaluations = [None] * len(nets)
    if evaluated:
        # What is NaN is not evaluated; another network takes its place.
        places = [0 if i == BROKEN else i for i in range(len(nets))]
        trained = [trained[i] for i in places]
        evaluations = train.evaluate(trained, dataset, mesh=mesh, **options)
    far, equal, apart, fired, quiet = [], [], [], [], []
    for i, (own_losses, own_silent, own) in enumerate(expected):
        far.append(float(np.max(np.abs(losses[i] - own_losses))))
        equal.append(small_nets.same(own, states[i]))
        apart.append(small_nets.farthest(own, states[i]))
        if evaluated:
            net, own = nets[places[i]], expected[places[i]][2]
            one = train.evaluate(train.model_from_state(net, own), dataset, **options)
            fired.append(small_nets.same(counted(one), counted(evaluations[i])))
        quiet.append(own_silent == silent[i])
    return {
        "far": far,
        "equal": equal,
        "apart": apart,
        "fired": fired,
        "silent": quiet,
        "skipped": [int(s.skipped[0]) for s in states],
        "devices": len(jax.tree.leaves(state)[0].sharding.device_set),
    }, state


def resumed(nets, dataset, mesh, last):
    """Whether a sweep that goes on from a file is the one that was never stopped."""
    state = swept(nets, dataset, mesh, STEPS // 2)[2]
    with tempfile.TemporaryDirectory() as folder:
        with runs.RunCheckpoints(folder) as history:
            history.save(STEPS // 2, state)
        with runs.RunCheckpoints(folder) as history:
            saved = history.load(state)
    start = train.stack(train.unstack(saved))
    before = small_nets.host(start)
    after = swept(nets, dataset, mesh, STEPS, start)[2]
    return {
        "equal": small_nets.same(last, after),
        "untouched": small_nets.same(before, start),
    }


@contextlib.contextmanager
def compilations():
    found = []

    def listen(event, seconds, **_):
        found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def failure(nets, dataset, mesh, most, **options):
    """The network that the error names."""
    guards.MOST_SKIPPED = most
    try:
        options = OPTIONS | options | {"steps": STEPS, "mesh": mesh}
        list(train.steps(nets, dataset, **options))
    except train.NonFiniteError as error:
        return [error.index, error.step, list(error.layers)]
    raise AssertionError("nothing failed")


def main(which):
    number = small_nets.join()
    dataset = small_nets.images(20)
    dtype = jnp.float64 if which == "float64" else jnp.float32
    base = small_nets.Dense(depth=1, dtype=dtype)
    if which == "convolutional":
        base = small_nets.sew(dtype=jnp.float32)
    nets = networks(base)
    before = small_nets.host([train.split(net)[1:] for net in nets])
    meshes = {
        "8": train.make_mesh(configs=8),
        "4 x 2": train.make_mesh(configs=4),
        "1": None,
    }
    found = {}
    expected = [alone(net, dataset) for net in nets]
    found["different"] = len({losses[-1] for losses, _, _ in expected})
    last = None
    for name, mesh in meshes.items():
        # Evaluation on all meshes takes too long for every day.
        evaluated = name == "8" or which != "float64"
        found[name], last = whole(nets, dataset, base, mesh, expected, evaluated)
        if name == "8":
            if number == 1:  # of several processes the first alone reads and writes
                found["resumed"] = resumed(nets, dataset, mesh, last)
            found["names"] = failure(nets, dataset, mesh, 2)
            guards.MOST_SKIPPED = 100
            if which != "float64":
                stop = {"on_nonfinite": "stop"}
                found["stopped"] = failure(nets, dataset, mesh, 100, **stop)
            with compilations() as events:
                others = networks(base, (5, 7), (2.0, 3.0, 5.0, 6.0))
                del events[:]
                swept(others, dataset, mesh)
                found["compiled"] = events.count(COMPILED)
    after = [train.split(net)[1:] for net in nets]
    found["untouched"] = small_nets.same(before, after)
    small_nets.tell(found)


if __name__ == "__main__":
    if sys.argv[1] == "float64":
        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_disable_most_optimizations", True)
    main(sys.argv[1])
