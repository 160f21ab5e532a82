"""Samples, histograms and clouds that both sides of a comparison use. Only numpy."""

import numpy as np
from nets import draw

SIZES = ((30, 30), (30, 17))
POWERS = (1, 1.5, 2, 3)
BINS, BIN_WIDTH = 25, 0.04
EPSILONS = (0.3, 0.03)
PROJECTIONS = 16


def rates(name: str, size: int) -> np.ndarray:
    """Within [0, 1], a third of them silent."""
    x = draw(f"rates {name}", (size,))
    return np.where(x > 0.4, 0, np.abs(np.tanh(x)))


def weights(name: str, size: int) -> np.ndarray:
    """Non-negative, one of them zero."""
    mass = np.abs(draw(f"weights {name}", (size,)))
    mass[0] = 0
    return mass


def histogram(name: str) -> np.ndarray:
    mass = np.abs(draw(f"histogram {name}", (BINS,)))
    return mass * (mass > 0.5)


def cloud(name: str, size: int) -> np.ndarray:
    """[size, 2]."""
    return draw(f"cloud {name}", (size, 2))


def directions() -> np.ndarray:
    """[PROJECTIONS, 2], unit vectors at any angle."""
    way = draw("directions", (PROJECTIONS, 2))
    return way / np.linalg.norm(way, axis=1, keepdims=True)
