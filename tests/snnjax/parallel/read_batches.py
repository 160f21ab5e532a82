"""Batches that are read, and masked sequences, on one device and on all there are."""

import json
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import small_nets
from flax import nnx

from snnjax import data, layers, models, neurons, runs, train

SIZE = 16  # images of a batch


class Generated:
    """Images of 64 x 64 that are made when they are read; `grain` takes such a source.

    Args:
        part: (i, n): the i-th of n parts of each batch.
    """

    def __init__(self, number, part=(0, 1)):
        self.number, self.part = number, part

    def __len__(self):
        return self.number

    def __iter__(self):
        return (self[i] for i in range(self.number))

    def __getitem__(self, i):
        images, labels = [], []
        part, parts = self.part
        for j in range(part * SIZE // parts, (part + 1) * SIZE // parts):
            draw = np.random.default_rng((i, j))
            label = int(draw.integers(10))
            image = draw.integers(0, 128, (64, 64, 3))
            image[:, 6 * label : 6 * label + 6] += 100
            images.append(image.astype(np.uint8))
            labels.append(label)
        return np.stack(images), np.array(labels)


def imagenet(seed=0):
    return models.sew_resnet18(
        10, width=4, stem="imagenet", rngs=nnx.Rngs(seed), dtype=jnp.float64,
        param_dtype=jnp.float64,
    )  # fmt: skip


OPTIONS = dict(seed=0, timesteps=2)
OPTIMIZER = train.sgd(0.05)


def read(mesh, steps=20, part=(0, 1)):
    """Losses of a run over batches that are read, its state and an evaluation."""
    source = data.Batches(Generated(7, part), mean=[0.4] * 3, std=[0.2] * 3)
    losses, state = [], None
    model = imagenet()
    for progress in train.steps(
        model, source, steps=steps, optimizer=OPTIMIZER, mesh=mesh, **OPTIONS
    ):
        losses.append(float(progress.metrics.loss[0]))
        state = progress.state
    trained = train.model_from_state(model, state)
    found = train.evaluate(trained, source, timesteps=2, mesh=mesh)
    counts = {k: np.asarray(x).tolist() for k, x in found.counts.spikes.items()}
    firing = [found.accuracy, found.counts.observations, counts]
    return {"losses": losses, "fired": firing}, state


def resume(folder, stop):
    """Train on from the last checkpoint; end without a word after ``stop`` steps."""
    import grain

    mapped = grain.MapDataset.source(Generated(7)).seed(0).shuffle().repeat()
    source = data.Batches(
        mapped.to_iter_dataset(grain.ReadOptions(num_threads=1)),
        mean=[0.4] * 3,
        std=[0.2] * 3,
    )
    model, positions = imagenet(), Path(folder, "positions")
    positions.mkdir(parents=True, exist_ok=True)
    start = position = None
    with runs.RunCheckpoints(Path(folder, "states")) as history:
        if history.latest is not None:
            start = history.load(train.init(model, OPTIMIZER))
            position = json.loads((positions / f"{history.latest}").read_text())
        state = start
        for progress in train.steps(
            *(model, source),
            **dict(steps=20, optimizer=OPTIMIZER, start=start, position=position),
            **OPTIONS,
        ):
            state = progress.state
            if progress.step % 6 == 0:
                text = json.dumps(progress.position)
                (positions / f"{progress.step}").write_text(text)
                history.save(progress.step, state)
            if progress.step == stop:
                os._exit(9)
    return start is not None, [x.tolist() for x in map(np.asarray, leaves(state))]


def leaves(state):
    """Return the numbers of a state that show whether it is another's."""
    return [progress.ravel()[:20] for progress in jax.tree.leaves(state.params)]


def sequences(mesh):
    """A run over sequences of different lengths."""
    draw = np.random.default_rng(0)
    lengths, labels = draw.integers(3, 10, 40), draw.integers(0, 3, 40)
    x = draw.poisson(1.0, (40, 9, 6))
    dataset = data.from_arrays(x, labels, lengths=lengths)
    rngs = nnx.Rngs(0)
    wide = dict(dtype=jnp.float64, param_dtype=jnp.float64, rngs=rngs)
    model = models.Sequential(
        {
            "fc1": layers.QuantLinear(6, 16, **wide),
            "bn": layers.BatchNorm(16, param_dtype=jnp.float64),
            "sn": layers.Spiking(neurons.LIF(v_threshold=0.5)),
            "rec": layers.Recurrent(16, neurons.LIF(v_threshold=0.5), **wide),
            "fc": layers.QuantLinear(16, 3, **wide),
        },
        in_shape=(6,),
    )
    losses, dead, state = [], [], None
    for progress in train.steps(
        *(model, dataset),
        **dict(steps=10, batch_size=16, seed=0, timesteps=9, mesh=mesh),
        **dict(optimizer=OPTIMIZER, penalty=small_nets.quiet, target=0.5),
        silent_above=0.1,
    ):
        losses.append(float(progress.metrics.loss[0]))
        dead.append({k: float(x[0]) for k, x in progress.metrics.dead.items()})
        state = progress.state
    return {"losses": losses, "dead": dead}, state


def farthest(a, b):
    """Return the largest difference of numbers."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in pairs)


def main(what, folder="", stop="0"):
    if what == "resume":
        small_nets.tell(resume(folder, int(stop)))
        return
    number = small_nets.join()
    found = {}
    mesh = train.make_mesh()
    if what == "processes":
        found["many"], _ = read(mesh, part=(jax.process_index(), number))
        small_nets.tell(found)
        return
    run = {"read": read, "sequences": sequences}[what]
    found["one"], one = run(None)
    found["many"], many = run(mesh)
    found["devices"] = len(jax.tree.leaves(many)[0].sharding.device_set)
    found["far"] = farthest(one.params, many.params)
    small_nets.tell(found)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)
    main(*sys.argv[1:])
