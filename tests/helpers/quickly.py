"""How the suite has XLA compile in less time than for users."""

import os

# No fused loops, and one piece of code a program: workers share the cores already.
FLAGS = (
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)


def add_to(flags: str) -> str:
    """Return ``XLA_FLAGS`` with those of ours that it does not set."""
    ours = [flag for flag in FLAGS if flag.partition("=")[0] not in flags]
    return " ".join([*flags.split(), *ours])


def not_so() -> str:
    """Return ``XLA_FLAGS`` for a command that compiles as for users."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    return " ".join(flag for flag in flags if flag not in FLAGS)
