"""Figures of the page: arms side by side, drift over memory and number of inputs."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from experiments.beyond import arms
from snnjax.report import charts
from snnjax.runs import Row

MEASURES = {"emd_mean": "mean EMD", "paired_shift_mean": "paired shift"}


def draw_arms(compared: pd.DataFrame, first: str) -> alt.TopLevelMixin:
    """Draw how each arm compares with the first: a point a quantizer, the median.

    Args:
        compared: of `comparison.compare_arms`.
        first: the arm that the others are compared with.
    """
    order = list(dict.fromkeys(compared["arm"]))
    base = alt.Chart(compared, width=200, height={"step": 26})
    panels = []
    for key, title in {
        "emd_mean": f"EMD, times that of {first}",
        "paired_shift_mean": "paired shift, times its",
        "accuracy": "accuracy, points above it",
    }.items():
        is_ratio = key in MEASURES
        kind = "log" if is_ratio else "symlog"
        scale = alt.Scale(type=kind, nice=False, padding=8)
        axis = alt.Axis(format="~g", tickCount=5)
        if not is_ratio:
            ticks = [2, 10, 50] if compared["accuracy"].abs().max() >= 2 else [0.5, 1]
            ticks = [-x for x in ticks[::-1]] + [0, *ticks]
            axis = alt.Axis(format="+~r", values=ticks)
        x = alt.X(f"{key}:Q", title=title, scale=scale, axis=axis)
        y = alt.Y("arm:N", sort=order, title=None)
        if panels:
            y = y.axis(labels=False, ticks=False)
        same = alt.Chart(pd.DataFrame({key: [1.0 if is_ratio else 0.0]}))
        rule = same.mark_rule(strokeDash=[3, 2], color=charts.GREY).encode(x=x)
        points = base.mark_point(size=40, opacity=0.6).encode(x=x, y=y)
        median = base.mark_tick(thickness=3, size=18, color=charts.COLOURS[1]).encode(
            x=alt.X(f"median({key}):Q"), y=y
        )
        panels.append(alt.layer(rule, points, median))
    return alt.hconcat(*panels)


def draw_memory(rows: Sequence[Row]) -> alt.TopLevelMixin:
    """Draw drift over bits a weight, a line an allocation: the mean over seeds."""
    budgets = {arms.name_budget(bits): bits for bits in arms.BUDGETS}
    frame = pd.DataFrame(rows).assign(bits=lambda f: f["quantizer"].map(budgets))
    return _draw(
        frame,
        alt.X("bits:Q", title="bits a weight, on average").axis(
            values=list(arms.BUDGETS), format="d"
        ),
    )


def draw_inputs(rows: Sequence[Row]) -> alt.TopLevelMixin:
    """Draw drift over the images that calibration saw; noise is another mark."""
    frame = pd.DataFrame(rows).assign(
        images=lambda f: [arms.INPUTS[arm][0] for arm in f["arm"]],
        arm=lambda f: [
            "uniform noise" if arms.INPUTS[arm][1] else "training images"
            for arm in f["arm"]
        ],
    )
    scale = alt.Scale(type="log", base=2)
    return _draw(frame, alt.X("images:Q", title="images", scale=scale))


def _draw(frame: pd.DataFrame, x: alt.X) -> alt.TopLevelMixin:
    names = list(dict.fromkeys(frame["arm"]))
    marks = {"title": None, "sort": names}
    base = alt.Chart(frame, width=280, height=220).encode(
        x=x,
        color=alt.Color("arm:N", **marks).scale(range=charts.COLOURS, domain=names),
        shape=alt.Shape("arm:N", **marks).scale(range=charts.SHAPES, domain=names),
    )
    panels = []
    for key, title in MEASURES.items():
        y = alt.Y(f"{key}:Q", title=title).scale(type="log", nice=False, padding=8)
        y = y.axis(format=".2~g", tickCount=6)
        mean = alt.Y(f"mean({key}):Q", title=title)
        panels.append(
            base.mark_line().encode(y=mean)
            + base.mark_point(filled=True, size=35, opacity=0.6).encode(y=y)
        )
    return alt.hconcat(*panels)
