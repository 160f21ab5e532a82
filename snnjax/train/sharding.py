"""Meshes of devices, and the placement of arrays on them.

Built on `jax.shard_map`: a program for one device runs on all of them. Every process
holds the network before training on its host, and the whole data set or its share of
every batch, so inputs need no communication.
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

from snnjax import _checks
from snnjax.data.batches import DeviceBatch

Tree = TypeVar("Tree")

# The axes of a mesh: networks of different numbers, and parts of one batch.
CONFIG, DATA = "config", "data"


def make_mesh(
    devices: int | Sequence[jax.Device] | None = None, *, configs: int = 1
) -> Mesh:
    """Make a mesh of devices with the axes ``config`` and ``data``.

    Along ``data`` the images of a batch are divided, along ``config`` the networks of a
    sweep. All processes must make the same mesh.

    Args:
        devices: number of devices, or a list of them; None is all, those of other
            processes too.
        configs: networks that are trained side by side; the rest is for the data.

    Raises:
        ValueError: more devices than there are, none, or a number that ``configs`` does
            not divide.

    >>> dict(make_mesh(1).shape)
    {'config': 1, 'data': 1}
    """
    _checks.require_whole("configs", configs, 1)
    if isinstance(devices, Sequence):
        chosen = list(devices)
    else:
        there = jax.devices()
        wanted = len(there) if devices is None else devices
        _checks.require_whole("devices", wanted, 1)
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
    """Raise ValueError if the network of ``state`` draws at random itself."""
    for x in jax.tree.leaves(state):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            raise ValueError(
                "model holds random keys (dropout has them), and every device or "
                "network would draw the same; train it alone on one, with mesh=None"
            )


def data_devices(mesh: Mesh | None) -> int:
    """Return the number of devices that share a batch."""
    return 1 if mesh is None else mesh.shape[DATA]


def config_devices(mesh: Mesh | None) -> int:
    """Return the number of networks that a mesh trains side by side."""
    return 1 if mesh is None else mesh.shape[CONFIG]


def data_axis(mesh: Mesh | None) -> str | None:
    """Return the axis that sums go over, or None where there is nothing to sum."""
    return DATA if data_devices(mesh) > 1 else None


def on_mesh(function: Callable, mesh: Mesh | None, in_specs: Any, out_specs: Any):
    """Run ``function``, a program for one device, on every device of the mesh.

    JAX does not check which values are equal on all devices (``check_vma``): every sum
    over devices names its axis, in BatchNorm and at the end of a step.
    """
    if mesh is None:
        return function
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def compiler_options(mesh: Mesh | None) -> dict[str, bool]:
    """Return XLA's options for programs on the mesh.

    Networks side by side on CPU devices, one for each core, use one thread each: XLA
    would divide each operation among all cores, where they wait for each other's
    parts, and two networks on two cores took 1.33 times as long.
    """
    if mesh is None or data_devices(mesh) > 1:
        return {}
    own = mesh.local_devices
    cores = os.cpu_count() or 1
    if own[0].platform != "cpu" or not 1 < cores <= len(own):
        return {}
    return {"xla_cpu_multi_thread_eigen": False}


def map_models(function: Callable, own: int) -> Callable:
    """Map ``function`` over the axis of networks in front, one after another.

    The axis is that of the first ``own`` arguments and of all results.
    """

    def run(*arguments):
        states, rest = arguments[:own], arguments[own:]
        if jax.tree.leaves(states)[0].shape[0] == 1:  # no loop: compiled as by itself
            alone = jax.tree.map(lambda x: x[0], states)
            return jax.tree.map(lambda x: x[None], function(*alone, *rest))
        return jax.lax.map(lambda states: function(*states, *rest), states)

    return run


def shard(tree: Tree, mesh: Mesh | None, spec: P = P()) -> Tree:  # noqa: B008 (constant)
    """Put arrays where the mesh needs them; every process has all of them."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    sharding = NamedSharding(mesh, spec)

    def shard_one(x):
        if is_key(x):
            data = shard_one(jax.random.key_data(x))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        x = np.asarray(x)
        # A copy for each device: a step may take them, and x is the caller's.
        return jax.make_array_from_callback(
            x.shape, sharding, lambda index: np.array(x[index])
        )

    return jax.tree.map(shard_one, tree)


def place_shapes(tree: Tree, mesh: Mesh | None, spec: P) -> Tree:
    """Return shapes as if `shard` had put their arrays on the mesh."""
    if mesh is None:
        return tree
    placement = NamedSharding(mesh, spec)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placement), tree
    )


def count_processes(mesh: Mesh | None) -> int:
    """Return the number of processes that share a batch."""
    if mesh is None:
        return 1
    number = len({device.process_index for device in mesh.devices.flat})
    if number > 1 and config_devices(mesh) > 1:
        raise ValueError(
            "mesh must have one network where processes read their own batches, got "
            f"configs={config_devices(mesh)}; train.make_mesh() makes one for the data"
        )
    return number


def batch_specs(dataset: Any) -> Any:
    """Return the placement of a step's data: a batch is divided, a data set whole."""
    if not isinstance(dataset, DeviceBatch):
        return P()
    return DeviceBatch(P(DATA), P(DATA), P(), P(), P(DATA))


def shard_parts(tree: Tree, mesh: Mesh | None) -> Tree:
    """Put arrays on the devices that share a batch, of which they are a part here."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    placement = NamedSharding(mesh, P(DATA))
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(placement, x), tree
    )


def gather(x: np.ndarray) -> np.ndarray:
    """Return the arrays of all processes, with an axis of processes in front."""
    return np.asarray(multihost_utils.process_allgather(x))


def shard_batch(batch: DeviceBatch, mesh: Mesh | None) -> DeviceBatch:
    """Put this process's part of a batch on its devices."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, batch)

    def shard_one(spec, x):
        if x is None:
            return None
        return jax.make_array_from_process_local_data(NamedSharding(mesh, spec), x)

    specs = batch_specs(batch)
    return jax.tree.map(shard_one, specs, batch, is_leaf=lambda x: isinstance(x, P))


def is_key(x: Any) -> bool:
    """Return True if ``x`` is an array of random keys, which the host cannot hold."""
    return isinstance(x, Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def to_host(tree: Tree) -> Tree:
    """Return whole arrays on the host, from the devices of all processes."""

    def fetch(x):
        if is_key(x):
            return x
        far = isinstance(x, Array) and not x.is_fully_addressable
        if far and not x.is_fully_replicated:
            return multihost_utils.process_allgather(x, tiled=True)
        return np.asarray(x)

    return jax.tree.map(fetch, tree)
