"""One page in one HTML file, which loads nothing: of a report card, or of a study."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import altair as alt
import jinja2
import markupsafe
import numpy as np
import pandas as pd

from snnjax.report import charts
from snnjax.report._extras import import_extra

if TYPE_CHECKING:
    from snnjax.report.attribution import Attribution
    from snnjax.report.card import ReportCard

# In the table and the chart; the verdict on top has room for more.
STATES = {
    "no_drift": "No drift seen",
    "below_margin": "Below the margin",
    "drift": "Drift",
    "cannot_tell": "Cannot tell",
}
_VERDICTS = STATES | {
    "below_margin": "Drift smaller than the margin",
    "cannot_tell": "Cannot tell with these inputs",
}
# Columns of the layer table: a title, the key in the JSON file, how it is printed.
_COLUMNS = (
    ("EMD", "emd", "{:.4f}"),
    ("normed EMD", "normed_emd", "{:.3f}"),
    ("paired shift", "paired_shift", "{:.4f}"),
    ("mean shift", "mean_shift", "{:+.4f}"),
    ("KS", "ks", "{:.3f}"),
    ("rate before", "reference_rate", "{:.4f}"),
    ("rate", "other_rate", "{:.4f}"),
    ("dead", "dead", "{:.1%}"),
    ("saturated", "saturated", "{:.1%}"),
    ("neurons", "neurons", "{:,}"),
)
_HISTOGRAM_BINS = 24
_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
# JSON in a script ends at the first "</", whatever it stands in.
_environment.filters["json"] = lambda value: markupsafe.Markup(
    json.dumps(value).replace("<", "\\u003c")
)
blocks: Any = _environment.get_template("blocks.html").module


@functools.cache
def _bundle() -> str:
    """Return Vega-Lite's scripts, which draw the charts."""
    bundle: Any = import_extra("vl_convert").javascript_bundle
    return bundle().replace("</script", "<\\/script")


