"""Write spiketrains.json: spike train distances of Elephant and PySpike.

    pip install elephant pyspike
    python tests/golden/make_spiketrains.py

In float64. Trains are strings of 0 and 1; a spike of step t lies at t + 0.5 in [0, T].
Where the libraries differ from us is said in test_golden_spiketrains.py.
"""

import itertools
import json
import platform
from importlib.metadata import version
from pathlib import Path

import neo
import numpy as np
import pyspike
import quantities as pq
from elephant.spike_train_dissimilarity import (
    van_rossum_distance,
    victor_purpura_distance,
)

PACKAGES = ("elephant", "pyspike", "neo", "quantities", "numpy")
STEPS = (4, 5, 16, 64, 200)
TAUS = (0.01, 0.5, 2.0, 10.0, 1e6, np.inf)
COSTS = (0.0, 0.1, 0.5, 1.0, 1.7, 1e6)


def draw(steps: int) -> list[tuple[str, str]]:
    """Pairs of trains: silent, full, single spikes, equal ones, and by density."""
    rng = np.random.default_rng(steps)

    def random(density):
        return "".join("01"[int(s)] for s in rng.random(steps) < density)

    silent, full = "0" * steps, "1" * steps
    first, last = "1" + silent[1:], silent[1:] + "1"
    middle = silent[: steps // 2] + "1" + silent[steps // 2 + 1 :]
    some = random(0.4)
    pairs = [
        *itertools.combinations_with_replacement((silent, full, first, last), 2),
        *((middle, other) for other in (silent, full, first, some)),
        *((some, other) for other in (silent, full, last, some)),
    ]
    for densities in itertools.product((0.1, 0.4, 0.8), repeat=2):
        pairs.append(tuple(map(random, densities)))
    return pairs


def times(train: str) -> np.ndarray:
    return np.flatnonzero([s == "1" for s in train]) + 0.5


def elephants(function, x: str, y: str, number) -> float:
    trains = [neo.SpikeTrain(times(t), units="ms", t_stop=len(t)) for t in (x, y)]
    return float(function(trains, number)[0, 1])


def pyspikes(function, x: str, y: str) -> float:
    return float(function(*(pyspike.SpikeTrain(times(t), [0, len(t)]) for t in (x, y))))


def distances(pairs: list[tuple[str, str]]) -> dict:
    return {
        "x": [x for x, _ in pairs],
        "y": [y for _, y in pairs],
        "van_rossum": {
            str(tau): [elephants(van_rossum_distance, *p, tau * pq.ms) for p in pairs]
            for tau in TAUS
        },
        "victor_purpura": {
            str(q): [elephants(victor_purpura_distance, *p, q / pq.ms) for p in pairs]
            for q in COSTS
        },
        "isi": [pyspikes(pyspike.isi_distance, *p) for p in pairs],
        "spike": [pyspikes(pyspike.spike_distance, *p) for p in pairs],
    }


def main() -> None:
    found = {
        "versions": {name: version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
    } | {str(steps): distances(draw(steps)) for steps in STEPS}
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items()]
    path = Path(__file__).with_name("spiketrains.json")
    path.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
