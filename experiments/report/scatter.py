"""The figure of predictions: measures of firing against outcomes."""

from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments.report.figures import GREY, STYLE, WIDTH, plain_log_ticks
from experiments.report.names import MODE_NAMES
from experiments.report.prediction import OUTCOMES, PREDICTORS, Points, correlate

_MODES = {
    "ptq": {"color": "#D55E00", "marker": "o"},
    "ptq_bn": {"color": "#0072B2", "marker": "s"},
    "qat": {"color": "#009E73", "marker": "^"},
}
_COLUMNS = list(PREDICTORS)[:3]  # the mean shift is for the table beside EMD
_UNITS = {"EMD": "mean EMD", "time-W1": "time-W1, steps"}


@matplotlib.rc_context(STYLE)
def draw_predictions(found: Points) -> Figure:
    """Draw each measure (columns) against each change (lines), a point a row."""
    collapsed = np.array([v.state == "collapsed" for v in found.judged])
    modes = np.array([v.row["mode"] for v in found.judged])
    alive = found.select(lambda v: v.state != "collapsed")
    every = correlate(found, within=True)
    living = correlate(alive, within=True) if len(alive.judged) > 1 else every
    figure = Figure((WIDTH, 8.4), layout="constrained")
    axes = figure.subplots(
        len(OUTCOMES), len(_COLUMNS), sharex="col", sharey="row", squeeze=False
    )
    for (o, p), axis in np.ndenumerate(axes):
        x, y = _clip_zeros(found.x[:, p]), found.y[:, o]
        y = y if _is_loss(o) else _clip_zeros(y)
        for mode, style in _MODES.items():
            for some, fill in (
                (~collapsed & (modes == mode), style["color"]),
                (collapsed & (modes == mode), "none"),
            ):
                axis.scatter(
                    x[some],
                    y[some],
                    s=18,
                    marker=style["marker"],
                    facecolors=fill,
                    edgecolors=style["color"],
                    linewidths=0.8,
                    alpha=0.75,
                    clip_on=False,
                )
        axis.grid()
        _corner(axis, every[p, o], living[p, o], bool(collapsed.any()))
    for p, name in enumerate(_COLUMNS):
        axes[-1, p].set_xlabel(_UNITS.get(name, name))
        _log(axes[-1, p], "x", _clip_zeros(found.x[:, p]))
    for o, name in enumerate(OUTCOMES):
        axes[o, 0].set_ylabel(name)
        if _is_loss(o):
            _loss_axis(axes[o, 0], found.y[:, o])
        else:
            _log(axes[o, 0], "y", _clip_zeros(found.y[:, o]))
    _legend(figure, modes, bool(collapsed.any()))
    return figure


def _is_loss(outcome: int) -> bool:
    """Return True for lost accuracy, which may be negative and has no logarithm."""
    return list(OUTCOMES)[outcome].startswith("loss")


def _clip_zeros(values: np.ndarray) -> np.ndarray:
    """Move zeros, which a logarithmic axis cannot show, to its edge."""
    positive = values[values > 0]
    return np.maximum(values, positive.min() / 1.5 if positive.size else 1e-4)


def _log(axes: Axes, axis: Literal["x", "y"], values: np.ndarray) -> None:
    low, high = float(values.min()) / 1.3, float(values.max()) * 1.3
    axes.set(**{f"{axis}scale": "log"})
    axes.set(**{f"{axis}lim": (low, high)})
    plain_log_ticks(axes.xaxis if axis == "x" else axes.yaxis, low, high)


def _loss_axis(axis: Axes, losses: np.ndarray) -> None:
    """Scale the axis of losses: even within a point, logarithmic beyond."""
    axis.set_yscale("symlog", linthresh=1, linscale=0.5)
    low, high = min(losses.min(), -1) * 1.2, max(losses.max(), 1) * 1.3
    axis.set_ylim(low, high)
    ticks = np.array([-50, -20, -5, -2, -1, 0, 1, 2, 5, 20, 50])
    axis.set_yticks(ticks[(ticks >= low) & (ticks <= high)])
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))


def _corner(axis: Axes, every: float, living: float, both: bool) -> None:
    if np.isnan(every):
        return
    text = f"ρ {every:.2f}"
    text += f", not collapsed {living:.2f}" if both else ""
    axis.set_title(text, loc="left", color=GREY, fontsize=8.5)


def _legend(figure: Figure, modes: np.ndarray, collapsed: bool) -> None:
    handles = [
        Line2D([], [], ls="", label=MODE_NAMES[mode], **style)
        for mode, style in _MODES.items()
        if (modes == mode).any()
    ]
    if collapsed:
        style = {"color": GREY, "marker": "o", "markerfacecolor": "none"}
        handles.append(Line2D([], [], ls="", label="collapsed (hollow)", **style))
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
