"""Text cards: a comparison as a table of plain characters."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from snnjax.firing import LayerVerdict, Measure

if TYPE_CHECKING:
    from snnjax.report.card import ReportCard

WORDS = {
    "no_drift": "no drift seen",
    "below_margin": "drift below the margin",
    "drift": "drift",
    "cannot_tell": "cannot tell",
}


def write_card(card: "ReportCard") -> str:
    """Write a card as text: verdict, a line a layer, and the tested hypothesis."""
    judged = card.verdict
    margin = "" if judged.margin is None else f" (margin: EMD {judged.margin:g})"
    lines = [f"Verdict: {WORDS[judged.state]}{margin}"]
    if judged.remedy:
        lines += textwrap.wrap(f"To tell: {judged.remedy}.", 100)
    head = ["layer", "verdict", "EMD", "interval", "by chance", "normed", "paired"]
    head += ["mean shift", "KS", "dead", "saturated"]
    if card.operations is not None:
        head.append("operations")
    rows = [head]
    for name, layer in judged.layers.items():
        row = _write_row(name, layer, card.layers[name])
        if card.operations is not None:
            row.append(_write_pair(card.operations.get(name), ".0f"))
        rows.append(row)
    lines += ["", *align(rows), ""]
    percent = f"{judged.level * 100:g} %"
    lines += textwrap.wrap(
        f"{judged.null} Intervals ({percent}) are of each measure alone; EMD, paired "
        "shift and KS are positive by chance too. Rates are in spikes per time step; "
        "dead: rate below 0.05, saturated: above 0.95, reference -> other.",
        100,
    )
    return "\n".join(lines)


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align cells in columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _write_row(name: str, layer: LayerVerdict, numbers: Mapping) -> list[str]:
    m = layer.measures
    w1 = m["emd"]
    return [
        name,
        WORDS[layer.state],
        f"{w1.value:.5f}",
        _write_interval(w1),
        "?" if w1.by_chance is None else f"{w1.by_chance:.5f}",
        f"{m['normed_emd'].value:.3f}",
        f"{m['paired_shift'].value:.5f}",
        f"{m['mean_shift'].value:+.5f}",
        f"{m['ks'].value:.3f}",
        *(
            _write_pair([numbers[f"{side}_{kind}"] for side in ("reference", "other")])
            for kind in ("dead", "saturated")
        ),
    ]


def _write_interval(measure: Measure) -> str:
    if measure.low is None:
        return "unknown"
    return f"{measure.low:.5f}..{measure.high:.5f}"


def _write_pair(pair: Sequence[float] | None, form: str = ".1%") -> str:
    return "" if pair is None else f"{pair[0]:{form}} -> {pair[1]:{form}}"


def write_ranking(ranked: "Mapping[str, ReportCard]") -> list[str]:
    """Write several comparisons with one reference, a line each."""
    rows = [["recording", "verdict", "mean EMD", "largest", "in layer", "mean paired"]]
    for name, card in ranked.items():
        w1 = {k: row["emd"] for k, row in card.layers.items()}
        paired = [row["paired_shift"] for row in card.layers.values()]
        worst = max(w1, key=w1.__getitem__)
        mean = sum(w1.values()) / len(w1)
        rows.append(
            [
                *(name, WORDS[card.verdict.state], f"{mean:.5f}", f"{w1[worst]:.5f}"),
                *(worst, f"{sum(paired) / len(paired):.5f}"),
            ]
        )
    return align(rows)
