"""A run's figures with their captions, as far as its rows allow them."""

import dataclasses
from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from experiments.report.judged import (
    SETTING,
    baselines,
    find_example,
    group_settings,
)
from experiments.report.run import Run
from experiments.report.words import CAPTIONS
from experiments.study.config import MODES
from experiments.study.grid import CLIPS
from experiments.study.names import MODE_NAMES
from experiments.tables import emd_text
from snnjax.report import charts
from snnjax.runs import MissingArraysError


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure with its caption; one that cannot be drawn has only the caption."""

    name: str
    chart: alt.TopLevelMixin | None
    caption: str


def draw_run(run: Run, only: Sequence[str] = ()) -> list[Picture]:
    """Draw all figures of one run that its rows allow, or those of some names."""
    if run.judged_main["full"].all():
        return []
    makers = {
        "over_bits": lambda: [_picture("over_bits", draw_over_bits({run.name: run}))],
        "layers": lambda: [_picture("layers", draw_layer_map(run))],
        "rates": lambda: _draw_firing(run),
    }
    wanted = [make for name, make in makers.items() if name in only or not only]
    return [picture for make in wanted for picture in make()]


def draw_runs(runs: Sequence[Run]) -> list[Picture]:
    """Draw accuracy and EMD of several runs side by side, a figure a mode."""
    drawn = []
    for mode in MODES:
        some = {r.name: r for r in runs if (r.judged_main["mode"] == mode).any()}
        if some:
            caption = f"{MODE_NAMES[mode]}, a column a run. {CAPTIONS['over_bits']}"
            chart = draw_over_bits(some, mode)
            drawn.append(Picture(f"over_bits_{mode}", chart, caption))
    return drawn


def _picture(name: str, chart: alt.TopLevelMixin) -> Picture:
    return Picture(name, chart, CAPTIONS[name])


def draw_over_bits(runs: dict[str, Run], mode: str = "") -> alt.TopLevelMixin:
    """Draw the modes of one run side by side, or one mode of several runs."""
    parts = [
        _over_bits(run, each, name if mode else MODE_NAMES[each])
        for name, run in runs.items()
        for each in ([mode] if mode else MODES)
    ]
    return charts.draw_over_bits(pd.concat([part for part in parts if len(part)]))


def _over_bits(run: Run, mode: str, panel: str) -> pd.DataFrame:
    """Return the means of a mode's settings over the seeds that all of them have.

    Seeds differ in their baselines: a mean of two beside one of one would show that.
    The ends are those of all seeds.
    """
    main = run.judged_main
    rows = main[main["mode"] == mode]
    if not len(rows):
        return rows
    of_setting = rows.groupby(SETTING)["seed"].agg(frozenset)
    seeds = frozenset.intersection(*of_setting) or frozenset(rows["seed"])
    found = group_settings(rows[rows["seed"].isin(seeds)]).set_index("setting")
    ends = rows.groupby("setting")[["accuracy", "emd_mean"]].agg(["min", "max"])
    ends.columns = [
        f"{key}_{end}" for key in ("accuracy", "emd") for end in ("low", "high")
    ]
    bases = baselines(main)
    own = bases[bases["seed"].isin(seeds)] if bases["seed"].isin(seeds).any() else bases
    best = own.set_index("seed")["accuracy"]
    if mode == "qat":
        control = main[main["mode"] == "control"].drop_duplicates("seed")
        control = control.set_index("seed")["accuracy"]
        best = np.fmax(best, control.reindex(best.index))
    second = np.where(
        found["target"] == "membrane",
        ~found["signed"].astype(bool),
        found["clip"] != CLIPS["narrow"],
    )
    frame = found[["bits", "accuracy"]].assign(
        mode=panel,
        method=found["way"],
        family=found["target"] + found["method"] + found["grid"].fillna(""),
        variant=np.where(second, "second", "first"),
        emd=found["emd_mean"],
        baseline=best.mean(),
        margin=rows["margin"].max(),
    )
    return frame.astype({"bits": int}).join(ends)


def draw_layer_map(run: Run) -> alt.TopLevelMixin:
    """Draw the EMD of layers in all settings, means over seeds, and in the control."""
    main = run.judged_main
    quantized = main[~main["full"]]
    order = quantized.drop_duplicates("setting")
    way = order["way"].map({w: i for i, w in enumerate(order["way"].unique())})
    order = order.assign(at=way).sort_values(["at", "bits"])["setting"]
    control = main[(main["mode"] == "control") & main["seed"].isin(quantized["seed"])]
    some = [
        control.assign(mode=mode, setting="control") for mode in set(quantized["mode"])
    ]
    rows = pd.concat([*some, quantized], ignore_index=True)
    names = list(run.rows[0]["emd"])
    layers = pd.DataFrame(list(rows["emd"]), columns=names, dtype=float)
    means = rows[SETTING].join(layers).groupby(SETTING, sort=False)[names].mean()
    found = means.rename_axis(columns="layer").stack().rename("emd").reset_index()
    ranks = {"mode": list(MODES), "setting": ["control", *order], "layer": names}
    for key, values in ranks.items():
        found[key] = pd.Categorical(found[key], values, ordered=True)
    found = found.sort_values(list(ranks)).astype(dict.fromkeys(ranks, object))
    found["mode"] = found["mode"].map(MODE_NAMES)
    margin = quantized["margin"].max()
    return charts.map_layers(
        found.rename(columns={"setting": "configuration"}),
        margin=float(margin) if margin > 0 else None,
    )


def _draw_firing(run: Run) -> list[Picture]:
    """Draw the rates of the network that drifted most, and of its baseline."""
    main = run.judged_main
    shown = find_example(main)
    base = main[(main["mode"] == "fp32") & (main["seed"] == shown["seed"])]
    firing = {}
    for name, row in {"baseline": base[:1], shown["label"]: shown.to_frame().T}.items():
        try:
            (spec,) = row.to_dict("records")
            firing[name] = run.folder.firing(spec).counts.rates()
        except (ValueError, MissingArraysError):  # a copy without firing/
            text = f"No histograms of rates: no spike counts of {name}."
            return [Picture("rates", None, text)]
    before, now = firing.values()
    flow = charts.tabulate_flow(before, now, shown["label"])
    flow["network"] += f", EMD {emd_text(flow['work'].sum())}"
    return [
        _picture("rates", charts.draw_rates(charts.tabulate_rates(firing))),
        _picture("flows", charts.draw_flows(flow)),
    ]
