"""Charts of the report card and of the study, in Altair: one for the page and the PNG.

A chart takes a frame with a row a mark. They share their colours and the style `THEME`,
whose text and lines the page's style sheet recolours in the dark.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from snnjax import emd
from snnjax.report import _extras

try:
    import altair as alt
    import pandas as pd
except ModuleNotFoundError as error:
    raise _extras.explain(error) from None

WIDTH = 300
GREY = "#6b6b6b"
PALE = "#d0d3d8"
DARKER = "#b4b9c0"
# Okabe and Ito's colours, which the colour-blind distinguish.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#B5579A", "#56B4E9", "#E69F00", GREY]
SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross"]
# Rates are crowded at 0: bins of about equal ratios, and one for the nearly silent.
EDGES = np.array([0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0])
HEAT = ["#fee6a8", "#fecc5c", "#fd9a45", "#f1592f", "#cd1e26", "#7f0a22"]
CHOSEN = alt.selection_point(name="chosen")
THEME: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {"gridColor": "#ececec", "domainColor": GREY, "tickColor": GREY},
    "axisX": {"grid": False},
    "title": {"anchor": "start", "fontSize": 12},
    "header": {"labelFontWeight": "bold", "labelAnchor": "start", "titleFontSize": 0},
    "legend": {
        "orient": "top",
        "columns": 4,
        "labelLimit": 260,
        "titleAnchor": "start",
    },
}


def to_dict(chart: alt.TopLevelMixin, **config: Any) -> dict[str, Any]:
    """Return the specification of a chart, in the common style."""
    return {**chart.to_dict(), "config": {**THEME, **config}}


def to_png(chart: alt.TopLevelMixin) -> bytes:
    """Return the chart as a PNG file, at twice the size it is shown at.

    It has a palette: a third of the bytes, and no difference to be seen.
    """
    from PIL import Image

    vl_convert: Any = _extras.import_extra("vl_convert")
    spec = to_dict(chart, background="white", font="Liberation Sans, sans-serif")
    image = Image.open(io.BytesIO(vl_convert.vegalite_to_png(spec, scale=2)))
    small = image.convert("RGB").quantize(192, dither=Image.Dither.NONE)
    file = io.BytesIO()
    small.save(file, "PNG", optimize=True)
    return file.getvalue()


def _log(values: pd.Series, *, reverse: bool = False) -> alt.Scale:
    """Return a logarithmic scale around the positive values."""
    known = values[values > 0]
    low, high = (known.min(), known.max()) if len(known) else (1e-4, 1.0)
    domain = [float(low) / 1.3, float(high) * 1.3]
    return alt.Scale(type="log", domain=domain, nice=False, reverse=reverse, clamp=True)


def _filter_by_legend(chart: Any, field: str, views: Sequence[str]) -> Any:
    """Return the chart with `CHOSEN` set by clicks in its legend."""
    chart.params = [
        alt.TopLevelSelectionParameter(
            name=CHOSEN.name,
            select=alt.PointSelectionConfig(type="point", fields=[field]),
            bind="legend",
            views=views,
        )
    ]
    return chart


def _order(values: pd.Series) -> list[Any]:
    return list(dict.fromkeys(values))


def scatter_networks(frame: pd.DataFrame, *, hover: Sequence[str] = ()) -> alt.Chart:
    """Draw accuracy against EMD, a point a network; a click in the legend filters.

    Args:
        frame: columns ``name``, ``group``, ``accuracy`` in %, ``emd``, ``state``.
        hover: more columns to tell where the pointer is.
    """
    groups = _order(frame["group"])
    lowest = frame["emd"][frame["emd"] > 0].min() / 1.3
    chart = (
        alt.Chart(frame.assign(shown=frame["emd"].clip(lower=lowest)))
        .mark_point(filled=True, size=55)
        .encode(
            x=alt.X("shown:Q", scale=_log(frame["emd"]), title="mean EMD").axis(
                format="~g", labelOverlap=True
            ),
            y=alt.Y("accuracy:Q", title="accuracy, %").scale(zero=False),
            # Of one domain, or the legend names each group twice.
            color=alt.Color("group:N", title=None).scale(domain=groups, range=COLOURS),
            shape=alt.Shape("group:N", title=None).scale(domain=groups, range=SHAPES),
            opacity=alt.condition(CHOSEN, alt.value(0.8), alt.value(0.06)),
            tooltip=[
                alt.Tooltip("name:N"),
                alt.Tooltip("accuracy:Q", format=".2f"),
                alt.Tooltip("emd:Q", format=".4g", title="EMD"),
                *(alt.Tooltip(field) for field in ("state:N", *hover)),
            ],
        )
        .properties(width="container", height=320, name="points")
    )
    return _filter_by_legend(chart, "group", ["points"])


def draw_over_bits(frame: pd.DataFrame) -> alt.VConcatChart:
    """Draw accuracy above EMD over bits: a panel a mode, a line a method.

    Args:
        frame: a row for each mode, method and bits: ``mode``, ``method``, ``family``,
            ``variant``, ``bits``; means ``accuracy`` and ``emd``, and the ends
            ``accuracy_low``, ``accuracy_high``, ``emd_low``, ``emd_high`` over seeds;
            of the mode ``baseline`` (accuracy) and ``margin`` (EMD), NaN where they are
            unknown.
    """
    modes, methods = _order(frame["mode"]), _order(frame["method"])
    looks = frame.drop_duplicates("method").set_index("method")
    families, variants = _order(looks["family"]), _order(looks["variant"])
    colours = [COLOURS[families.index(f) % len(COLOURS)] for f in looks["family"]]
    shapes = [SHAPES[families.index(f) % len(SHAPES)] for f in looks["family"]]
    dashes = [([1, 0], [5, 3], [2, 2])[variants.index(v) % 3] for v in looks["variant"]]
    known = pd.concat([frame[k] for k in ("emd_low", "emd_high", "margin")])
    low = float(known[known > 0].min()) / 1.5 if (known > 0).any() else 1e-4
    frame = frame.assign(
        **{
            k: frame[k].clip(lower=low)
            for k in ("emd_low", "emd", "emd_high", "margin")
        },
        **{
            f"error{end}": (100 * (1 - frame[f"accuracy{end}"])).clip(lower=0.1)
            for end in ("_low", "", "_high")
        },
        base=100 * (1 - frame["baseline"]),
        bottom=low,
        accuracy_percent=100 * frame["accuracy"],
    )
    frame["above"], frame["below"] = frame["base"] + 1, (frame["base"] - 1).clip(0.05)
    # No error is above 100 %, nor is its axis, which has some room on either side.
    every = pd.concat([frame["error"], frame["base"].dropna().clip(lower=0.1)])
    every = every.clip(upper=100 / 1.3)
    parts = []
    for key, scale, title, bands in (
        ("error", _log(every, reverse=True), "accuracy, %", [("below", "above", PALE)]),
        (
            "emd",
            _log(pd.concat([known, pd.Series([low * 1.3])])),
            "mean EMD",
            [("bottom", "margin", PALE)],
        ),
    ):
        axis = (
            {"format": "~g"}
            if key == "emd"
            else {"labelExpr": "format(100 - datum.value, '.3~f')"}
        )
        y = alt.Y(f"{key}:Q", scale=scale, title=title).axis(labelOverlap=True, **axis)
        plain = alt.Chart()
        x = alt.X("bits:O", title="bits").axis(labelAngle=0)
        layers = [
            plain.mark_rect(color=colour, opacity=0.6).encode(
                y=alt.Y(f"max({one}):Q", scale=scale), y2=f"max({other}):Q"
            )
            for one, other, colour in bands
        ]
        colour = alt.Color("method:N", title=None).scale(domain=methods, range=colours)
        shade = alt.condition(CHOSEN, alt.value(1), alt.value(0.1))
        line = plain.encode(x=x, color=colour, opacity=shade)
        layers += [
            line.mark_rule().encode(
                y=alt.Y(f"{key}_low:Q", scale=scale), y2=f"{key}_high:Q"
            ),
            line.mark_line().encode(
                y=y,
                strokeDash=alt.StrokeDash("method:N", title=None).scale(
                    domain=methods, range=dashes
                ),
            ),
            line.mark_point(filled=True, size=45)
            .encode(
                y=y,
                shape=alt.Shape("method:N", title=None).scale(
                    domain=methods, range=shapes
                ),
                tooltip=[
                    "method:N",
                    "bits:O",
                    "mode:N",
                    alt.Tooltip(
                        "accuracy_percent:Q", format=".2f", title="accuracy, %"
                    ),
                    alt.Tooltip("emd:Q", format=".4g", title="EMD"),
                ],
            )
            .properties(name=f"{key}_points"),
        ]
        panel = alt.layer(*layers).properties(
            width=max(130, 720 // len(modes)), height=190
        )
        column = alt.Column("mode:N", sort=modes, title=None)
        parts.append(panel.facet(column, data=frame))
    chart = alt.vconcat(*parts)
    return _filter_by_legend(chart, "method", ["error_points", "emd_points"])


def map_layers(frame: pd.DataFrame, *, margin: float | None = None) -> alt.FacetChart:
    """Draw the EMD of layers (columns) in configurations (lines), a panel a mode.

    Args:
        frame: columns ``mode``, ``configuration``, ``layer``, ``emd``, in their order.
        margin: EMD up to which a cell is grey, told in the legend's title.
    """
    modes, layers = _order(frame["mode"]), _order(frame["layer"])
    lines = _order(frame["configuration"])
    known = frame["emd"][frame["emd"] > (margin or 0)]
    low = margin or (float(known.min()) if len(known) else 1e-4)
    high = max(float(known.max()) if len(known) else 0, 1.01 * low)
    title = "EMD of the layer"
    title += f" (grey: at most {margin:.2g}, the margin)" if margin else ""
    scale = alt.Scale(type="log", domain=[low, high], range=HEAT, clamp=True)
    legend = alt.Legend(
        title=title, format="~g", gradientLength=300, titleLimit=600, orient="top"
    )
    return (
        alt.Chart(frame.assign(above=frame["emd"] > (margin or 0)))
        .mark_rect()
        .encode(
            x=alt.X("layer:N", sort=layers, title=None).axis(labelAngle=-60),
            y=alt.Y("configuration:N", sort=lines, title=None).axis(labelLimit=260),
            color=alt.condition(
                "datum.above",
                alt.Color("emd:Q", scale=scale, legend=legend),
                alt.value(PALE),
            ),
            tooltip=[
                *("configuration:N", "mode:N", "layer:N"),
                alt.Tooltip("emd:Q", format=".4g", title="EMD"),
            ],
        )
        .properties(width=max(120, 22 * len(layers)), height={"step": 13})
        .facet(alt.Column("mode:N", sort=modes, title=None))
    )


def tabulate_rates(
    networks: dict[str, dict[str, np.ndarray]], bins: int = 25
) -> pd.DataFrame:
    """Return the frame of `draw_rates`.

    Args:
        networks: ``{network: {layer: rates}}``; the first is the reference.
        bins: of [0, 1]; rates above 1, of block outputs, belong to the last one.
    """
    edges = np.linspace(0, 1, bins + 1)
    rows = []
    for network, layers in networks.items():
        for layer, rates in layers.items():
            shares = np.histogram(np.minimum(np.ravel(rates), 1), edges)[0]
            shares = shares / max(np.size(rates), 1)
            for low, high, share in zip(edges, edges[1:], shares, strict=False):
                rows.append((network, layer, low, high, share))
    return pd.DataFrame(rows, columns=["network", "layer", "low", "high", "share"])


def draw_rates(frame: pd.DataFrame) -> alt.FacetChart:
    """Draw each layer's firing rates: the first network filled, the others as lines."""
    networks, layers = _order(frame["network"]), _order(frame["layer"])
    lowest = float(frame["share"][frame["share"] > 0].min()) / 2
    frame = frame.assign(shown=frame["share"].clip(lower=lowest), bottom=lowest)
    scale = alt.Scale(type="log", domain=[lowest, 1], clamp=True)
    y = alt.Y("shown:Q", scale=scale, title="share of neurons").axis(format="~%")
    colour = alt.Color("network:N", title=None).scale(
        domain=networks, range=[DARKER, "#D55E00", "#0072B2", "#009E73"]
    )
    axis = alt.X("low:Q", title="firing rate").scale(domain=[0, 1])
    base = alt.Chart().encode(color=colour)
    first = f"datum.network === {networks[0]!r}"
    filled = (
        base.transform_filter(first)
        .mark_rect()
        .encode(x=axis, x2="high:Q", y=y, y2="bottom:Q")
    )
    lines = base.transform_filter(f"!({first})").mark_line(interpolate="step-after")
    lines = lines.encode(
        x=axis,
        y=y,
        tooltip=["network:N", "layer:N", "low:Q", alt.Tooltip("share:Q", format=".2%")],
    )
    panel = alt.layer(filled, lines).properties(width=230, height=110)
    facet = alt.Facet("layer:N", sort=layers, title=None)
    return panel.facet(facet, data=frame, columns=3)


