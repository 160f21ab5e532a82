"""Rank correlations of EMD and its rivals with what changed, and their figure."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments.report.figures import GREY, STYLE, WIDTH, plain_log_ticks
from experiments.report.formats import PAGE
from experiments.report.names import MODE_NAMES, is_full, setting_name
from experiments.report.rank_correlation import (
    LEVEL,
    RESAMPLES,
    Bootstrap,
    bootstrap,
    spearman,
)
from experiments.report.table import Verdict, markdown_table, mean_over_layers
from experiments.study.config import MODES
from snnjax.runs import Row

FEWEST = 8  # settings that a correlation is taken over
NEAR = 5  # points of accuracy that a network of use may lose
_ALIVE = ", not collapsed"

PREDICTORS: dict[str, Callable[[Row], float | None]] = {
    "EMD": lambda row: row["emd_mean"],
    "paired shift": lambda row: mean_over_layers(row, "paired_shift"),
    "time-W1": lambda row: mean_over_layers(row, "time_w1"),
    "mean shift": lambda row: _mean_shift(row),
}
OUTCOMES: dict[str, Callable[[Row, Row], float]] = {
    "change of synaptic operations, %": lambda row, base: (
        100 * abs(row["synops"] - base["synops"]) / max(base["synops"], 1e-12)
    ),
    "change of mean rate": lambda row, base: abs(row["mean_rate"] - base["mean_rate"]),
    "loss of accuracy, points": lambda row, base: (
        100 * (base["accuracy"] - row["accuracy"])
    ),
}


def _mean_shift(row: Row) -> float | None:
    shifts = row.get("mean_shift")
    return None if shifts is None else float(np.mean(np.abs(list(shifts.values()))))


@dataclasses.dataclass(frozen=True)
class Points:
    """Quantized rows with the measures of their firing and the outcomes.

    Attributes:
        judged: the rows.
        x: ``[rows, predictors]``.
        y: ``[rows, outcomes]``, against the baseline of the row's seed.
    """

    judged: list[Verdict]
    x: np.ndarray
    y: np.ndarray

    @property
    def settings(self) -> set[str]:
        """The settings of its rows."""
        return {setting_name(v.row) for v in self.judged}

    def select(self, wanted: Callable[[Verdict], bool]) -> "Points":
        """Return the rows that are wanted."""
        at = np.array([wanted(v) for v in self.judged], bool)
        some = [v for v, there in zip(self.judged, at, strict=True) if there]
        return Points(some, self.x[at], self.y[at])


def collect_points(rows: Sequence[Verdict]) -> Points:
    """Return the quantized rows of one run that have all measures and a baseline."""
    bases = {v.row["seed"]: v.row for v in rows if v.row["mode"] == "fp32"}
    judged, x, y = [], [], []
    for v in rows:
        base = bases.get(v.row["seed"])
        measures = [measure(v.row) for measure in PREDICTORS.values()]
        if is_full(v.row) or not base or None in measures:
            continue
        if None not in (v.row.get("synops"), base.get("synops")):
            judged.append(v)
            x.append(measures)
            y.append([change(v.row, base) for change in OUTCOMES.values()])
    return Points(judged, np.array(x, float), np.array(y, float))


def correlate(some: Points, *, within: bool = False) -> np.ndarray:
    """Return the rank correlations ``[predictors, outcomes]`` of `bootstrap_points`."""
    one = np.ones((1, len(some.x)))
    return spearman(some.x, some.y, one, _strata(some, within))[0]


def bootstrap_points(some: Points, *, within: bool = False) -> Bootstrap:
    """Return the rank correlations of rows, resampled by setting.

    Args:
        some: the rows.
        within: rank them within their mode and seed. A mode moves a measure and
            accuracy by itself: re-estimated BatchNorm moves spikes in time and restores
            accuracy. Over all modes that hides what orders the networks of each.
    """
    groups = [setting_name(v.row) for v in some.judged]
    return bootstrap(some.x, some.y, groups, _strata(some, within))


def _strata(some: Points, within: bool) -> list[object]:
    return [(v.row["mode"], v.row["seed"]) if within else 0 for v in some.judged]


def split_points(found: Points) -> dict[str, Points]:
    """Split all rows and each mode: all, not collapsed, near the baseline.

    A network at three times chance did not collapse, and is of no use.
    """
    modes = {
        MODE_NAMES[mode]: found.select(lambda v, mode=mode: v.row["mode"] == mode)
        for mode in MODES
    }
    sets: dict[str, Points] = {}
    for title, some in ({"all": found} | modes).items():
        alive = some.select(lambda v: v.state != "collapsed")
        near = alive.select(
            lambda v: v.loss is not None and v.loss <= NEAR / 100 + 1e-9
        )
        before = 0
        for words, each in (
            ("", some),
            (_ALIVE, alive),
            (f", within {NEAR} points", near),
        ):
            if len(each.settings) >= FEWEST and len(each.judged) != before:
                sets[f"{title}{words}"] = each
                before = len(each.judged)
    return sets


def has_enough(rows: Sequence[Verdict]) -> bool:
    """Return True if there are enough settings to take a correlation over."""
    return len(collect_points(rows).settings) >= FEWEST


def markdown(rows: Sequence[Verdict]) -> str:
    """Return the section: what is correlated, the table, and its conclusions."""
    found = collect_points(rows)
    if len(found.settings) < FEWEST:
        return f"Fewer than {FEWEST} settings have all measures yet.\n"
    lines, tables = [], {}
    sets = split_points(found)
    whole = {title: some for title, some in sets.items() if title.startswith("all")}
    within = {f"{title}, ranked within": some for title, some in whole.items()}
    # Within one mode and seed the ranks are the same.
    within = within if len(set(_strata(found, within=True))) > 1 else {}
    for title, some in (whole | within | sets).items():
        tables[title] = bootstrap_points(some, within=title in within)
        intervals = tables[title].intervals
        for p, predictor in enumerate(PREDICTORS):
            line = {"rows of": title, "n": str(len(some.judged)), "measure": predictor}
            line |= {"rows of": "", "n": ""} if p else {}
            for o, outcome in enumerate(OUTCOMES):
                line[outcome.split(",")[0]] = _cell(intervals[:, p, o])
            lines.append(line)
    mains = [f"all{a}{b}" for b in (", ranked within", "") for a in (_ALIVE, "")]
    main = next(title for title in mains if title in tables)
    about = PAGE["prediction"].format(
        rows=_describe_rows(rows, found), level=LEVEL, resamples=f"{RESAMPLES:,}"
    )
    table = markdown_table(lines, ("rows of", "measure"))
    return f"{about}\n\n{table}\n{_conclude(tables[main], main)}\n"


def _describe_rows(rows: Sequence[Verdict], found: Points) -> str:
    """Describe the rows: how many, of what, and how many are left out."""
    some = [v.row for v in found.judged]
    quantized = [v for v in rows if not is_full(v.row)]
    seeds = sorted({row["seed"] for row in some})
    modes = [MODE_NAMES[m] for m in MODES if any(row["mode"] == m for row in some)]
    text = f"{len(some)} quantized rows ({', '.join(modes)}; "
    text += f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    for name in ("site", "quantize_all"):
        if len({row[name] for row in some if row[name] is not None}) > 1:
            text += f"; both choices of {name}"
    text += f"; {sum(v.state == 'collapsed' for v in found.judged)} collapsed"
    if left := len(quantized) - len(some):
        text += f"; {left} more lack a measure or their baseline"
    return f"{text})"


def _cell(values: np.ndarray) -> str:
    if np.isnan(values).any():
        return "-"
    return "{:.2f} [{:.2f}, {:.2f}]".format(*(values + 0.0))


def _conclude(table: Bootstrap, title: str) -> str:
    """Name the measure that orders each outcome best, and its lead over the next."""
    parts, names = [], list(PREDICTORS)
    for o, outcome in enumerate(OUTCOMES):
        values, low, _ = table.intervals[:, :, o]
        if np.isnan(values).all():
            continue
        # What never varies comes last.
        best, second = np.argsort(-values, kind="stable")[:2]
        text = f"the {outcome.split(',')[0]} is ordered "
        if not np.any(low > 0):
            parts.append(f"{text}by none: no interval lies above 0")
            continue
        text += f"best by {names[best]} ({values[best]:.2f}"
        text += ")" if low[best] > 0 else ", its interval reaches 0)"
        other = 0 if best else second  # EMD, or the next one where EMD is best
        if np.isnan(values[other]):
            parts.append(text)
            continue
        difference = table.difference(best, other)[:, o]
        # By the printed digits: 0.00 is not above 0.
        apart = "above 0" if difference[1] >= 0.005 else "not distinct from 0"
        parts.append(
            f"{text}, by {names[other]} {values[other]:.2f}; the difference, "
            f"{_cell(difference)} by the same resamples, is {apart}"
        )
    if not parts:
        return ""
    text = f'Over the rows of "{title}" {"; ".join(parts)}. '
    return f"{text}The best is named after the fact, which flatters its lead."


_STYLES = {
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
        for mode, style in _STYLES.items():
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
        _title(axis, every[p, o], living[p, o], bool(collapsed.any()))
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


def _title(axis: Axes, every: float, living: float, both: bool) -> None:
    if np.isnan(every):
        return
    text = f"ρ {every:.2f}"
    text += f", not collapsed {living:.2f}" if both else ""
    axis.set_title(text, loc="left", color=GREY, fontsize=8.5)


def _legend(figure: Figure, modes: np.ndarray, collapsed: bool) -> None:
    handles = [
        Line2D([], [], ls="", label=MODE_NAMES[mode], **style)
        for mode, style in _STYLES.items()
        if (modes == mode).any()
    ]
    if collapsed:
        style = {"color": GREY, "marker": "o", "markerfacecolor": "none"}
        handles.append(Line2D([], [], ls="", label="collapsed (hollow)", **style))
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
