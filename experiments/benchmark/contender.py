"""Workers: programs in processes of their own that run commands."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from experiments.benchmark.timing import Measures, WorkerCrashedError
from experiments.benchmark.workers.serve import READY

ROOT = Path(__file__).parents[2]
# Networks are compared on the CPU, whatever else each library would find.
ON_CPU = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}

# What each peer depends on for its speed, itself first.
PACKAGES = {
    "spikingjelly": ("spikingjelly", "torch"),
    "snntorch": ("snntorch", "torch"),
    "spyx": ("spyx", "jax", "jaxlib", "flax"),
    "scipy": ("scipy",),
    "pot": ("POT",),
}
# Peers that run in processes of their own, and so in any environment.
IN_OWN_PROCESS = ("spikingjelly", "snntorch", "spyx")

_VERSIONS = """
import importlib.metadata, json, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def find_installed(
    peers: Sequence[str], pythons: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Return the versions of the installed peers, found in their environments."""
    found = {}
    for peer in peers:
        python, packages = pythons.get(peer, sys.executable), PACKAGES[peer]
        command = [python, "-c", _VERSIONS, *packages]
        try:
            done = subprocess.run(command, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ValueError(
                f"--python {peer}={python} does not run: {error}"
            ) from None
        versions = json.loads(done.stdout)
        if set(packages) <= set(versions):
            found[peer] = versions
    return found


class Worker:
    """A worker's process, started by its first command.

    Args:
        name: for messages.
        command: runs a program that `workers.serve`s.
        spec: of what it makes; JSON.
    """

    def __init__(self, name: str, command: Sequence[str], spec: Mapping[str, Any]):
        self.name = name
        self._command = [*command, json.dumps(spec)]
        self._process: subprocess.Popen[str] | None = None

    def run(self, command: str) -> Measures:
        """Run a command once.

        Raises:
            WorkerCrashedError: the process stopped.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(command + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._died(process) from None
        return json.loads(self._line(process))

    def _start(self) -> "subprocess.Popen[str]":
        # A file and not a pipe: nobody reads it until the process is dead.
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=os.environ | ON_CPU,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        # Its libraries may print something before.
        while self._line(self._process) != READY:
            pass
        return self._process

    def _line(self, process: "subprocess.Popen[str]") -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise self._died(process)
        return line.strip()

    def _died(self, process: "subprocess.Popen[str]") -> WorkerCrashedError:
        code = process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        reason = lines[-1] if lines else "no output"
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return WorkerCrashedError(f"{self.name} stopped ({how}): {reason}")

    def close(self) -> None:
        """End the process, if it runs."""
        if self._process is None:
            return
        self._process.kill()
        with suppress(BrokenPipeError):  # a dead process did not read its command
            self._process.__exit__(None, None, None)  # waits, and closes the pipes
        self._errors.close()
        self._process = None


@contextmanager
def close_at_end(workers: Sequence[Worker]) -> Iterator[Sequence[Worker]]:
    """Close the workers at the end of the block."""
    with ExitStack() as stack:
        for worker in workers:
            stack.callback(worker.close)
        yield workers
