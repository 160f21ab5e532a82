"""One run on several processes: how they meet, who writes, what they agree on.

Every process computes the same; the first one alone reads and writes the run folder,
and tells the others what they need of it. So the folder lies on that machine's disk.
"""

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

Tree = TypeVar("Tree")
Value = TypeVar("Value")
_CPUS = "xla_force_host_platform_device_count"


def join(
    devices: int | None = None,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Meet the other processes, if there are any; before JAX starts its backend.

    Args:
        devices: of all processes; a CPU is made so many, unless XLA_FLAGS says it.
        coordinator: HOST:PORT of the first process. None finds the cluster that this
            process is part of (a TPU slice, Slurm, Open MPI), if it is in one.
        num_processes: how many there are.
        process_id: which one this is, from 0.

    Raises:
        ValueError: only some of the last three, devices that the processes cannot
            share, or the others did not come.
    """
    asked = (coordinator, num_processes, process_id)
    alone = all(x is None for x in asked)
    if not alone and any(x is None for x in asked):
        raise ValueError(
            "a cluster needs all of --coordinator HOST:PORT, --num-processes and "
            f"--process-id, got {coordinator}, {num_processes} and {process_id}"
        )
    processes = num_processes or 1
    if processes < 1 or not 0 <= (process_id or 0) < processes:
        raise ValueError(
            f"process_id must be 0 to {processes - 1} of num_processes, got "
            f"{process_id} of {num_processes}"
        )
    if devices is not None:
        if devices % processes:
            raise ValueError(
                f"devices must be a multiple of the {processes} processes, got "
                f"{devices}"
            )
        if "xla_force_host_platform_device_count" not in os.environ.get(
            "XLA_FLAGS", ""
        ):
            jax.config.update("jax_num_cpu_devices", devices // processes)
    if alone:
        # What JAX says where it sees no cluster is a ValueError; then there is none.
        with contextlib.suppress(ValueError):
            jax.distributed.initialize()
        return
    try:
        jax.distributed.initialize(*asked)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the {num_processes} processes did not meet at {coordinator} "
            f"({str(error).splitlines()[0]}); start all of them, each with its own "
            "--process-id from 0, the first where the coordinator's address leads"
        ) from None


def is_first() -> bool:
    """Whether this process is the one that reads and writes."""
    return jax.process_index() == 0


def by_first(function: Callable[[], Any]) -> Any:
    """What ``function`` returns in the first process, in all: a JSON value.

    Raises:
        ValueError: it raised one, or an OSError; in all processes.
    """
    if jax.process_count() == 1:
        return function()
    raised, said = None, {}
    if is_first():
        try:
            said = {"value": function()}
        except (ValueError, OSError) as error:
            raised, said = error, {"error": str(error)}
    text = np.frombuffer(json.dumps(said).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    text = text if is_first() else np.zeros(size, np.uint8)
    said = json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(text))))
    if raised is not None:
        raise raised
    if "error" in said:
        raise ValueError(f"the first process: {said['error']}")
    return said["value"]


def by_all(function: Callable[[], Value]) -> Value:
    """What ``function`` returns in this process, once it has returned in all.

    Raises:
        ValueError: it raised one, or an OSError, in any of them; in all processes.
    """
    raised, value = None, None
    try:
        value = function()
    except (ValueError, OSError) as error:
        raised = error
    failed = of_all(raised is not None)
    if raised is not None:
        raise raised
    if failed.any():
        raise ValueError(f"process {int(failed.argmax())} failed, and says why")
    return cast(Value, value)


@contextlib.contextmanager
def together(*errors: type[Exception]) -> Iterator[None]:
    """``errors`` are raised in all processes; any other ends this one at once.

    The others wait for it, and JAX ends them when it is gone. Left to itself it would
    wait for them to end.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1 or isinstance(error, errors):
            raise
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def of_first(tree: Tree) -> Tree:
    """The arrays of the first process's tree, in all processes; of one structure."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.broadcast_one_to_all(jax.tree.map(np.asarray, tree))


def of_all(values: Any) -> np.ndarray:
    """Each process's numbers, ``[processes, ...]``."""
    values = np.asarray(values)
    if jax.process_count() == 1:
        return values[None]
    return np.asarray(multihost_utils.process_allgather(values))
