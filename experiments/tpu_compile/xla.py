"""Parse XLA's reports on a program: collectives, out-of-memory errors."""

import math
import re

import jax

GB = 2**30
_UNITS = {"G": GB, "T": 1024 * GB}

# A collective's result is that of its line, or of the line where it is done.
_COLLECTIVE = re.compile(
    r" = (?P<shape>.*?) (?P<kind>all-reduce|all-gather|all-to-all|reduce-scatter|"
    r"collective-permute|collective-broadcast)(-done)?\("
)
_ARRAY = re.compile(r"[a-z]+(?P<bits>\d+)?[a-z\d]*\[(?P<sizes>[\d,]*)\]")
# Reported before scheduling, and after it.
_TOO_LARGE = (
    re.compile(r"\(([\d.]+)([GT])\) exceeds available HBM \(([\d.]+)([GT])\)"),
    re.compile(r"Used ([\d.]+)([GT]) of ([\d.]+)([GT]) hbm"),
)


def count_collectives(program: str) -> dict[str, dict[str, int]]:
    """Count the collectives in a compiled program's text: number and bytes by kind.

    Bytes are those of the results, on one device.

    >>> count_collectives("%x = (f32[3,8]{1,0}, bf16[2]) all-reduce(%a, %b), x=1")
    {'all-reduce': {'number': 1, 'bytes': 100}}
    """
    found: dict[str, dict[str, int]] = {}
    for line in _COLLECTIVE.finditer(program):
        kind = found.setdefault(line["kind"], {"number": 0, "bytes": 0})
        kind["number"] += 1
        for array in _ARRAY.finditer(line["shape"]):
            size = math.prod(int(n) for n in array["sizes"].split(",") if n)
            kind["bytes"] += size * max(int(array["bits"] or 8), 8) // 8
    return found


def read_collectives(program: jax.stages.Compiled) -> dict[str, dict[str, int]] | None:
    """Return a program's collectives; None where it cannot be printed."""
    # JAX 0.10 cannot print programs of libtpu 0.0.52 with asynchronous operations.
    try:
        return count_collectives(program.as_text() or "")
    except jax.errors.JaxRuntimeError as error:
        if "async-update" not in str(error):
            raise
        return None


def parse_out_of_memory(error: Exception) -> tuple[float, float]:
    """Return the bytes that a program needs and a chip has; raise other errors."""
    for pattern in _TOO_LARGE:
        if found := pattern.search(str(error)):
            needed, unit, has, unit_of_has = found.groups()
            return float(needed) * _UNITS[unit], float(has) * _UNITS[unit_of_has]
    raise error
