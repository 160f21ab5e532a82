"""A run's figures with their captions, as far as its rows allow them."""

import dataclasses
import statistics
from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.report import figures, layer_figures, prediction
from experiments.report.formats import CAPTIONS
from experiments.report.names import MODE_NAMES, is_full
from experiments.report.run import Run
from experiments.report.settings import common_seeds
from experiments.report.table import label
from experiments.study.config import MODES
from snnjax.firing._drift import baselines, illustrative_rows, noise_floors
from snnjax.runs import MissingArraysError


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure as it goes into the page; one not drawn has only a caption."""

    name: str
    png: bytes
    caption: str


def draw_run(run: Run, only: Sequence[str] = ()) -> list[Picture]:
    """Draw all figures of one run that its rows allow, or those of some names."""
    if all(is_full(row) for row in run.main):
        return []
    makers = {
        "over_bits": lambda: [_picture("over_bits", figures.over_bits(_panels(run)))],
        "layers": lambda: [_picture("layers", _layer_map(run), "layer_map")],
        "rates": lambda: _draw_rates_and_flows(run),
        "prediction": lambda: _draw_prediction(run),
    }
    wanted = [make for name, make in makers.items() if name in only or not only]
    return [picture for make in wanted for picture in make()]


def _picture(name: str, figure: Figure, caption: str = "") -> Picture:
    return Picture(name, figures.png(figure), CAPTIONS[caption or name])


def _panels(run: Run) -> list[figures.Panel]:
    panels = [_panel(name, run, mode) for mode, name in MODE_NAMES.items()]
    return [p for p in panels if p.rows and not is_full(p.rows[0])]


def _layer_map(run: Run) -> Figure:
    quantized = [row for row in run.main if not is_full(row)]
    seeds = {row["seed"] for row in quantized}
    controls = [r for r in run.main if r["mode"] == "control" and r["seed"] in seeds]
    panels = _panels(run)
    lower = max((p.lower for p in panels if p.lower), default=None)
    floor = max((p.floor for p in panels if p.floor), default=None)
    return layer_figures.layer_map(quantized, controls, lower, floor)


def _draw_prediction(run: Run) -> list[Picture]:
    if not prediction.has_enough(run.judged):
        return []
    figure = prediction.draw_predictions(prediction.collect_points(run.judged))
    return [_picture("prediction", figure)]


def draw_runs(runs: Sequence[Run]) -> list[Picture]:
    """Draw accuracy and EMD of several runs side by side, a figure a mode."""
    drawn = []
    for mode in MODES:
        panels = [_panel(run.name, run, mode) for run in runs]
        if any(panel.rows for panel in panels):
            png = figures.png(figures.over_bits(panels))
            caption = f"{MODE_NAMES[mode]}, a column a run. {CAPTIONS['over_bits']}"
            drawn.append(Picture(f"over_bits_{mode}", png, caption))
    return drawn


def _panel(title: str, run: Run, mode: str) -> figures.Panel:
    """Return a column of ``over_bits``: the rows of one mode."""
    rows = [row for row in run.main if row["mode"] == mode]
    bases = baselines(run.main)
    # A panel of one seed shows that seed's baseline, not a mean.
    seeds = common_seeds(rows) if rows else ()
    own = [row for row in bases if row["seed"] in seeds] or bases
    controls = {r["seed"]: r["accuracy"] for r in run.main if r["mode"] == "control"}
    trained = controls if mode == "qat" else {}
    accuracies = [max(r["accuracy"], trained.get(r["seed"], 0.0)) for r in own]
    accuracy = statistics.fmean(accuracies) if accuracies else None
    judged = [v for v in run.judged_main if v.row["mode"] == mode]
    # The rows' floors may be higher than the run's, and the reverse.
    floors = [*noise_floors(run.main).values(), *(v.floor for v in judged)]
    floor, lower = (
        max((value for value in values if value is not None), default=None)
        for values in (floors, [v.lower for v in judged])
    )
    return figures.Panel(title, rows, accuracy, floor, lower)


def _read_firing(run: Run) -> list[layer_figures.Firing] | str:
    """Return the firing of baseline and illustrative rows, or why there is none."""
    shown = illustrative_rows(run.judged_main)
    baseline = [row for row in baselines(run.main) if row["seed"] == shown[0]["seed"]]
    if not baseline:
        return "the baseline is missing"
    firing = []
    for row in baseline + shown:
        name = "baseline" if is_full(row) else label(row)
        try:
            counts = run.folder.firing(row).counts
        except MissingArraysError:  # a copy of the results without firing/
            return f"no spike counts of {name}"
        firing.append(
            layer_figures.Firing(name, counts.spikes, counts.observations, row["emd"])
        )
    return firing


def _draw_rates_and_flows(run: Run) -> list[Picture]:
    firing = _read_firing(run)
    if isinstance(firing, str):
        return [Picture("rates", b"", f"No histograms of rates: {firing}.")]
    baseline, *others = firing
    return [
        _picture("rates", layer_figures.rate_histograms(baseline, others)),
        _picture("flows", layer_figures.draw_flows(baseline, others)),
    ]
