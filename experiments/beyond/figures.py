"""Figures of the page: drift over memory, and over the number of inputs."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from experiments.beyond import arms
from snnjax.report import charts
from snnjax.runs import Row

MEASURES = {"emd_mean": "mean EMD", "paired_shift_mean": "paired shift"}


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
        y = alt.Y(f"{key}:Q", title=title).scale(type="log").axis(format=".2g")
        mean = alt.Y(f"mean({key}):Q", title=title)
        panels.append(
            base.mark_line().encode(y=mean)
            + base.mark_point(filled=True, size=35, opacity=0.6).encode(y=y)
        )
    return alt.hconcat(*panels)
