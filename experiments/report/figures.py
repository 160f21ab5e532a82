"""Style of the figures, and the figure of accuracy and EMD over bits.

Figures are objects without pyplot's global state: they need no display. One is drawn
for the page that shows it: 100 CSS pixels an inch, twice as many in the file, and no
letter under 8 points, so that nothing falls below 9 pixels where a phone shows it at
85 %.
"""

import io
import statistics
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from experiments.report.names import group_items, method_name, method_order
from experiments.report.settings import common_seeds
from experiments.study.grid import CLIPS
from snnjax.runs import Row

WIDTH = 9.6
GREY = "#6b6b6b"
PALE = "#dedede"
DARKER = "#c4c4c4"
# Okabe and Ito's colours, which the colour-blind distinguish, and markers show the
# family; narrow and signed are solid, wide and unsigned are dashed.
_FAMILIES = {
    ("weights", "uniform", "mid_rise"): ("#0072B2", "o"),
    ("weights", "uniform", "mid_tread"): ("#D55E00", "s"),
    ("weights", "lq_net", None): ("#009E73", "^"),
    ("membrane", "uniform", None): ("#B5579A", "D"),
    ("membrane", "lq_net", None): ("#56B4E9", "v"),
}
STYLE = {
    "font.size": 8.5,
    "text.parse_math": False,  # a run may have dollars in its name
    "axes.titlesize": 9.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
}


def method_style(row: Row) -> dict[str, Any]:
    """Return the line style of the row's method."""
    membrane = row["target"] == "membrane"
    grid = row["grid"] if not membrane and row["method"] == "uniform" else None
    family = (row["target"], row["method"], grid)
    colour, marker = _FAMILIES.get(family, ("black", "v"))
    second = not row["signed"] if membrane else row["clip"] != CLIPS["narrow"]
    return {
        "color": colour,
        "marker": marker,
        "linestyle": (0, (4, 2)) if second else "-",
        "markerfacecolor": "white" if second else colour,
    }


def plain_log_ticks(axis: Axis, low: float, high: float) -> None:
    """Set ticks such as 0.02 and 0.05 in place of powers of ten."""
    # No more than labels have room for in the smallest panel.
    choices = {
        2: range(1, 10),
        6: (1, 1.5, 2, 3, 4, 6, 8),
        100: (1, 2, 5),
        2000: (1, 3),
    }
    subs = next((s for most, s in choices.items() if high / low < most), (1,))
    axis.set_major_locator(LogLocator(subs=tuple(map(float, subs))))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(_plain))


def _plain(value: float, _: int | None) -> str:
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")


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


def group_by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows by method, methods in their order, bits rising."""
    ordered = sorted(rows, key=lambda row: (method_order(row), row["bits"]))
    return group_items(ordered, method_name)


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
        for name, rows in group_by_method(panel.rows).items():
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
        for name, some in group_by_method(rows).items()
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
