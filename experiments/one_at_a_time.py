"""The scheduler of XLA for CPUs that keeps the fewest buffers alive.

Its default starts any ready operation, which extends the lifetime of buffers. A step
of SEW-ResNet18 then held 1.1 (T = 4) to 2.6 times (T = 16) the memory and was no
faster: each operation already takes all cores. Read when JAX starts its backend.

XLA_FLAGS=--xla_cpu_enable_concurrency_optimized_scheduler=true disables it.
"""

import os

_FLAG = "xla_cpu_enable_concurrency_optimized_scheduler"


def set_sequential_scheduler() -> None:
    """Add the flag to XLA_FLAGS, unless it has one."""
    flags = os.environ.get("XLA_FLAGS", "")
    if _FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_FLAG}=false".strip()
