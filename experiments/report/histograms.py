"""Histograms of firing rates by layer, of the baseline and of others."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments.report.chart_style import STYLE, WIDTH
from experiments.report.formats import emd_text


class Firing(NamedTuple):
    """Spike counts of one row: {layer: counts}, T x images, and its name."""

    name: str
    counts: Mapping[str, ArrayLike]
    observations: int
    emd: dict[str, float]


@matplotlib.rc_context(STYLE)
def rate_histograms(baseline: Firing, others: Sequence[Firing]) -> Figure:
    """Draw each layer's firing rates: baseline filled, others as lines."""
    layers = list(baseline.counts)
    columns = min(len(layers), 3 if len(layers) <= 9 else 5)
    lines = -(-len(layers) // columns)
    figure = Figure((WIDTH, 0.7 + 1.75 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    edges = np.linspace(0, 1, 26)
    lowest = 0.5 / max(np.size(counts) for counts in baseline.counts.values())
    colours = ("#D55E00", "#0072B2", "#009E73")
    handles: list[Any] = []
    for axis, layer in zip(grid.flat, layers, strict=False):
        axis.set_title(layer, loc="left", fontsize=8.5)
        filled = axis.stairs(
            _shares(baseline, layer, edges),
            edges,
            baseline=lowest,
            fill=True,
            color="#bdbdbd",
            label=baseline.name,
        )
        handles = [filled]
        for n, (other, colour) in enumerate(zip(others, colours, strict=False)):
            style = {"color": colour, "lw": 1.6, "ls": "--" if n else "-"}
            shares = np.maximum(_shares(other, layer, edges), lowest)
            axis.stairs(shares, edges, baseline=None, **style)
            handles.append(Line2D([], [], **style, label=other.name))
            _corner(axis, n, f"EMD {emd_text(other.emd[layer])}", colour)
    first = grid.flat[0]
    first.set_yscale("log")
    first.set_ylim(lowest, 2)
    first.set_xlim(0, 1)
    first.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
    first.yaxis.set_minor_locator(NullLocator())
    figure.supxlabel("firing rate of a neuron", fontsize=8.5)
    figure.supylabel("% of the layer's neurons", fontsize=8.5)
    for axis in grid.flat[len(layers) :]:
        axis.set_visible(False)
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return figure


def _corner(axis: Axes, line: int, text: str, colour: str) -> None:
    axis.annotate(
        text,
        (1, 1),
        (-2, -2 - 12 * line),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="top",
        color=colour,
    )


def _shares(firing: Firing, layer: str, edges: np.ndarray) -> np.ndarray:
    rates = np.ravel(firing.counts[layer]) / firing.observations
    # Block outputs may exceed 1; they belong to the last bin, not to none.
    return np.histogram(np.minimum(rates, 1), edges)[0] / max(rates.size, 1)
