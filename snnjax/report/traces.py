"""Spikes and membrane potentials of single neurons over time, as Altair charts.

Needs the extra `report`. A chart is shown in a notebook as it is; ``chart.save(path)``
writes it as .html, .png or .svg.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax.report import _extras
from snnjax.report.charts import COLOURS, GREY, WIDTH

try:
    import altair as alt
    import pandas as pd
except ModuleNotFoundError as error:
    raise _extras.explain(error) from None


def plot_raster(
    spikes: Mapping[str, ArrayLike], *, image: int = 0, neurons: int = 100
) -> alt.VConcatChart:
    """Plot each spike of a layer as a tick, a line a neuron, time to the right.

    Args:
        spikes: ``{layer: [T, B, neurons...]}``, as a network returns them.
        image: place in the batch.
        neurons: the most of a layer; of more, so many evenly apart.

    Returns:
        A chart with a row for each layer.

    Raises:
        ValueError: no layers, another shape, or an image beyond the batch.
    """
    charts = []
    for name, (trains, chosen) in _choose(spikes, "spikes", image, neurons).items():
        t, place = np.nonzero(trains)
        frame = pd.DataFrame(
            {"time step": t, "neuron": chosen[place], "spikes": trains[t, place]}
        )
        rates = f"{name}: {len(chosen)} neurons, rate {trains.mean():.3f}"
        y_axis = alt.Y("neuron:Q", scale=_span(chosen), title="neuron")
        chart = alt.Chart(frame, title=rates).mark_tick(
            orient="vertical", thickness=1.5, height=3, color=COLOURS[0]
        )
        x_axis = alt.X("time step:Q", scale=_span(np.arange(len(trains))))
        charts.append(
            chart.encode(x=x_axis, y=y_axis, tooltip=list(frame)).properties(
                width=2 * WIDTH, height=max(60, min(240, 3 * len(chosen)))
            )
        )
    return alt.vconcat(*charts)


def plot_membranes(
    membranes: Mapping[str, ArrayLike],
    *,
    spikes: Mapping[str, ArrayLike] | None = None,
    image: int = 0,
    neurons: int = 3,
    threshold: float | None = None,
) -> alt.VConcatChart:
    """Plot membrane potentials over time, a line a neuron, and where it fired.

    Args:
        membranes: ``{layer: [T, B, neurons...]}``, of `layers.record_membranes`.
        spikes: of the same layers, shown as dots on the lines; or None.
        image: place in the batch.
        neurons: the most of a layer; of more, so many evenly apart.
        threshold: drawn as a line where it is given.

    Returns:
        A chart with a row for each layer.

    Raises:
        ValueError: no layers, another shape, an image beyond the batch, or spikes of
            other shapes.
    """
    charts = []
    for name, (v, chosen) in _choose(membranes, "membranes", image, neurons).items():
        fired = np.zeros(v.shape, bool)
        if spikes is not None and name in spikes:
            if np.shape(spikes[name]) != np.shape(membranes[name]):
                raise ValueError(
                    f"spikes of {name} must have the shape of its membranes, "
                    f"{np.shape(membranes[name])}, got {np.shape(spikes[name])}"
                )
            fired = _choose({name: spikes[name]}, "spikes", image, neurons)[name][0] > 0
        t, place = np.indices(v.shape)
        frame = pd.DataFrame(
            {
                "time step": t.ravel(),
                "neuron": chosen[place].ravel(),
                "membrane": v.ravel().astype(float),
                "fired": fired.ravel(),
            }
        )
        base = alt.Chart(frame, title=name).encode(
            x=alt.X("time step:Q", scale=_span(np.arange(len(v)))),
            y=alt.Y("membrane:Q"),
            color=alt.Color("neuron:N", scale=alt.Scale(range=COLOURS)),
            tooltip=list(frame),
        )
        parts: list[Any] = [base.mark_line(interpolate="step-after")]
        parts.append(base.transform_filter("datum.fired").mark_point(filled=True))
        if threshold is not None:
            line = alt.Chart(pd.DataFrame({"membrane": [threshold]})).mark_rule(
                color=GREY, strokeDash=[4, 3]
            )
            parts.append(line.encode(y="membrane:Q"))
        charts.append(alt.layer(*parts).properties(width=2 * WIDTH, height=140))
    return alt.vconcat(*charts)


def _choose(
    arrays: Any, argument: str, image: Any, neurons: Any
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return ``{layer: (values [T, n] of one image, places of the neurons [n])}``."""
    _checks.require_whole("image", image, 0)
    _checks.require_whole("neurons", neurons, 1)
    if not isinstance(arrays, Mapping) or not arrays:
        raise ValueError(
            f"{argument} must be {{layer: [T, B, neurons...]}} of at least one layer, "
            f"got {_checks.format_value(arrays)}"
        )
    found = {}
    for name, x in arrays.items():
        x = np.asarray(_checks.require_real(argument, x))
        if x.ndim < 3 or 0 in x.shape:
            raise ValueError(
                f"{argument} of {name} must be [T, B, neurons...], got shape {x.shape}"
            )
        if image >= x.shape[1]:
            raise ValueError(
                f"image must be below the {x.shape[1]} of the batch, got {image}"
            )
        each = x[:, image].reshape(len(x), -1)
        size = min(neurons, each.shape[1])
        places = np.linspace(0, each.shape[1] - 1, size).round().astype(int)
        found[name] = each[:, places], places
    return found


def _span(values: Sequence[int] | np.ndarray) -> alt.Scale:
    return alt.Scale(domain=[float(values[0]) - 0.5, float(values[-1]) + 0.5])
