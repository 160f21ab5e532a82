"""Flow of mass between rates that makes up the earth mover's distance."""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax.emd.samples import couple_quantiles


class Flow(NamedTuple):
    """Mass and work of the cheapest coupling, by bins of rates.

    Attributes:
        edges: of the bins ``[bins + 1]``.
        mass: ``[bins, bins]``, the share of neurons that goes from a rate in bin i of
            the reference to a rate in bin j of the other; sums to 1.
        work: ``[bins, bins]``, mass times distance; sums to W1.
    """

    edges: np.ndarray
    mass: np.ndarray
    work: np.ndarray


def flow(
    reference: ArrayLike, other: ArrayLike, *, edges: ArrayLike | None = None
) -> Flow:
    """Tabulate the mass that W1 moves between bins of rates.

    The coupling keeps the order of rates, which is a cheapest one. It describes the
    change of the distribution, not of a single neuron. Computed in float64 on the
    host; a table for a figure, without gradient, not for inside ``jit``.

    Args:
        reference: rates ``[n]`` (other shapes are flattened).
        other: rates ``[m]``.
        edges: of the bins, rising, from the lowest rate or below to the highest or
            above; 20 equal bins of [0, 1] when None. The last bin has its upper edge.

    Returns:
        A `Flow`.

    Raises:
        ValueError: no rates, NaN or infinity among them, edges that do not rise or do
            not reach around all rates.

    >>> reference, other = np.array([0.0, 0.5]), np.array([0.0, 1.0])
    >>> moved = flow(reference, other, edges=np.array([0.0, 0.5, 1.0]))
    >>> moved.mass.tolist(), float(moved.work.sum())
    ([[0.5, 0.0], [0.0, 0.5]], 0.25)
    """
    edges = np.arange(21) / 20 if edges is None else edges
    named = (("reference", reference), ("other", other), ("edges", edges))
    x, y, edges = (np.asarray(_checks.require_real(*a), np.float64) for a in named)
    x, y = np.ravel(x), np.ravel(y)
    for name, rates in (("reference", x), ("other", y)):
        if rates.size == 0 or not np.all(np.isfinite(rates)):
            raise ValueError(f"{name} must have finite rates, at least one")
    if edges.ndim != 1 or edges.size < 2 or not np.all(np.diff(edges) > 0):
        got = _checks.format_value(edges)
        raise ValueError(f"edges must be at least two rising numbers, got {got}")
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    if low < edges[0] or high > edges[-1]:
        raise ValueError(
            f"edges must reach from {low} to {high}, the rates, got {edges[0]} to "
            f"{edges[-1]}"
        )
    way = couple_quantiles(x, y)

    def bins(rates):
        return np.minimum(np.searchsorted(edges, rates, "right"), edges.size - 1) - 1

    cells = bins(way.x) * (edges.size - 1) + bins(way.y)

    def table(weights):
        sums = np.bincount(cells, weights, minlength=(edges.size - 1) ** 2)
        return sums.reshape(edges.size - 1, -1)

    return Flow(edges, table(way.mass), table(way.mass * np.abs(way.x - way.y)))