def _source(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text("utf-8")


def make(
    *,
    title: str,
    heading: str,
    head: markupsafe.Markup,
    sections: Mapping[str, Sequence[markupsafe.Markup]],
    drawn: Mapping[str, alt.TopLevelMixin],
    data: Mapping[str, Any] | None = None,
) -> str:
    """Return a page.

    Args:
        title: of the window.
        heading: over the page.
        head: what stands on top.
        sections: blocks by their headings, made by the macros of `blocks`; those
            without any are left out.
        drawn: the charts by their names in `blocks.figure`.
        data: numbers to keep in the page, as JSON.
    """
    specs = {name: charts.to_dict(chart) for name, chart in drawn.items()}
    return _environment.get_template("page.html").render(
        title=title,
        heading=heading,
        head=head,
        sections={name: body for name, body in sections.items() if body},
        specs=specs,
        bundle=_bundle() if specs else "",
        css=_source("page.css"),
        js=_source("page.js"),
        data=data,
    )


def write(
    card: "ReportCard", path: str | Path, attribution: "Attribution | None" = None
) -> None:
    """Write a report card as a page."""
    Path(path).write_text(render(card, attribution), "utf-8")


def render(card: "ReportCard", attribution: "Attribution | None" = None) -> str:
    """Return the page of a report card: verdict, layers, and which rates moved.

    Args:
        card: the report card.
        attribution: of `attribute`, for a chart of the layers that make the drift.
    """
    numbers = card.to_dict()
    ours, theirs = card.reference.rates(), card.other.rates()
    frame = pd.DataFrame(
        [
            {
                "layer": name,
                "state": STATES[row["state"]],
                "emd": row["emd"],
                "emd_low": (row["emd_interval"] or (None, None))[0],
                "emd_high": (row["emd_interval"] or (None, None))[1],
            }
            for name, row in card.layers.items()
        ]
    )
    drawn = {
        "layers": charts.draw_layers(frame),
    }
    flow = charts.tabulate_flow(ours, theirs, "all layers")
    if flow["work"].any():
        drawn["flow"] = charts.draw_flows(flow)
    about = "EMD of each layer, from the first to the last"
    if frame["emd_low"].notna().any():
        about += f"; the bar is its {100 * card.verdict.level:g} % interval"
    made = []
    if attribution is not None:
        drawn["attribution"] = charts.draw_attribution(_tabulate_drift(attribution))
        made = [blocks.figure("attribution", _ATTRIBUTION)]
    sections = {
        "Layers": [
            _layer_table(card, ours, theirs),
            blocks.figure("layers", f"{about}."),
        ],
        "Where the drift is made": made,
        "Which rates moved": [
            blocks.figure(
                "flow",
                "Share of the EMD by the rates that neurons had in the reference and "
                "have now, mean over layers. Above the diagonal neurons fire more. The "
                "coupling keeps the order of rates: it shows how the distribution "
                "moved, not what became of single neurons.",
            )
        ]
        * ("flow" in drawn),
        "Definitions": [blocks.terms(_DEFINITIONS)],
    }
    return make(
        title=f"Report card: {_VERDICTS[numbers['verdict']]}",
        heading="Firing, compared with the reference",
        head=_head(card, numbers),
        sections=sections,
        drawn=drawn,
        data=numbers,
    )


_ATTRIBUTION = """\
Drift by the layer that makes it: quantized alone, and what goes away where it alone is
taken back to full precision. Where the two differ, layers amplify or cancel what others
do. The largest paired shift of a spiking layer, in spikes per time step."""


def _tabulate_drift(attribution: "Attribution") -> pd.DataFrame:
    kinds = {
        "quantized alone": attribution.isolated,
        "gone when restored": attribution.recovered,
    }
    rows = [
        (name, kind, shifts[name])
        for name in attribution.isolated
        for kind, shifts in kinds.items()
    ]
    return pd.DataFrame(rows, columns=["layer", "kind", "shift"])


def _head(card: "ReportCard", numbers: Mapping[str, Any]) -> markupsafe.Markup:
    layers = card.layers
    moved = [name for name, row in layers.items() if row["state"] == "drift"]
    largest = max(layers, key=lambda name: layers[name]["emd"])
    summary = f"{len(moved)} of {len(layers)} layers drift. The largest EMD is "
    summary += f"{layers[largest]['emd']:.4f}, in {largest}."
    if card.verdict.margin is not None:
        summary += f" The margin is an EMD of {card.verdict.margin:g}."
    before, now = card.reference.observations, card.other.observations
    tiles = {
        "mean EMD over layers": f"{np.mean([r['emd'] for r in layers.values()]):.4f}",
        "layers": f"{len(layers):,}",
        "neurons": f"{sum(row['neurons'] for row in layers.values()):,}",
        "observations a neuron": f"{before:,}"
        if before == now
        else f"{before:,} and {now:,}",
        "inputs": "the same" if card.verdict.same_inputs else "not the same",
    }
    text = _environment.get_template("card.html").render(
        card=numbers,
        words=_VERDICTS,
        summary=summary,
        remedy=card.verdict.remedy,
        blocks=blocks,
        tiles=tiles,
    )
    return markupsafe.Markup(text)


def _layer_table(
    card: "ReportCard",
    ours: Mapping[str, np.ndarray],
    theirs: Mapping[str, np.ndarray],
) -> markupsafe.Markup:
    columns = [
        {"title": "layer", "kind": "text"},
        {"title": "verdict", "kind": "text judged"},
        {"title": "rates", "kind": "text"},
        *({"title": title, "kind": ""} for title, _, _ in _COLUMNS),
    ]
    rows = []
    for at, (name, row) in enumerate(card.layers.items()):
        cells = {
            title: "-" if row.get(key) is None else show.format(row[key])
            for title, key, show in _COLUMNS
        }
        cells |= {"layer": name, "verdict": STATES[row["state"]]}
        cells["rates"] = draw_histogram(ours[name], theirs[name])
        values = {t: row[key] for t, key, _ in _COLUMNS if row.get(key) is not None}
        # By its place, a layer's column sorts from the first layer to the last.
        values |= {"layer": at, "rates": row["emd"]}
        rows.append({"state": row["state"], "cells": cells, "numbers": values})
    about = "Rates: the reference filled, the other network as a line, on a "
    about += "logarithmic scale. Press a heading to sort."
    return blocks.table(columns, {"": rows}, about)


def draw_histogram(reference: np.ndarray, other: np.ndarray) -> markupsafe.Markup:
    """Return a small picture of two distributions of rates, the one over the other."""
    edges = np.linspace(0, 1, _HISTOGRAM_BINS + 1)
    heights = []
    for rates in (reference, other):
        counts = np.histogram(np.minimum(np.ravel(rates), 1), edges)[0]
        # Four decades: bins of a ten-thousandth of the neurons still show.
        share = counts / max(np.size(rates), 1)
        heights.append(np.clip(1 + np.log10(np.maximum(share, 1e-9)) / 4, 0, 1))
    was, now = (
        " ".join(
            f"{x:g},{29 - 28 * h:.1f}"
            for i, h in enumerate(height)
            for x in (5 * i, 5 * i + 5)
        )
        for height in heights
    )
    return markupsafe.Markup(
        f'<svg class="small" viewBox="0 0 {5 * _HISTOGRAM_BINS} 30" role="img" '
        f'aria-label="rates"><polygon class="was" points="0,29 {was} 120,29"/>'
        f'<polyline class="now" points="{now}"/></svg>'
    )


_DEFINITIONS = {
    "rate": "spikes of a neuron / observations, which are time steps times inputs",
    "EMD": "earth mover's distance: the exact W1 between rates of a layer's neurons",
    "normed EMD": "EMD over the standard deviation of the reference's rates",
    "paired shift": "mean |rate - rate'| neuron by neuron; at least the EMD",
    "mean shift": "how far the layer's mean rate moved; in size at most the EMD",
    "KS": "largest difference of the two cumulative distributions of rates",
    "dead": "share of neurons with a rate below 0.05, in the other network",
    "saturated": "share of neurons with a rate above 0.95, in the other network",
}
