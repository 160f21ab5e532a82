"""BatchNorm on 8 devices beside the whole batch, and what is refused; as JSON."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import small_nets
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snnjax import calibrate, models, neurons, train
from snnjax.layers import BatchNorm, synchronize
from snnjax.quantize import QuantSpec
from snnjax.train import sharding


def normalised(axis_name, repeats, params, x, weights):
    """A loss of a BatchNorm's results, and what it makes of its running averages."""
    norm = BatchNorm(3, param_dtype=x.dtype)
    norm.scale.set_value(params[0])
    norm.bias.set_value(params[1])
    norm.mean.set_value(params[2])
    synchronize(norm, axis_name)
    y = norm(x, train=True, repeats=repeats)
    # Another loss for each image, as if what follows differed on each device.
    loss = jnp.mean(jnp.sum(weights * jnp.sin(y), axis=(0, 2, 3, 4)))
    return loss, (y, norm.mean.get_value(), norm.var.get_value())


def gradients(axis_name, repeats, *arguments):
    function = functools.partial(normalised, axis_name, repeats)
    pull = jax.value_and_grad(function, (0, 1), has_aux=True)
    (loss, (y, *averages)), (of_params, of_x) = pull(*arguments)
    if axis_name is not None:
        loss, of_params = jax.lax.pmean((loss, of_params), axis_name)
        of_x = of_x / jax.lax.axis_size(axis_name)  # of the mean of all losses
    return {"loss": loss, "params": of_params, "averages": averages}, (y, of_x)


@functools.cache
def programs():
    """`gradients` of one device and of 8."""
    batch = P(None, "data")
    specs = (P(), batch, batch), (P(), batch)
    many = functools.partial(gradients, "data", 2)
    many = sharding.on_mesh(many, train.make_mesh(), *specs)
    return jax.jit(functools.partial(gradients, None, 2)), jax.jit(many)


def batch_norm(dtype, offset, running_mean=0.0):
    """How far the results of 8 devices are from those of one."""
    draw = np.random.default_rng(0)
    shape = (2, 16, 4, 4, 3)
    # Devices see images of other mean and spread.
    x = draw.normal(size=shape) * np.arange(1, 17)[:, None, None, None] + offset
    x += draw.normal(size=(1, 16, 1, 1, 3))
    weights = draw.normal(size=shape)
    params = np.concatenate([draw.normal(size=(2, 3)), np.full((1, 3), running_mean)])
    arguments = [jnp.asarray(a, dtype) for a in (params, x, weights)]
    exact = [np.asarray(a, np.float64) for a in arguments]
    mean, var = exact[1].mean((0, 1, 2, 3)), exact[1].var((0, 1, 2, 3))
    n = 2 * exact[1].size // 3  # each seen twice
    running = {
        "mean": 0.9 * running_mean + 0.1 * mean,
        "var": 0.9 + 0.1 * var * n / (n - 1),
    }
    one, many = (program(*arguments) for program in programs())
    return {
        "far": small_nets.farthest(one, many),
        "one": small_nets.farthest(list(running.values()), one[0]["averages"]),
        "many": small_nets.farthest(list(running.values()), many[0]["averages"]),
    }


class WithKeys(small_nets.Dense):
    """A network that draws by itself."""

    def __init__(self):
        super().__init__(depth=1)
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))


def refused():
    """What each mistake is told."""
    dataset, data = small_nets.images(), train.make_mesh()
    net, tx = small_nets.Dense(depth=1), train.sgd(0.1)
    options = {"seed": 0, "batch_size": 16, "timesteps": 2, "steps": 3}
    options |= {"optimizer": tx}

    def quantized(spec, pattern="fc$"):
        return calibrate.quantize(net, {pattern: spec})

    def fit(model=net, **other):
        train.steps(model, dataset, **options | other)

    def sweep(*nets, **other):
        train.steps(nets, dataset, **options | other)

    starts = [train.init(net, tx), train.init(net, tx)._replace(step=jnp.int32([2]))]
    lq = [quantized(QuantSpec("lq_net", bits=b, clip=1.0)) for b in (2, 3)]
    grids = [quantized(QuantSpec(bits=2, clip=1.0, grid=g)) for g in GRIDS]
    rngs = nnx.Rngs(0)
    widths = [
        models.SEWResNet(10, blocks=(), width=w, in_channels=1, rngs=rngs)
        for w in (2, 3)
    ]
    foreign = Mesh(np.array(jax.devices()), ("data",))
    mistakes = {
        "too many devices": lambda: train.make_mesh(9),
        "no device": lambda: train.make_mesh([]),
        "half a device": lambda: train.make_mesh(0.5),
        "configs": lambda: train.make_mesh(configs=3),
        "no configs": lambda: train.make_mesh(configs=0),
        "share": lambda: fit(mesh=data, batch_size=12),
        "foreign": lambda: fit(mesh=foreign),
        "no mesh": lambda: fit(mesh=8),
        "foreign evaluation": lambda: train.evaluate(net, dataset, mesh=foreign),
        "number": lambda: sweep(net, net, net, mesh=train.make_mesh(configs=2)),
        "none": lambda: sweep(),
        "keys": lambda: fit(mesh=data, model=WithKeys()),
        "another's": lambda: fit(start=train.init(small_nets.Dense(depth=2), tx)),
        "steps": lambda: sweep(net, net, start=train.stack(starts)),
        "start": lambda: sweep(net, net, start=starts[0]),
        "layers": lambda: sweep(net, small_nets.Dense()),
        "quantizer": lambda: sweep(net, quantized(small_nets.UNIFORM)),
        "grid": lambda: sweep(*grids),
        "basis": lambda: sweep(*lq),
        "evaluated": lambda: train.evaluate(lq, dataset),
        "neuron": lambda: sweep(net, small_nets.Dense(depth=1, neuron=neurons.IF())),
        "width": lambda: sweep(*widths),
        "dtype": lambda: sweep(net, small_nets.Dense(depth=1, param=jnp.bfloat16)),
    }
    said = {}
    for name, mistake in mistakes.items():
        said[name] = ""
        try:
            mistake()
        except ValueError as error:
            said[name] = str(error)
    return said


def kept_to_their_cores():
    """Which of these meshes, on how many cores, have programs that do."""
    meshes = {"8": train.make_mesh(configs=8), "4": train.make_mesh(4, configs=4)}
    meshes |= {"4 x 2": train.make_mesh(configs=4), "1": train.make_mesh(1)}
    found = []
    for cores in (1, 2, 4, 8, 16):
        with mock.patch("os.cpu_count", return_value=cores):
            for name, mesh in meshes.items():
                if sharding.compiler_options(mesh):
                    found.append(f"{name} on {cores}")
    return found


GRIDS = ("mid_rise", "mid_tread")


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    found = {"refused": refused(), "kept to their cores": kept_to_their_cores()}
    for offset in (0, 1e2, 1e4):
        found[f"float32 {offset:g}"] = batch_norm(jnp.float32, offset)
    found["float32 from near"] = batch_norm(jnp.float32, 1e4, running_mean=9_990)
    with jax.enable_x64(True):
        found["float64"] = batch_norm(jnp.float64, 3)
    small_nets.tell(found)