def tabulate_flow(
    reference: dict[str, np.ndarray], other: dict[str, np.ndarray], network: str = ""
) -> pd.DataFrame:
    """Return the frame of `draw_flows`: each bin's share of the EMD, mean over layers.

    Args:
        reference: ``{layer: rates}``.
        other: likewise.
        network: name of the other.
    """
    tables = [
        # Block outputs may exceed 1.
        emd.flow(np.minimum(x, 1), np.minimum(other[layer], 1), edges=EDGES).work
        for layer, x in reference.items()
    ]
    work = np.mean(tables, axis=0)
    share = work / max(work.sum(), 1e-12)
    names = [f"{edge:g}" for edge in EDGES[:-1]]
    rows = [
        (network, names[i], names[j], work[i, j], share[i, j])
        for i, j in np.ndindex(work.shape)
    ]
    columns = ["network", "before", "after", "work", "share"]
    return pd.DataFrame(rows, columns=columns)


def draw_flows(frame: pd.DataFrame) -> alt.FacetChart:
    """Draw a panel a network: where its EMD comes from, by rates before and after."""
    names = [f"{edge:g}" for edge in EDGES[:-1]]
    x = alt.X("before:N", sort=names, title="rate in the reference, from")
    y = alt.Y("after:N", sort=names[::-1], title="rate now, from")
    base = alt.Chart().encode(x=x.axis(labelAngle=0), y=y)
    scale = alt.Scale(domain=[0, 0.5], range=HEAT, clamp=True)
    cells = (
        base.transform_filter("datum.share > 0")
        .mark_rect()
        .encode(
            color=alt.Color("share:Q", scale=scale, legend=None),
            tooltip=["before", "after", alt.Tooltip("share:Q", format=".1%")],
        )
    )
    text = base.transform_filter("datum.share >= 0.005").mark_text(fontSize=11)
    text = text.encode(
        text=alt.Text("share:Q", format=".0%"),
        color=alt.condition(
            "datum.share > 0.3", alt.value("white"), alt.value("black")
        ),
    )
    diagonal = base.transform_filter("datum.before === datum.after").mark_rect(
        fill=None, stroke=GREY, strokeDash=[2, 2]
    )
    panel = alt.layer(cells, text, diagonal).properties(width=WIDTH, height=WIDTH)
    column = alt.Column("network:N", sort=_order(frame["network"]), title=None)
    return panel.facet(column, data=frame)


