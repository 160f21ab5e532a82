"""Figures of layers: EMD of each, firing rates, and which rates moved."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments.report.figures import (
    GREY,
    PALE,
    STYLE,
    WIDTH,
    group_by_method,
    plain_log_ticks,
)
from experiments.report.formats import emd_text
from experiments.report.names import MODE_NAMES
from snnjax import emd
from snnjax.runs import Row


@matplotlib.rc_context(STYLE)
def layer_map(
    rows: Sequence[Row],
    controls: Sequence[Row] = (),
    lower: float | None = None,
    floor: float | None = None,
) -> Figure:
    """Draw the EMD of layers (columns) in configurations (lines), a panel a mode.

    Args:
        rows: quantized rows; of those that differ by their seed alone the mean.
        controls: their mean is at the top of every panel, to compare with.
        lower: EMD up to which a cell is grey.
        floor: the noise floor, a line in the scale.
    """
    modes = [mode for mode in MODE_NAMES if any(row["mode"] == mode for row in rows)]
    layers = list(rows[0]["emd"])
    lines: list[tuple[str, dict[str, Sequence[Row]]]] = []
    if controls:
        lines.append(("control", dict.fromkeys(modes, controls)))
    starts = []
    for name, some in group_by_method(rows).items():
        starts.append(len(lines))
        for bits in sorted({row["bits"] for row in some}):
            head = f"{name}   " if len(lines) == starts[-1] else ""
            at = [row for row in some if row["bits"] == bits]
            by_mode = ((m, [row for row in at if row["mode"] == m]) for m in modes)
            lines.append((f"{head}{bits} bit", dict(by_mode)))
    values = np.full((len(modes), len(lines), len(layers)), np.nan)
    for m, mode in enumerate(modes):
        for y, (_, at) in enumerate(lines):
            seeds = [[r["emd"].get(name, np.nan) for name in layers] for r in at[mode]]
            if seeds:
                values[m, y] = np.mean(seeds, axis=0)
    high = float(np.nanmax(values))
    low = lower or float(np.nanmin(values, where=values > 0, initial=high))
    if not 0 < low < high:  # nothing above it, or nothing at all
        low, high = low or 1e-4, 10 * (low or 1e-4)
    norm = LogNorm(low, high)
    # Without its palest part, which neither white nor (inverted) black set off.
    colours = matplotlib.colormaps["YlOrRd"](np.linspace(0.12, 1, 256))
    cmap = ListedColormap(colours).with_extremes(under=PALE, bad="white")

    figure = Figure((WIDTH, 2.6 + 0.155 * len(lines)), layout="constrained")
    axes = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
    for axis, mode, image in zip(axes, modes, values, strict=True):
        # Exact zeros lie under every logarithmic scale: grey, then.
        shown = np.where(image == 0, low / 2, image)
        axis.pcolormesh(shown, norm=norm, cmap=cmap, edgecolor="white", lw=0.6)
        axis.set_title(MODE_NAMES[mode], loc="left", fontweight="bold")
        axis.set_xticks(np.arange(len(layers)) + 0.5, layers, rotation=90)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        for start in starts:
            axis.axhline(start, color="white", lw=3)
    axes[0].set_yticks(np.arange(len(lines)) + 0.5, [label for label, _ in lines])
    axes[0].invert_yaxis()
    scale = ScalarMappable(norm, cmap)
    bar = figure.colorbar(scale, ax=axes, location="top", aspect=60, extend="min")
    bar.outline.set_visible(False)
    plain_log_ticks(bar.ax.xaxis, low, high)
    notes = [f"grey: at most the lower floor, {emd_text(lower)}"] if lower else []
    if floor and low < floor < high:
        bar.ax.axvline(floor, color="black", lw=1.2)
        notes.append(f"line: the noise floor, {emd_text(floor)}")
    text = f" ({'; '.join(notes)})" if notes else ""
    bar.set_label(f"EMD of the layer{text}", loc="left")
    return figure


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
