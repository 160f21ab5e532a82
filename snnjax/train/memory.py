"""Estimate the memory of a training step before it is compiled."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import Var

from snnjax.data import Dataset
from snnjax.layers.inspect import check_model
from snnjax.train import checks
from snnjax.train.state import split

# Of the largest activation: cotangents, what a convolution copies, and what XLA for
# CPUs runs ahead; and what a block makes again. Fitted to compiled steps of widths 16
# and 64, T = 4 to 16: see docs/performance.md.
_PASSING = 7
_AGAIN = 4


def estimate_memory(
    model: nnx.Module, dataset: Dataset, *, batch_size: int, timesteps: int = 4
) -> int:
    """Estimate the bytes of a training step at its peak, with state and data set.

    The state is that of SGD with momentum; AdamW's is larger by the parameters.

    What the backward pass keeps is counted exactly, by tracing; what passes is taken to
    be seven times the largest activation, and eleven where blocks are recomputed. That
    is within 25 % of XLA's own account on a CPU up to 8 time steps. Beyond them XLA
    needs up to four times as much, unless XLA_FLAGS has
    ``--xla_cpu_enable_concurrency_optimized_scheduler=false``.

    Args:
        model: the network.
        dataset: training images.
        batch_size: images a step.
        timesteps: T.

    Raises:
        ValueError: batch_size or timesteps is no whole number from 1.
    """
    check_model(model)
    checks.check_dataset(dataset)
    checks.check_whole(batch_size=batch_size, timesteps=timesteps)
    graphdef, params, rest = split(model)

    def loss(params, rest, x):
        model = nnx.merge(graphdef, params, rest, copy=True)
        logits, _ = model(x, timesteps=timesteps, train=True, record=lambda s: ())
        return jnp.mean(logits)

    def backward(params, rest, x):
        return jax.vjp(lambda params: loss(params, rest, x), params)[1]

    x = checks.batch_shape(dataset, batch_size)
    program = jax.make_jaxpr(backward)(params, rest, x).jaxpr
    given = {id(v) for v in program.invars}
    kept = {id(v): v for v in program.outvars if isinstance(v, Var)}
    made = (v for equation in program.eqns for v in equation.outvars)
    largest = max(_bytes(v.aval) for v in made)
    of_params = sum(_bytes(x) for x in jax.tree.leaves(params))
    state = 2 * of_params + sum(_bytes(x) for x in jax.tree.leaves(rest))
    remat = getattr(model, "remat", "none") != "none"
    passing = (_PASSING + _AGAIN * remat) * largest
    residuals = sum(_bytes(v.aval) for i, v in kept.items() if i not in given)
    gradients = of_params
    return state + gradients + residuals + passing + dataset.images.nbytes


def _bytes(x: Any) -> int:
    """Return the size of an array or of its type."""
    return x.size * x.dtype.itemsize
