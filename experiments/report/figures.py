"""Figures of a study: accuracy and EMD over bits, EMD per layer.

Figures are objects without pyplot's global state: they need no display and can be
drawn anywhere.
"""

import io
import statistics
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from experiments.report.chart_style import (
    DARKER,
    GREY,
    PALE,
    STYLE,
    WIDTH,
    method_style,
    plain_log_ticks,
)
from experiments.report.formats import emd_text
from experiments.report.names import MODE_NAMES, method_name, method_order
from experiments.report.settings import common_seeds
from snnjax.runs import Row


class Panel(NamedTuple):
    """One column of ``over_bits``.

    Attributes:
        title: of the column.
        rows: quantized rows, any order; of one method and bits those of all seeds.
        baseline: accuracy of the full-precision network, where known.
        floor: EMD that shows without any quantization, where known.
        lower: its part that is not another seed's, where known.
    """

    title: str
    rows: Sequence[Row]
    baseline: float | None
    floor: float | None
    lower: float | None = None


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG file, at twice the size it is shown at."""
    file = io.BytesIO()
    # No metadata: the same rows give the same bytes on every machine's clock.
    figure.savefig(file, format="png", dpi=200, metadata={"Software": None})
    return file.getvalue()


def _by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows by method, methods in their order, bits rising."""
    lines: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (method_order(row), row["bits"])):
        lines.setdefault(method_name(row), []).append(row)
    return lines


@matplotlib.rc_context(STYLE)
def over_bits(panels: Sequence[Panel]) -> Figure:
    """Draw accuracy above EMD over bits: a panel a mode or run, one line a method."""
    width = max(WIDTH, 2.4 * len(panels))
    figure = Figure(figsize=(width, 6.4), layout="constrained")
    axes = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
    everything = [row for panel in panels for row in panel.rows]
    floors = [panel.floor for panel in panels if panel.floor]
    emds = [row["emd_mean"] for row in everything if row["emd_mean"] > 0] + floors
    low, high = (min(emds) / 1.5, max(emds) * 1.5) if emds else (1e-4, 1.0)
    for column, panel in enumerate(panels):
        top, bottom = axes[:, column]
        top.set_title(panel.title, loc="left", fontweight="bold")
        if panel.baseline is not None:
            error = _error(panel.baseline)
            top.axhspan(max(error - 1, 0.05), error + 1, color=PALE, lw=0)
            top.axhline(error, color=GREY, lw=0.8)
        if panel.floor:
            bottom.axhspan(low, panel.floor, color=PALE, lw=0)
        if panel.lower and panel.lower > low:
            bottom.axhspan(low, panel.lower, color=DARKER, lw=0)
        common = common_seeds(panel.rows) if panel.rows else frozenset()
        for name, rows in _by_method(panel.rows).items():
            style = method_style(rows[0]) | {"label": name, "clip_on": False}
            _line(top, rows, common, lambda row: _error(row["accuracy"]), style)
            # A logarithmic axis has no place for 0: such points lie on its edge.
            _line(bottom, rows, common, lambda row: max(row["emd_mean"], low), style)
        bottom.set_xlabel("bits")
        for axis in (top, bottom):
            axis.grid(axis="y")
    accuracies = [p.baseline for p in panels if p.baseline is not None]
    errors = [_error(a) for a in accuracies + [row["accuracy"] for row in everything]]
    _accuracy_axis(axes[0, 0], errors or [10.0, 90.0])
    bottom_left = axes[1, 0]
    bottom_left.set_yscale("log")
    bottom_left.set_ylim(low, high)
    plain_log_ticks(bottom_left.yaxis, low, high)
    ticks = sorted({row["bits"] for row in everything}) or [2, 4, 6, 8]
    bottom_left.set_xticks(ticks)
    bottom_left.set_xlim(ticks[0] - 0.5, ticks[-1] + 0.5)
    bottom_left.set_ylabel("mean EMD (bands: noise floor, lower floor)")
    _legend(figure, everything)
    return figure


def _line(
    axis: Axes,
    rows: Sequence[Row],
    common: Collection[int],
    value: Callable[[Row], float],
    style: dict,
) -> None:
    """Draw means over the common seeds, and bars from the lowest to the highest of all.

    Seeds differ in their baselines: a mean of two beside one of one would show that.
    """
    found: dict[int, dict[int, float]] = {}
    for row in rows:
        found.setdefault(row["bits"], {})[row["seed"]] = value(row)
    means = [
        statistics.fmean(v for seed, v in seeds.items() if seed in common or not common)
        for seeds in found.values()
    ]
    axis.plot(list(found), means, **style)
    several = {bits: seeds for bits, seeds in found.items() if len(seeds) > 1}
    if several:
        values = [seeds.values() for seeds in several.values()]
        low, high = zip(*((min(v), max(v)) for v in values), strict=True)
        axis.vlines(list(several), low, high, color=style["color"], lw=0.9, zorder=1.5)


def _error(accuracy: float) -> float:
    """Return the misclassified share in %, at least 0.1 so that it has a logarithm."""
    return max(100 * (1 - accuracy), 0.1)


def _accuracy_axis(axis: Axes, errors: Sequence[float]) -> None:
    """Scale the accuracy axis by the logarithm of the error.

    Networks that collapsed and a difference of one point near 98 % are then both
    to be seen in one panel.
    """
    pad = max((max(errors) / min(errors)) ** 0.1, 1.03)
    low, high = min(errors) / pad, min(max(errors) * pad, 100.0)
    axis.set_yscale("log")
    axis.set_ylim(high, low)
    plain_log_ticks(axis.yaxis, low, high)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 - error:g}"))
    axis.set_ylabel("accuracy, % (band: baseline ± 1)")


def _legend(figure: Figure, rows: Sequence[Row]) -> None:
    handles = [
        Line2D([], [], **method_style(some[0]), label=name)
        for name, some in _by_method(rows).items()
    ]
    if handles:
        # Two to a column: narrow above wide, signed above unsigned.
        columns = (len(handles) + 1) // 2
        figure.legend(
            handles=handles,
            loc="outside upper left",
            ncols=min(columns, 4),
            handlelength=3.2,
        )


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
    for name, some in _by_method(rows).items():
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
