"""A run's figures with their captions, as far as its rows allow them."""

import dataclasses
import statistics
from collections.abc import Sequence

from experiments.report import figures, flows, histograms, prediction, scatter
from experiments.report.judge import baselines, noise_floors, telling, verdicts
from experiments.report.names import MODE_NAMES, is_full
from experiments.report.run import Run
from experiments.report.settings import common_seeds
from experiments.study.config import MODES
from snnjax.runs import MissingArraysError

OVER_BITS = (
    "Accuracy (above, its error on a logarithmic scale) and mean EMD to the baseline "
    "(below, logarithmic) over bits. A point in the upper band and above the lower one "
    "keeps accuracy and fires differently: accuracy hides that (after QAT the upper "
    "band is the control's where that has more accuracy). Points in the lower band "
    "moved no more than another seed or training on, those in its darker part no more "
    "than the way to them by itself, without a quantizer. Of several seeds: the mean "
    "of those that the whole column has, and a bar from the lowest to the highest."
)
LAYER_MAP = (
    "EMD of each layer, from the first to the last, in each configuration. Grey cells "
    "lie within the lower floor (of the mean, the largest of the modes'); the line in "
    "the scale is the noise floor. The control's line shows which layers move without "
    "quantization. Colour that strengthens to the right is drift that grows with "
    "depth; empty is not measured. Of several seeds: their mean."
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
PREDICTION = (
    "What measures of firing tell: mean EMD, paired shift and time-W1 of each "
    "quantized row against what changed from its baseline; ρ is Spearman's rank "
    "correlation, each row ranked among those of its mode and seed. Exact zeros lie on "
    "the edge of logarithmic axes; the axis of accuracy is even within a point."
)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure as it goes into the page; one not drawn has only a caption."""

    name: str
    png: bytes
    caption: str


def of_run(run: Run, only: Sequence[str] = ()) -> list[Picture]:
    """All figures of one run that its rows allow, or those of some names."""
    if all(is_full(row) for row in run.main):
        return []
    makers = {
        "over_bits": _over_bits,
        "layers": _layers,
        "rates": _rates_and_flows,
        "prediction": _prediction,
    }
    return [
        picture
        for name, make in makers.items()
        if name in only or not only
        for picture in make(run)
    ]


def _panels(run: Run) -> list[figures.Panel]:
    panels = [_panel(name, run, mode) for mode, name in MODE_NAMES.items()]
    return [p for p in panels if p.rows and not is_full(p.rows[0])]


def _over_bits(run: Run) -> list[Picture]:
    return [
        Picture("over_bits", figures.png(figures.over_bits(_panels(run))), OVER_BITS)
    ]


def _layers(run: Run) -> list[Picture]:
    quantized = [row for row in run.main if not is_full(row)]
    seeds = {row["seed"] for row in quantized}
    controls = [r for r in run.main if r["mode"] == "control" and r["seed"] in seeds]
    panels = _panels(run)
    lower = max((p.lower for p in panels if p.lower), default=None)
    floor = max((p.floor for p in panels if p.floor), default=None)
    drawn = figures.layer_map(quantized, controls, lower, floor)
    return [Picture("layers", figures.png(drawn), LAYER_MAP)]


def _prediction(run: Run) -> list[Picture]:
    if not prediction.enough(run.rows):
        return []
    png = figures.png(scatter.prediction(prediction.points(run.rows)))
    return [Picture("prediction", png, PREDICTION)]


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
    rows = [row for row in run.main if row["mode"] == mode]
    bases = baselines(run.main)
    # Beside rows of one seed, not the mean of two.
    seeds = common_seeds(rows) if rows else ()
    own = [row for row in bases if row["seed"] in seeds] or bases
    controls = {r["seed"]: r["accuracy"] for r in run.main if r["mode"] == "control"}
    trained = controls if mode == "qat" else {}
    accuracies = [max(r["accuracy"], trained.get(r["seed"], 0.0)) for r in own]
    accuracy = statistics.fmean(accuracies) if accuracies else None
    judged = [v for v in verdicts(run.main) if v.row["mode"] == mode]
    # A mode's own may be higher than those that its rows tell.
    floors = [*noise_floors(run.main).values(), *(v.floor for v in judged)]
    floor, lower = (
        max((value for value in values if value is not None), default=None)
        for values in (floors, [v.lower for v in judged])
    )
    return figures.Panel(title, rows, accuracy, floor, lower)


def _firing(run: Run) -> list[histograms.Firing] | str:
    """The baseline and the telling rows, or why there are none."""
    told = telling(run.main)
    baseline = [row for row in baselines(run.main) if row["seed"] == told[0]["seed"]]
    if not baseline:
        return "the baseline is missing"
    firing = []
    for row in baseline + told:
        name = "baseline" if is_full(row) else verdicts([row])[0].name
        try:
            counts = run.folder.firing(row).counts
        except MissingArraysError:  # a copy of the results without firing/
            return f"no spike counts of {name}"
        firing.append(
            histograms.Firing(name, counts.spikes, counts.observations, row["emd"])
        )
    return firing


def _rates_and_flows(run: Run) -> list[Picture]:
    firing = _firing(run)
    if isinstance(firing, str):
        return [Picture("rates", b"", f"No histograms of rates: {firing}.")]
    baseline, *others = firing
    drawn = figures.png(histograms.rate_histograms(baseline, others))
    moved = figures.png(flows.flows(baseline, others))
    return [Picture("rates", drawn, RATES), Picture("flows", moved, FLOWS)]
