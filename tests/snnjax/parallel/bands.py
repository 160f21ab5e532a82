"""Training on digits in float32: seeds on one device, one of them on 8; as JSON."""

import numpy as np
import small_nets
from flax import nnx

from snnjax import data, models, train

STEPS, SEEDS = 120, 5


def losses(model, dataset, seed, mesh=None):
    rates = train.one_cycle(STEPS, 0.2)
    options = {"seed": seed, "batch_size": 64, "timesteps": 4}
    found, p = [], None
    for p in train.fit(model, dataset, rates, mesh=mesh, **options):
        found.append(float(p.metrics.loss))
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
        name: train.evaluate(train.trained(network(0), s), test, mesh=m).counts.spikes
        for name, (s, m) in runs.items()
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
