"""Training on digits in float32: seeds on one device, one of them on 8; as JSON."""

import numpy as np
import small_nets
from flax import nnx

from snnjax import data, models, train

STEPS, SEEDS = 120, 5


def losses(model, dataset, seed, mesh=None):
    optimizer = train.sgd(train.one_cycle(STEPS, 0.2), weight_decay=5e-4)
    options = {"steps": STEPS, "optimizer": optimizer, "seed": seed, "batch_size": 64}
    found, p = [], None
    for p in train.steps(model, dataset, mesh=mesh, **options):
        found.append(float(p.metrics.loss[0]))
    return found, p.state


def network(seed):
    rngs = nnx.Rngs(seed)
    return models.SEWResNet(10, blocks=(1, 1), width=8, in_channels=1, rngs=rngs)


def main():
    images, test = data.load("digits", "train"), data.load("digits", "test")
    mesh = train.make_mesh()
    seeds = [losses(network(seed), images, seed) for seed in range(SEEDS)]
    many, state = losses(network(0), images, 0, mesh)
    # The same weights on one device and on 8, those that 8 devices trained, and those
    # of another seed.
    runs = {"one": (seeds[0][1], None), "same weights": (seeds[0][1], mesh)}
    runs |= {"own weights": (state, mesh), "another seed": (seeds[1][1], None)}
    fired = {
        name: train.evaluate(
            train.model_from_state(network(0), state), test, mesh=where
        ).counts.spikes
        for name, (state, where) in runs.items()
    }
    one = fired.pop("one")
    found = {"seeds": [x for x, _ in seeds], "many": many}
    found["spikes"] = sum(int(x.sum()) for x in one.values())
    for name, other in fired.items():
        # Of each neuron's count: so many spikes differ at least.
        found[name] = sum(int(np.abs(one[k] - other[k]).sum()) for k in one)
    small_nets.tell(found)


if __name__ == "__main__":
    main()
