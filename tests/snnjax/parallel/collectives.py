"""What the devices send each other: collectives of the compiled programs, as JSON."""

import collections
import importlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import small_nets
from flax import nnx
from jax.sharding import PartitionSpec as P

from snnjax import data, models, train
from snnjax.layers import BatchNorm, norm
from snnjax.train import sharding
from snnjax.train.eval_step import make_trains_step

OPERATIONS = (
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all"),
    *("collective-permute", "collective-broadcast"),
)


def sent(program, *arguments):
    """How many of which collectives are in the program as XLA runs it; its results.

    Of the results shapes and places alone: nothing is run.
    """
    traced = program.trace(*arguments)
    compiled = traced.lower().compile()
    text = compiled.as_text()
    assert "ENTRY" in text
    found = re.findall(rf" ({'|'.join(OPERATIONS)})(?:-start)?\(", text)
    shapes = jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        traced.out_info,
        compiled.output_shardings,
    )
    return collections.Counter(found), shapes


def of_statistics(mesh, gradient):
    """Of BatchNorm's statistics alone, or of their gradient with them."""

    def product(x):
        mean, var = norm.statistics(x, axis_name="data")
        return jnp.sum(mean * var)

    function, out = (jax.grad(product), P("data")) if gradient else (product, P())
    program = sharding.on_mesh(function, mesh, P("data"), out)
    return sent(jax.jit(program), np.ones((8, 4, 4, 3), np.float32))[0]


class Programs:
    """The steps of one network on one mesh, and what they take."""

    def __init__(self, model, mesh, networks=1):
        self.model, self.mesh, self.networks = model, mesh, networks
        self.arrays = sharding.shard(data.on_device(small_nets.images()), mesh)
        batch = np.arange(16, dtype=np.int32), np.ones(16, bool)
        self.indices, self.mask = sharding.shard(batch, mesh, P("data"))
        self.graphdef, *self.state = train.split(model)

    def shard(self, state):
        state = train.stack([state] * self.networks)
        return sharding.shard(state, self.mesh, P("config"))

    def step(self, penalty=None):
        optimizer = train.sgd(0.1, weight_decay=5e-4)
        step = train.make_train_step(
            self.graphdef,
            optimizer,
            timesteps=2,
            augment=data.augment,
            dead=True,
            penalty=penalty,
            mesh=self.mesh,
        )
        state = self.shard(train.init(self.model, optimizer))
        key, target = sharding.shard((jax.random.key(0), jnp.float32(1)), self.mesh)
        rest = (self.indices, key, target if penalty else None)
        return sent(step, state, self.arrays, *rest)[0]

    def evaluation(self):
        options = {"timesteps": 2, "mesh": self.mesh}
        state = sharding.shard(self.state, self.mesh)
        found = {}
        step = make_trains_step(self.graphdef, **options)
        found["trains"], trains = sent(step, *state, self.arrays, self.indices)
        step = train.make_eval_step(self.graphdef, **options)
        state = self.shard(jax.tree.map(lambda x: jnp.asarray(x)[None], self.state))
        own = (tuple(state), self.arrays, self.indices, self.mask, trains)
        found["step"], total = sent(step, *own)
        evaluation = importlib.import_module("snnjax.train.evaluate")
        found["add"], total = sent(evaluation._add, total, total)
        step = evaluation._sum_of_devices(self.mesh)
        found["sum"], _ = sent(step, total)
        return found


def quickly():
    """Of a network that compiles quickly."""
    data, configs = train.make_mesh(), train.make_mesh(configs=8)
    net = small_nets.Dense(membrane=small_nets.LSQ)
    small = small_nets.Dense(depth=1)
    side_by_side = Programs(small, configs, networks=8)
    return net, {
        "forward": of_statistics(data, gradient=False),
        "gradient": of_statistics(data, gradient=True),
        "step": Programs(net, data).step(),
        "evaluation": Programs(small, data).evaluation(),
        "sweep step": side_by_side.step(),
        "sweep evaluation": side_by_side.evaluation(),
    }


def convolutional():
    """Of a SEW-ResNet with quantizers, and what it keeps for the backward pass."""
    mesh, found, net = train.make_mesh(), {}, None
    for remat in models.sew_resnet.REMAT:
        net = small_nets.sew(dtype=jnp.float32, blocks=(1, 1), remat=remat)
        found[remat] = Programs(net, mesh).step()
    found["penalty"] = Programs(net, mesh).step(penalty=small_nets.quiet)
    return net, found


if __name__ == "__main__":
    net, found = {"quickly": quickly, "convolutional": convolutional}[sys.argv[1]]()
    norms = sum(isinstance(m, BatchNorm) for _, m in nnx.iter_modules(net))
    small_nets.tell(found | {"norms": norms})
