"""How the suite has XLA compile in less time than for users."""

import os

FLAG = "--xla_cpu_use_fusion_emitters=false"


def not_so() -> str:
    """``XLA_FLAGS`` for a command that compiles as for users."""
    return os.environ.get("XLA_FLAGS", "").replace(FLAG, "").strip()
