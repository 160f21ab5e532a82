"""One run on several hosts: initialization, the primary host, collectives.

Every process computes the same. The primary process (index 0) alone reads and writes
files, and broadcasts what the others need: so files lie on that machine's disk.
"""

import contextlib
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec as P

from snnjax.train import make_mesh

Tree = TypeVar("Tree")
Value = TypeVar("Value")

_CPUS = "xla_force_host_platform_device_count"
_START_SECONDS = 300  # processes wait so long for each other to start
_END_SECONDS = 30  # and to end
_TEXT = 4096  # bytes
_ADDRESS = re.compile(r".+:\d+")
_on_primary_alone = False  # while a function of `run_on_primary` runs


def initialize(
    devices: int | None = None,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Connect to the other processes, if any; call it before JAX starts its backend.

    Args:
        devices: number of all processes together; CPUs are split into so many, unless
            XLA_FLAGS sets a number.
        coordinator: HOST:PORT of the primary host. None detects the cluster of this
            process (a TPU slice, Slurm, Open MPI), if there is one.
        num_processes: number of processes.
        process_id: index of this process, from 0.

    Raises:
        ValueError: only some of the last three, no port, or devices that the
            processes cannot share. If the others do not start, JAX ends the process.
    """
    asked = (coordinator, num_processes, process_id)
    alone = all(x is None for x in asked)
    if not alone and any(x is None for x in asked):
        raise ValueError(
            "a cluster needs all of coordinator (HOST:PORT), num_processes and "
            f"process_id, got {coordinator}, {num_processes} and {process_id}"
        )
    if coordinator is not None and not _ADDRESS.fullmatch(coordinator):
        raise ValueError(
            f"coordinator must be HOST:PORT of the primary host, got {coordinator!r}"
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
    # Its handler of SIGTERM would keep the process alive; `preemption` has its own.
    jax.config.update("jax_enable_preemption_service", False)
    options = dict(
        initialization_timeout=_START_SECONDS,
        shutdown_timeout_seconds=_END_SECONDS,
    )
    if alone:
        # jax.distributed raises ValueError outside a cluster; then run single-process.
        with contextlib.suppress(ValueError):
            jax.distributed.initialize(**options)
        _connect()
        return
    sys.stderr.write(
        f"process_id {process_id} waits until all {num_processes} processes connect "
        f"to {coordinator}, {_START_SECONDS} s at most\n"
    )
    sys.stderr.flush()
    # Python's handler would run only after the wait.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        jax.distributed.initialize(*asked, **options)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the {num_processes} processes did not meet at {coordinator} "
            f"({str(error).splitlines()[0]}); start all of them, each with its own "
            "process_id from 0, the first where the coordinator's address leads"
        ) from None
    finally:
        signal.signal(signal.SIGINT, before)
    _connect()


def _connect() -> None:
    """Run one collective per mesh so that Gloo connects before compile times diverge.

    Gloo, between CPUs, allows 30 s for the first collective. A first training step may
    be later: one process may find in its cache what the others compile.
    """
    if jax.process_count() == 1 or jax.default_backend() != "cpu":
        return
    all_gather(0)
    number = jax.device_count()
    for configs in range(1, number + 1):
        if number % configs == 0:
            mesh = make_mesh(configs=configs)
            jax.jit(
                jax.shard_map(_warmup_collective, mesh=mesh, in_specs=(), out_specs=P())
            )()


def _warmup_collective() -> Array:
    index = jax.lax.psum(jax.lax.axis_index("config"), "config")
    return jax.lax.psum(index + jax.lax.axis_index("data"), "data")


def is_primary() -> bool:
    """Return True in the process that reads and writes files."""
    return jax.process_index() == 0


def run_on_primary(function: Callable[[], Any]) -> Any:
    """Run ``function`` on the primary host and broadcast its result, a JSON value.

    Within ``function`` further calls run directly: the other processes wait outside.

    Raises:
        ValueError: it raised one, or an OSError; in all processes.
    """
    global _on_primary_alone
    if jax.process_count() == 1 or _on_primary_alone:
        return function()
    raised, message = None, {}
    if is_primary():
        _on_primary_alone = True
        try:
            message = {"value": function()}
        except (ValueError, OSError) as error:
            raised, message = error, {"error": str(error)}
        finally:
            _on_primary_alone = False
    text = json.dumps(message).encode()
    # Of few lengths, since JAX compiles a program for each; JSON may end in blanks.
    text = text.ljust(-(-len(text) // _TEXT) * _TEXT)
    size = int(broadcast_from_primary(np.int32(len(text))))
    data = np.frombuffer(text, np.uint8) if is_primary() else np.zeros(size, np.uint8)
    message = json.loads(bytes(broadcast_from_primary(data)))
    if raised is not None:
        raise raised
    if "error" in message:
        raise ValueError(f"the primary process failed: {message['error']}")
    return message["value"]


def run_on_all_hosts(function: Callable[[], Value]) -> Value:
    """Run ``function`` in every process; return this one's result once all are done.

    Raises:
        ValueError: it raised one, or an OSError, in any of them; in all processes.
    """
    raised, value = None, None
    try:
        value = function()
    except (ValueError, OSError) as error:
        raised = error
    failed = all_gather(raised is not None)
    if raised is not None:
        raise raised
    if failed.any():
        raise ValueError(
            f"process {int(failed.argmax())} failed; its own output has the reason"
        )
    return cast(Value, value)


def check_same_options(options: Mapping[str, Any]) -> None:
    """Check that all processes have the same options; they would hang otherwise.

    Raises:
        ValueError: they differ; in all processes.
    """
    primary = run_on_primary(lambda: options)
    different = [name for name in options if options[name] != primary[name]]

    def check() -> None:
        if different:
            raise ValueError(
                "all processes must be started with the same options, and "
                f"{', '.join(different)} of this one differ from the primary's"
            )

    run_on_all_hosts(check)


@contextlib.contextmanager
def abort_on_unexpected_error(*expected: type[Exception]) -> Iterator[None]:
    """End this process at once on any error that not all processes raise.

    ``expected`` are errors that all processes raise; they pass. After any other the
    other processes wait for this one, and JAX ends them when it is gone. A normal
    exit, also after Ctrl-C, would wait for them to end first.
    """
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1 or isinstance(error, expected):
            raise
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def broadcast_from_primary(tree: Tree) -> Tree:
    """Return the arrays of the primary host's tree in all processes.

    The tree's structure, shapes and dtypes must be equal in all of them.
    """
    if jax.process_count() == 1:
        return tree
    return multihost_utils.broadcast_one_to_all(jax.tree.map(np.asarray, tree))


def load_on_primary(load: Callable[[], Tree | None], like: Tree) -> Tree | None:
    """Load a tree on the primary host and broadcast it; None if ``load`` returns None.

    Args:
        load: called on the primary host only.
        like: a tree of the structure, shapes and dtypes of what ``load`` returns.

    Raises:
        ValueError: ``load`` raised one, or an OSError; in all processes.
    """
    loaded: list[Tree] = []

    def try_load() -> bool:
        tree = load()
        if tree is not None:
            loaded.append(tree)
        return bool(loaded)

    if not run_on_primary(try_load):
        return None
    return broadcast_from_primary(loaded[0] if loaded else like)


def all_gather(values: Any) -> np.ndarray:
    """Return each process's numbers, ``[processes, ...]``."""
    values = np.asarray(values)
    if jax.process_count() == 1:
        return values[None]
    return np.asarray(multihost_utils.process_allgather(values))
