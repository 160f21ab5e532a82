"""One of two processes that agree on what `snnjax.runs.hosts` has for them.

    python agreeing.py PORT PROCESS_ID FOLDER
    python agreeing.py PORT PROCESS_ID SECONDS

The first prints what it found as JSON, and then process 0 fails where nobody expects
it. In the second, process 0 comes so late to the first step of every mesh.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from snnjax import runs, train
from snnjax.runs import hosts
from snnjax.train import sharding

LONG = "x" * 10_000


def error_of(function) -> str:
    try:
        function()
    except (ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def failing(error, who):
    def function():
        if jax.process_index() == who:
            raise error

    return function


def saved(folder: Path) -> list[float]:
    """What the first process writes and reads, while the other waits for its word."""
    with runs.RunCheckpoints(folder) as history:
        history.save(3, {"w": np.ones(2)})
        return history.load({"w": np.zeros(2)})["w"].tolist()


def stopped() -> str:
    with runs.handle_signals():
        runs.raise_if_stopping("before any signal")
        if jax.process_index() == 1:
            signal.raise_signal(signal.SIGTERM)
        try:
            runs.raise_if_stopping("at the same place")
        except runs.PreemptedError as reason:
            return f"{reason.code}: {reason}"
    return "went on"


def listed() -> None:
    with hosts.abort_on_unexpected_error(KeyError):
        raise KeyError("of all")


def late(seconds: float) -> list[float]:
    """A sum over the devices that share a batch, of all networks, on every mesh."""
    sums = []
    for configs in (4, 2, 1):
        mesh = train.make_mesh(configs=configs)
        spec = P("config", "data")
        add = sharding.on_mesh(lambda x: jax.lax.psum(x, "data"), mesh, spec, spec)
        x = sharding.shard(np.ones((4, 4), np.float32), mesh, spec)
        hosts.run_on_primary(lambda: None)
        if hosts.is_primary():
            time.sleep(seconds)
        sums.append(float(sharding.to_host(jax.jit(add)(x)).sum()))
    return sums


def main() -> None:
    port, me, word = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if word.isdecimal():
        hosts.initialize(4, f"localhost:{port}", 2, me)
        sys.stdout.write(f"{json.dumps({'sums': late(int(word))})}\n")
        return
    folder = Path(word)
    hosts.initialize(2, f"localhost:{port}", 2, me)
    called = []
    tree = {"f": np.float32([0.1, np.nan]) + me, "b": np.array([not me]), "i": 7 - me}
    first = hosts.broadcast_from_primary(tree)
    found = {
        "devices": [jax.local_device_count(), jax.device_count()],
        "first": hosts.is_primary(),
        "by_first": [
            hosts.run_on_primary(lambda: called.append(me) or {"me": me, "x": 0.1}),
            hosts.run_on_primary(lambda: LONG) == LONG,
            hosts.run_on_primary(lambda: saved(folder)),
        ],
        "called": called,
        "by_first_fails": [
            error_of(lambda: hosts.run_on_primary(failing(ValueError("bad"), 0))),
            error_of(lambda: hosts.run_on_primary(failing(OSError(28, "full"), 0))),
            error_of(lambda: hosts.run_on_primary(failing(ValueError("unheard"), 1))),
        ],
        "by_all": hosts.run_on_all_hosts(lambda: me),
        "by_all_fails": [
            error_of(lambda: hosts.run_on_all_hosts(failing(ValueError("bad"), 0))),
            error_of(lambda: hosts.run_on_all_hosts(failing(ValueError("bad"), 1))),
        ],
        "of_first": {k: np.asarray(x).tolist() for k, x in first.items()},
        "dtypes": [str(first[k].dtype) for k in "fb"],
        "of_all": hosts.all_gather([me, 10 * me]).tolist(),
        "stopped": stopped(),
    }
    try:
        listed()
    except KeyError as error:
        found["together"] = str(error)
    sys.stdout.write(f"{json.dumps(found)}\n")
    sys.stdout.flush()
    with hosts.abort_on_unexpected_error(ValueError):
        if me == 0:
            raise RuntimeError("a fault of the first alone")
        hosts.all_gather(me)
    os._exit(7)  # it must not come here


if __name__ == "__main__":
    main()
