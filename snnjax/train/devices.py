"""Meshes of devices, and what lies where on them.

The engine is JAX's: a program for one device, `jax.shard_map` that runs it on all of
them, and sharded arrays. Each process holds the whole data set and the network before
training on its host, and puts there what its own devices need: nothing is sent.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from snnjax.train import checks

Tree = TypeVar("Tree")

# What a mesh is for: networks of different numbers, and parts of one batch.
CONFIG, DATA = "config", "data"


def make_mesh(
    devices: int | Sequence[jax.Device] | None = None, *, configs: int = 1
) -> Mesh:
    """A mesh of devices with the axes ``config`` and ``data``.

    Along ``data`` the images of a batch are divided, along ``config`` the networks of a
    sweep. All processes must make the same mesh.

    Args:
        devices: how many of the first, or which; None is all, those of other processes
            too.
        configs: how many networks are trained side by side; the rest is for the data.

    Raises:
        ValueError: more devices than there are, none, or a number that ``configs`` does
            not divide.

    >>> dict(make_mesh(1).shape)
    {'config': 1, 'data': 1}
    """
    checks.check_whole(configs=configs)
    if isinstance(devices, Sequence):
        chosen = list(devices)
    else:
        there = jax.devices()
        wanted = len(there) if devices is None else devices
        checks.check_whole(devices=wanted)
        if wanted > len(there):
            raise ValueError(
                f"devices must be at most {len(there)}, which JAX sees here "
                f"({there[0].platform}), got {wanted}; on a CPU XLA_FLAGS="
                f"--xla_force_host_platform_device_count={wanted} makes so many"
            )
        chosen = there[:wanted]
    if not chosen:
        raise ValueError("devices must be at least one, got none")
    if len(chosen) % configs:
        raise ValueError(
            f"configs must divide the number of devices, {len(chosen)}, got {configs}"
        )
    shape = (configs, len(chosen) // configs)
    types = (AxisType.Auto,) * 2
    # JAX puts neighbours of the network next to each other.
    return jax.make_mesh(shape, (CONFIG, DATA), types, devices=chosen)


def check_mesh(mesh: Any) -> None:
    """Raise ValueError unless it is None or a mesh of `make_mesh`'s axes."""
    got = mesh.axis_names if isinstance(mesh, Mesh) else type(mesh).__name__
    if mesh is None or got == (CONFIG, DATA):
        return
    raise ValueError(
        f"mesh must be None or have the axes {(CONFIG, DATA)}, got {got}; "
        "train.make_mesh makes one"
    )


def check_share(batch_size: int, mesh: Mesh | None) -> None:
    """Raise ValueError unless the devices along ``data`` get equal parts of a batch."""
    if batch_size % data_devices(mesh):
        raise ValueError(
            f"batch_size must be a multiple of {data_devices(mesh)}, the devices that "
            f"share a batch, got {batch_size}"
        )


def check_no_keys(state: Any) -> None:
    """Raise ValueError if a network to be trained on a mesh draws at random itself."""
    for x in jax.tree.leaves(state):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            raise ValueError(
                "the network holds random keys (dropout has them), and every device "
                "would draw the same; train it on one, with mesh=None"
            )


def data_devices(mesh: Mesh | None) -> int:
    """Over how many devices a batch is divided."""
    return 1 if mesh is None else mesh.shape[DATA]


def config_devices(mesh: Mesh | None) -> int:
    """How many networks a mesh trains side by side."""
    return 1 if mesh is None else mesh.shape[CONFIG]


def data_axis(mesh: Mesh | None) -> str | None:
    """The axis that sums go over, or None where there is nothing to sum."""
    return DATA if data_devices(mesh) > 1 else None


def on_mesh(function: Callable, mesh: Mesh | None, in_specs: Any, out_specs: Any):
    """``function``, a program for one device, run on every device of the mesh.

    JAX does not follow here which values are equal on all devices (``check_vma``): all
    that is summed over them is summed by name, in BatchNorm and at the end of a step.
    """
    if mesh is None:
        return function
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def compiler_options(mesh: Mesh | None) -> dict[str, bool]:
    """What XLA is told of programs on the mesh.

    Networks side by side on CPU devices, one for each core, keep to their own: XLA
    divides each operation among all cores, where they wait for each other's parts, and
    two networks on two cores took 1.33 times as long.
    """
    if mesh is None or data_devices(mesh) > 1:
        return {}
    own = mesh.local_devices
    cores = os.cpu_count() or 1
    if own[0].platform != "cpu" or not 1 < cores <= len(own):
        return {}
    return {"xla_cpu_multi_thread_eigen": False}


def each(function: Callable, own: int) -> Callable:
    """``function`` for networks with an axis of them in front, one after another.

    The axis is that of the first ``own`` arguments and of all results.
    """

    def run(*arguments):
        states, rest = arguments[:own], arguments[own:]
        if jax.tree.leaves(states)[0].shape[0] == 1:  # no loop: compiled as by itself
            alone = jax.tree.map(lambda x: x[0], states)
            return jax.tree.map(lambda x: x[None], function(*alone, *rest))
        return jax.lax.map(lambda states: function(*states, *rest), states)

    return run


def put(tree: Tree, mesh: Mesh | None, spec: P = P()) -> Tree:  # noqa: B008 (constant)
    """The same arrays, where the mesh wants them; every process has all of them."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    sharding = NamedSharding(mesh, spec)

    def one(x):
        if isinstance(x, Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = one(jax.random.key_data(x))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        x = np.asarray(x)
        # A copy for each device: a step may take them, and x is the caller's.
        return jax.make_array_from_callback(
            x.shape, sharding, lambda index: np.array(x[index])
        )

    return jax.tree.map(one, tree)


def stacked(trees: Sequence[Tree]) -> Tree:
    """One tree, its arrays with an axis of the trees in front."""
    return jax.tree.map(lambda *x: np.stack([np.asarray(a) for a in x]), *trees)


def unstacked(tree: Tree) -> list[Tree]:
    """The trees of `stacked`, on the host, from the devices of all processes."""
    whole = fetched(tree)
    number = len(jax.tree.leaves(whole)[0])
    return [jax.tree.map(lambda x: x[i], whole) for i in range(number)]  # noqa: B023


def here(tree: Tree) -> Tree:
    """Arrays that are equal on all devices of a mesh, as those of one of them."""

    def one(x):
        return x.addressable_data(0) if isinstance(x, Array) else x

    return jax.tree.map(one, tree)


def fetched(tree: Tree) -> Tree:
    """Whole arrays on the host, from the devices of all processes."""

    def one(x):
        far = isinstance(x, Array) and not x.is_fully_addressable
        if far and not x.is_fully_replicated:
            return multihost_utils.process_allgather(x, tiled=True)
        return np.asarray(x)

    return jax.tree.map(one, tree)
