"""Programs on several devices: XLA makes them when a process starts, so in its own."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import quickly

HERE = Path(__file__).parent


def run(
    program: str,
    *words: str,
    devices: int,
    processes: int = 1,
    as_for_users: bool = False,
) -> Any:
    """What a program beside this file prints, read as JSON; of all processes a list.

    Args:
        program: its name.
        words: its arguments.
        devices: of each process, virtual ones of the CPU.
        processes: how many; they find each other by `jax.distributed`.
        as_for_users: compile as for users, not quickly as the rest of the suite.
    """
    flags = quickly.not_so() if as_for_users else os.environ.get("XLA_FLAGS", "")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
    }
    path = [str(HERE.parents[1] / "helpers"), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    if processes > 1:
        environment |= {"PROCESSES": str(processes), "PORT": str(free_port())}
    started = [
        subprocess.Popen(
            [sys.executable, str(HERE / f"{program}.py"), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | {"PROCESS": str(i)},
        )
        for i in range(processes)
    ]
    try:
        said = [process.communicate(timeout=900) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, said, strict=True):
        assert process.returncode == 0, errors
    found = [json.loads(out.splitlines()[-1]) for out, _ in said]
    return found if processes > 1 else found[0]


def free_port() -> int:
    with socket.socket() as at:
        at.bind(("localhost", 0))
        return at.getsockname()[1]
