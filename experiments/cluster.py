"""One run on several processes: how they meet, who writes, what they agree on.

Every process computes the same; the first one alone reads and writes the run folder,
and tells the others what they need of it. So the folder lies on that machine's disk.
"""

import contextlib
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec as P

Tree = TypeVar("Tree")
Value = TypeVar("Value")

_CPUS = "xla_force_host_platform_device_count"
_WAIT = 300  # seconds that processes wait for each other to start
_LEAVE = 30  # and to end
_TEXT = 4096  # bytes
_ADDRESS = re.compile(r".+:\d+")


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
        ValueError: only some of the last three, no port, or devices that the
            processes cannot share. Where the others do not come JAX ends the process.
    """
    asked = (coordinator, num_processes, process_id)
    alone = all(x is None for x in asked)
    if not alone and any(x is None for x in asked):
        raise ValueError(
            "a cluster needs all of --coordinator HOST:PORT, --num-processes and "
            f"--process-id, got {coordinator}, {num_processes} and {process_id}"
        )
    if coordinator is not None and not _ADDRESS.fullmatch(coordinator):
        raise ValueError(
            f"coordinator must be HOST:PORT of the first process, got {coordinator!r}"
        )
    processes = 1 if num_processes is None else num_processes
    if processes < 1 or not 0 <= (process_id or 0) < processes:
        raise ValueError(
            "num_processes must be at least 1, and process_id from 0 below it, got "
            f"{num_processes} and {process_id}"
        )
    if devices is not None:
        if devices % processes:
            raise ValueError(
                f"devices must be a multiple of the {processes} processes, got "
                f"{devices}"
            )
        if _CPUS not in os.environ.get("XLA_FLAGS", ""):
            jax.config.update("jax_num_cpu_devices", devices // processes)
    # Its own handler of SIGTERM would keep a process alive; `stopping` has one.
    jax.config.update("jax_enable_preemption_service", False)
    options = dict(
        initialization_timeout=_WAIT,
        # One that ended by itself is not waited for much longer.
        shutdown_timeout_seconds=_LEAVE,
    )
    if alone:
        # What JAX says where it sees no cluster is a ValueError; then there is none.
        with contextlib.suppress(ValueError):
            jax.distributed.initialize(**options)
        _connect()
        return
    print(
        f"process_id {process_id} waits until all {num_processes} processes are at "
        f"{coordinator}, {_WAIT} s at most",
        file=sys.stderr,
        flush=True,
    )
    # Python would hear Ctrl-C only after the waiting.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        jax.distributed.initialize(*asked, **options)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the {num_processes} processes did not meet at {coordinator} "
            f"({str(error).splitlines()[0]}); start all of them, each with its own "
            "--process-id from 0, the first where the coordinator's address leads"
        ) from None
    finally:
        signal.signal(signal.SIGINT, before)
    _connect()


def _connect() -> None:
    """A first word between all devices that will speak to each other.

    Between CPUs (Gloo) it must be answered within 30 s; later ones are waited for.
    A first step would be late: one process may find compiled what others compile.
    """
    if jax.process_count() == 1 or jax.default_backend() != "cpu":
        return
    from snnjax import train  # not for commands that are not of a cluster

    of_all(0)
    number = jax.device_count()
    for configs in range(1, number + 1):
        if number % configs == 0:
            mesh = train.make_mesh(configs=configs)
            jax.jit(jax.shard_map(_word, mesh=mesh, in_specs=(), out_specs=P()))()


def _word() -> Array:
    word = jax.lax.psum(jax.lax.axis_index("config"), "config")
    return jax.lax.psum(word + jax.lax.axis_index("data"), "data")


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
    text = json.dumps(said).encode()
    # Of few lengths, since JAX compiles a program for each; JSON may end in blanks.
    text = text.ljust(-(-len(text) // _TEXT) * _TEXT)
    size = int(of_first(np.int32(len(text))))
    text = np.frombuffer(text, np.uint8) if is_first() else np.zeros(size, np.uint8)
    said = json.loads(bytes(of_first(text)))
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

    The others wait for it, and JAX ends them when it is gone. Left to itself, Ctrl-C
    included, it would wait for them to end.
    """
    try:
        yield
    except BaseException as error:
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


def kept_by_first(load: Callable[[], Tree | None], like: Tree) -> Tree | None:
    """What the first process has kept, in all processes; None where that is nothing.

    Args:
        load: called in the first process.
        like: a tree of the structure, shapes and dtypes of what ``load`` returns.

    Raises:
        ValueError: ``load`` raised one, or an OSError; in all processes.
    """
    kept: list[Tree] = []

    def look() -> bool:
        found = load()
        if found is not None:
            kept.append(found)
        return bool(kept)

    return of_first(kept[0] if kept else like) if by_first(look) else None


def of_all(values: Any) -> np.ndarray:
    """Each process's numbers, ``[processes, ...]``."""
    values = np.asarray(values)
    if jax.process_count() == 1:
        return values[None]
    return np.asarray(multihost_utils.process_allgather(values))
