"""One run, on one device and on all that there are; what it found, as JSON."""

import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import small_nets

from snnjax import data, neurons, runs, train

STEPS, HALF = 20, 10
OPTIONS = {
    "seed": 0,
    "batch_size": 16,
    "timesteps": 2,
    "augment": data.augment,
    "penalty": small_nets.quiet,
    "target": 0.5,
    "silent_above": 0.9,
}


def trained(model, dataset, mesh, steps=range(STEPS), start=None, options=OPTIONS):
    """Losses, and the last state, whose arrays no step has taken."""
    losses, silent, p = [], [], None
    run = train.steps(
        model,
        dataset,
        steps=steps.stop,
        optimizer=train.sgd(0.05, weight_decay=5e-4),
        start=start,
        mesh=mesh,
        **options,
    )
    for p in run:
        losses.append(float(p.metrics.loss[0]))
        silent.append(p.silent)
    return losses, silent, p.state


def fired(model, state, reference, dataset, mesh):
    """Everything that an evaluation counts."""
    found = train.evaluate(
        train.model_from_state(model, state),
        dataset,
        reference=reference,
        timesteps=2,
        batch_size=12,
        mesh=mesh,
    )
    counts = [{k: v.tolist() for k, v in g.spikes.items()} for g in found.groups]
    latencies = {k: v.tolist() for k, v in found.latencies.items()}
    return [found.accuracy, counts, latencies, found.time_w1]


def equal_everywhere(state) -> bool:
    """Whether all devices hold the same bits."""
    for x in jax.tree.leaves(state):
        first, *others = (np.asarray(s.data).tobytes() for s in x.addressable_shards)
        if any(other != first for other in others):
            return False
    return True


def whole(model, dataset, mesh):
    """A run and its evaluation."""
    losses, silent, state = trained(model, dataset, mesh)
    return {
        "losses": losses,
        "silent": silent,
        "fired": fired(model, state, model, dataset, mesh),
        "equal": equal_everywhere(state),
        "devices": len(jax.tree.leaves(state)[0].sharding.device_set),
        "leaves": len(jax.tree.leaves(state)),
    }, state


def moved(model, dataset, first, second):
    """Losses of a run that goes on elsewhere, from a file and from the arrays."""
    before, _, state = trained(model, dataset, first, range(HALF))
    optimizer = train.sgd(0.05, weight_decay=5e-4)
    like = train.init(model, optimizer)
    with tempfile.TemporaryDirectory() as folder:
        with runs.RunCheckpoints(folder) as history:
            history.save(HALF, state)
        with runs.RunCheckpoints(folder) as history:
            saved = history.load(like)
    kept, copy = small_nets.host(state), small_nets.host(saved)
    from_file, _, after = trained(model, dataset, second, start=saved)
    directly, _, also = trained(model, dataset, second, start=state)
    return {
        "file": before + from_file,
        "arrays": before + directly,
        "same": small_nets.same(after, also),
        "untouched": small_nets.same(kept, state) and small_nets.same(copy, saved),
        "devices": len(jax.tree.leaves(also)[0].sharding.device_set),
    }


NETS = {
    "dense": lambda: small_nets.Dense(
        depth=1,
        dtype=jnp.float64,
        neuron=neurons.PLIF(),
        weight=small_nets.UNIFORM,
        membrane=small_nets.LSQ,
    ),
    "sew": lambda: small_nets.sew(remat="block"),
    "deep": lambda: small_nets.sew(blocks=(1, 1), remat="full"),
    "vgg": small_nets.vgg,
}


def main(name, *extra):
    number = small_nets.join()
    dataset = small_nets.images()
    model = NETS[name]()
    before = small_nets.host(train.split(model)[1:])
    mesh = train.make_mesh()
    found, state = {}, None
    found["many"], state = whole(model, dataset, mesh)
    found["untouched"] = small_nets.same(before, train.split(model)[1:])
    if number == 1:
        found["one"], one = whole(model, dataset, None)
        found["far"] = small_nets.farthest(one, state)
    if "moved" in extra and number == 1:
        found["to one"] = moved(model, dataset, mesh, None)
        found["to many"] = moved(model, dataset, None, mesh)
    if number > 1:
        again = trained(model, dataset, mesh, range(STEPS + 1), start=state)[0]
        found["goes on"] = bool(np.isfinite(again).all() and len(again) == 1)
    small_nets.tell(found)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)
    main(*sys.argv[1:])
