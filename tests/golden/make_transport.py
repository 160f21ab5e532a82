"""Write transport.json: distances by POT, in float64.

    pip install POT scipy
    python tests/golden/make_transport.py

W_p^p of (weighted) samples, W1 of histograms by linear programming, sliced W1, and
Sinkhorn's divergence put together from POT's entropic plans.
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import clouds
import numpy as np
import ot


def powers(n, m):
    x, y = clouds.rates("x", n), clouds.rates("y", m)
    u, v = clouds.weights("x", n), clouds.weights("y", m)
    u, v = u / u.sum(), v / v.sum()
    return {
        str(p): [
            float(ot.wasserstein_1d(x, y, p=p)),
            float(ot.wasserstein_1d(x, y, u, v, p=p)),
        ]
        for p in clouds.POWERS
    }


def histograms():
    p, q = (clouds.histogram(name) for name in ("p", "q"))
    at = clouds.BIN_WIDTH * np.arange(clouds.BINS)
    cost = np.abs(at[:, None] - at)
    return float(ot.emd2(p / p.sum(), q / q.sum(), cost))


def entropic(x, y, epsilon):
    """min <P, C> + epsilon KL(P | a b)."""
    cost = np.abs(x[:, None] - y)
    a, b = np.full(x.size, 1 / x.size), np.full(y.size, 1 / y.size)
    plan = ot.sinkhorn(
        a, b, cost, epsilon, method="sinkhorn_log", stopThr=1e-12, numItermax=100_000
    )
    relative = plan / np.outer(a, b)
    kl = np.sum(plan * np.log(np.where(plan > 0, relative, 1)))
    return np.sum(plan * cost) + epsilon * kl, np.sum(plan * cost)


def sinkhorn(n, m):
    x, y = clouds.rates("x", n), clouds.rates("y", m)
    values = {}
    for epsilon in clouds.EPSILONS:
        between, cost = entropic(x, y, epsilon)
        within = entropic(x, x, epsilon)[0] + entropic(y, y, epsilon)[0]
        values[str(epsilon)] = [float(between - within / 2), float(cost)]
    return values


def main():
    sizes = {f"{n} {m}": (n, m) for n, m in clouds.SIZES}
    sliced = {
        name: float(
            ot.sliced_wasserstein_distance(
                clouds.cloud("x", n),
                clouds.cloud("y", m),
                projections=clouds.directions().T,
                p=1,
            )
        )
        for name, (n, m) in sizes.items()
    }
    golden = {
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("POT", "numpy", "scipy")},
        "powers": {name: powers(*size) for name, size in sizes.items()},
        "histogram": histograms(),
        "sliced": sliced,
        "sinkhorn": {name: sinkhorn(*size) for name, size in sizes.items()},
    }
    path = Path(__file__).with_name("transport.json")
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
