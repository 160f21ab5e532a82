"""XLA for CPUs told to run a step's operations in the order that keeps least.

Its usual order puts first whatever is ready, for more to run side by side. A training
step of SEW-ResNet18 then held 1.1 (T = 4) to 2.6 times (T = 16) the memory and was no
faster: each operation already takes all cores. Read when JAX starts its backend.

XLA_FLAGS=--xla_cpu_enable_concurrency_optimized_scheduler=true leaves all as it was.
"""

import os

_FLAG = "xla_cpu_enable_concurrency_optimized_scheduler"


def use() -> None:
    """Add the flag to XLA_FLAGS, unless somebody has chosen."""
    flags = os.environ.get("XLA_FLAGS", "")
    if _FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_FLAG}=false".strip()
