"""A run's figures with their captions, as far as its rows allow them."""

import dataclasses
from collections.abc import Sequence

from experiments.common import MODES
from experiments.report import figures, flows
from experiments.report.judge import noise_floors, telling, verdicts
from experiments.report.names import MODE_NAMES, is_full
from experiments.report.run import Run
from experiments.run_folder import Lost

OVER_BITS = (
    "Accuracy (above, its error on a logarithmic scale) and mean EMD to the baseline "
    "(below, logarithmic) over bits. A point in the upper band and above the lower one "
    "keeps accuracy and fires differently: accuracy hides that. Points in the lower "
    "band moved no more than training on or another seed moves firing anyway."
)
LAYER_MAP = (
    "EMD of each layer, from the first to the last, in each configuration. Grey cells "
    "lie within the noise floor (of the mean); the control's line shows which layers "
    "move without quantization. Colour that strengthens to the right is drift that "
    "grows with depth; empty is not measured."
)
RATES = (
    "How firing rates spread in each layer (share of its neurons, logarithmic): the "
    "baseline filled, quantized networks as lines. Solid: the one whose firing moved "
    "furthest, of those that keep accuracy where there are any; dashed: the one that "
    "moved least in the same mode."
)
FLOWS = (
    "Where the EMD comes from: each cell's share of it, in %, by the rates that "
    "neurons had in the baseline (columns) and have in the quantized network (lines), "
    "mean over layers. Above the dotted line neurons fire more, below it less. The "
    "coupling keeps the order of rates: it shows how the distribution moved, not what "
    "became of single neurons."
)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure as it goes into the page; one not drawn has only a caption."""

    name: str
    png: bytes
    caption: str


def of_run(run: Run) -> list[Picture]:
    """All figures of one run that its rows allow."""
    quantized = [row for row in run.rows if not is_full(row)]
    if not quantized:
        return []
    panels = [_panel(name, run, mode) for mode, name in MODE_NAMES.items()]
    panels = [p for p in panels if p.rows and not is_full(p.rows[0])]
    controls = [row for row in run.rows if row["mode"] == "control"][:1]
    layer_map = figures.layer_map(quantized, controls, panels[0].floor)
    return [
        Picture("over_bits", figures.png(figures.over_bits(panels)), OVER_BITS),
        Picture("layers", figures.png(layer_map), LAYER_MAP),
        *_rates_and_flows(run),
    ]


def of_runs(runs: Sequence[Run]) -> list[Picture]:
    """Accuracy and EMD of several runs side by side, a figure a mode."""
    drawn = []
    for mode in MODES:
        panels = [_panel(run.name, run, mode) for run in runs]
        if any(panel.rows for panel in panels):
            png = figures.png(figures.over_bits(panels))
            caption = f"{MODE_NAMES[mode]}, a column a run. {OVER_BITS}"
            drawn.append(Picture(f"over_bits_{mode}", png, caption))
    return drawn


def _panel(title: str, run: Run, mode: str) -> figures.Panel:
    """A column of ``over_bits``: the rows of one mode."""
    accuracies = [row["accuracy"] for row in run.rows if row["mode"] == "fp32"]
    rows = [row for row in run.rows if row["mode"] == mode]
    floor = max(noise_floors(run.rows).values(), default=None)
    return figures.Panel(title, rows, next(iter(accuracies), None), floor)


def _firing(run: Run) -> list[figures.Firing] | str:
    """The baseline and the telling rows, or why there are none."""
    baseline = [row for row in run.rows if row["mode"] == "fp32"][:1]
    if not baseline:
        return "the baseline is missing"
    firing = []
    for row in baseline + telling(run.rows):
        name = "baseline" if is_full(row) else verdicts([row])[0].name
        try:
            counts = run.folder.fired(row).counts
        except Lost:  # a copy of the results without firing/
            return f"no spike counts of {name}"
        firing.append(
            figures.Firing(name, counts.spikes, counts.observations, row["emd"])
        )
    return firing


def _rates_and_flows(run: Run) -> list[Picture]:
    firing = _firing(run)
    if isinstance(firing, str):
        return [Picture("rates", b"", f"No histograms of rates: {firing}.")]
    baseline, *others = firing
    histograms = figures.png(figures.rate_histograms(baseline, others))
    moved = figures.png(flows.flows(baseline, others))
    return [Picture("rates", histograms, RATES), Picture("flows", moved, FLOWS)]