def draw_layers(frame: pd.DataFrame) -> alt.Chart | alt.LayerChart:
    """Draw the EMD of each layer, from the first to the last, with its interval.

    Args:
        frame: columns ``layer``, ``emd``, ``emd_low``, ``emd_high``, ``state``.
    """
    layers = _order(frame["layer"])
    states = {
        "No drift seen": "#5c8a5c",
        "Below the margin": "#0072B2",
        "Drift": "#D55E00",
        "Cannot tell": GREY,
    }
    y = alt.Y("layer:N", sort=layers, title=None).axis(labelLimit=160)
    base = alt.Chart(frame).encode(y=y)
    # Only states that occur, two a line: all four are wider than a telephone.
    seen = {name: states[name] for name in states if name in set(frame["state"])}
    colour = alt.Color("state:N", title=None).scale(
        domain=list(seen), range=list(seen.values())
    )
    colour = colour.legend(columns=2)
    ends = frame[["emd", "emd_low", "emd_high"]].astype(float)
    # Without any drift an axis from 0 to 0 would show its only tick in the middle.
    scale = (
        alt.Scale(zero=True) if ends.max(axis=None) > 0 else alt.Scale(domain=[0, 1])
    )
    known = frame["emd_low"].notna().any()
    numbers = {"emd:Q": "EMD"} | (
        {"emd_low:Q": "from", "emd_high:Q": "to"} if known else {}
    )
    tips = [
        *("layer:N", "state:N"),
        *(alt.Tooltip(k, format=".4g", title=title) for k, title in numbers.items()),
    ]
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=alt.X("emd:Q", title="EMD", scale=scale).axis(tickCount=8),
        color=colour,
        tooltip=tips,
    )
    if known:
        bars = base.mark_rule(strokeWidth=2)
        dots = bars.encode(x="emd_low:Q", x2="emd_high:Q", color=colour) + dots
    return dots.properties(width="container", height=20 * len(layers))


def draw_attribution(frame: pd.DataFrame) -> alt.LayerChart:
    """Draw the drift that each layer makes, alone and in company.

    Args:
        frame: columns ``layer``, ``kind`` and ``shift``, in their order.
    """
    layers, kinds = _order(frame["layer"]), _order(frame["kind"])
    base = alt.Chart(frame).encode(
        x=alt.X("shift:Q", title="largest paired shift").axis(tickCount=6),
        y=alt.Y("layer:N", sort=layers, title=None).axis(labelLimit=160),
    )
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        color=alt.Color("kind:N", title=None)
        .scale(domain=kinds, range=COLOURS[: len(kinds)])
        .legend(columns=1),
        shape=alt.Shape("kind:N", title=None).scale(
            domain=kinds, range=SHAPES[: len(kinds)]
        ),
        tooltip=["layer:N", "kind:N", alt.Tooltip("shift:Q", format=".4g")],
    )
    lines = base.mark_line(color=PALE).encode(detail="layer:N")
    return (lines + points).properties(width="container", height=20 * len(layers))
