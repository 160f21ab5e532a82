"""How the suite has XLA compile in less time than for users."""

import os

# No fused loops, and one piece of code a program: workers share the cores already.
FLAGS = (
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)


def add_to(flags: str) -> str:
    """These ``XLA_FLAGS`` and ours."""
    return " ".join(flags.split() + [flag for flag in FLAGS if flag not in flags])


def not_so() -> str:
    """``XLA_FLAGS`` for a command that compiles as for users."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    return " ".join(flag for flag in flags if flag not in FLAGS)
