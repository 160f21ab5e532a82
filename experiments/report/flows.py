"""The figure of the rates that moved: EMD by rate before and after."""

import statistics
from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report.chart_style import GREY, STYLE, WIDTH
from experiments.report.formats import emd_text
from experiments.report.histograms import Firing
from snnjax import emd

# Rates are crowded at 0: bins of about equal ratios, and one for the nearly silent.
EDGES = np.array([0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0])


def coupling_work(baseline: Firing, other: Firing) -> np.ndarray:
    """Return the cheapest coupling's work by bins, mean over layers (sum: EMD)."""
    tables = [emd.flow(*pair, edges=EDGES).work for pair in _rates(baseline, other)]
    return np.mean(tables, axis=0)


def _rates(baseline: Firing, other: Firing) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for layer, counts in baseline.counts.items():
        x, y = (
            np.minimum(np.ravel(c) / f.observations, 1)  # block outputs may exceed it
            for c, f in ((counts, baseline), (other.counts[layer], other))
        )
        yield x, y


def _summarize(baseline: Firing, other: Firing) -> str:
    """Describe the EMD, and how much of it is neurons that fire more."""
    # What goes up and what goes down: their sum is the EMD, their difference the shift.
    shift = np.mean([y.mean() - x.mean() for x, y in _rates(baseline, other)])
    distance = coupling_work(baseline, other).sum()
    up = 50 * (1 + shift / distance) if distance else 0
    text = f"EMD {emd_text(statistics.fmean(other.emd.values()))}"
    return f"{text}: {up:.0f} % by firing more" if distance else text


@matplotlib.rc_context(STYLE)
def draw_flows(baseline: Firing, others: Sequence[Firing]) -> Figure:
    """Draw a panel a network: EMD from each rate (columns) to each rate (lines)."""
    figure = Figure((WIDTH, 5.4), layout="constrained")
    axes = figure.subplots(1, len(others), sharey=True, squeeze=False)[0]
    for axis, other in zip(axes, others, strict=True):
        _panel(axis, coupling_work(baseline, other))
        axis.set_title(f"{other.name}\n{_summarize(baseline, other)}", loc="left")
        axis.set_xlabel("rate in the baseline")
    axes[0].set_ylabel("rate in the quantized network")
    return figure


def _panel(axis: Axes, table: np.ndarray) -> None:
    bins = np.arange(len(EDGES))
    shares = 100 * table / max(table.sum(), 1e-12)
    colours = matplotlib.colormaps["YlOrRd"].with_extremes(bad="white")
    shown = np.where(shares.T > 0, shares.T, np.nan)
    axis.pcolormesh(bins, bins, shown, cmap=colours, vmin=0, vmax=50)
    axis.plot(bins[[0, -1]], bins[[0, -1]], color=GREY, lw=0.8, ls=":")
    for i, j in np.argwhere(shares >= 0.5):
        axis.text(
            i + 0.5,
            j + 0.5,
            f"{shares[i, j]:.0f}",
            ha="center",
            va="center",
            color="white" if shares[i, j] > 30 else "black",
        )
    labels = [f"{edge:g}" for edge in EDGES]
    axis.set_xticks(bins, labels)
    axis.set_yticks(bins, labels)
    axis.set_box_aspect(1)
