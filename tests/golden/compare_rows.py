"""Compare the rows of a study with those of another, key by key.

    python tests/golden/compare_rows.py tests/golden/study/digits.jsonl results.jsonl

Prints every key that differs, with its largest difference, and exits with 1 if there is
one. Keys that describe a start and not a network are left out. ``tests/golden/study``
holds the rows, the commands' ``--help`` and the list of tests from before the packages
were rearranged; its numbers are those of one machine to the bit, and of others within
the spread over seeds.
"""

import json
import sys
from pathlib import Path

LEFT_OUT = {"seconds", "config_hash", "versions", "devices", "platform"}


def read(path: str) -> dict[tuple, dict]:
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    names = ("target", "method", "grid", "signed", "site", "quantize_all", "clip")
    return {
        tuple(row[k] for k in (*names, "bits", "mode", "seed")): row for row in rows
    }


def difference(a, b) -> float:
    """The largest difference of two values; infinite where they are no numbers."""
    if a == b:
        return 0.0
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return max(difference(a[k], b[k]) for k in a)
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    return abs(a - b) if numbers else float("inf")


def main(one: str, other: str) -> int:
    rows, others = read(one), read(other)
    print(
        f"{len(rows)} and {len(others)} rows, {len(rows.keys() & others.keys())} common"
    )
    worst: dict[str, float] = {}
    for name in rows.keys() & others.keys():
        a, b = rows[name], others[name]
        for key in (a.keys() | b.keys()) - LEFT_OUT:
            found = difference(a.get(key), b.get(key))
            if found:
                worst[key] = max(found, worst.get(key, 0.0))
    for key, found in sorted(worst.items()):
        print(f"{key}: {found:g}")
    return int(bool(worst) or rows.keys() != others.keys())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
