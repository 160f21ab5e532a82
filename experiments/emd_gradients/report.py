"""Make the tables and figures from the rows alone."""

from collections.abc import Sequence
from pathlib import Path

import altair as alt
import pandas as pd

from experiments.tables import emd_text, markdown_table, spread
from snnjax.report import charts
from snnjax.runs import Row

POINT = 0.01  # of accuracy
_MEASURES = {
    "value / W1": "value_over_w1",
    "direction": "cosine",
    "descent": "descent",
    "noise": "gradient_noise",
}


def make_files(rows: Sequence[Row]) -> dict[str, bytes]:
    """Return ``{path: contents}`` of the report."""
    found = {"emd_gradients.md": to_markdown(rows).encode()}
    costs = [row for row in rows if row["part"] == "cost"]
    if costs:
        found["figures/costs.png"] = charts.to_png(draw_costs(costs))
    if len(select_strengths(rows)):
        found["figures/pull.png"] = charts.to_png(draw_corrections(rows))
    return found


def to_markdown(rows: Sequence[Row]) -> str:
    """Return the tables with their explanations."""
    text = "# Differentiable EMD as an estimator and as a training signal\n\n"
    text += "## As an estimator\n\n"
    text += _read("estimators.md") + _tabulate(_estimator_lines(rows))
    text += "\n![Time and memory over neurons](figures/costs.png)\n"
    text += "\n## As a loss\n\n" + _read("losses.md")
    text += _tabulate(_correction_lines(rows))
    text += "\n" + "".join(f"- {sentence}\n" for sentence in findings(rows))
    text += "\n![EMD and paired shift after fine-tuning](figures/pull.png)\n"
    versions = {k: v for row in rows for k, v in row.get("versions", {}).items()}
    text += f"\n{', '.join(f'{k} {v}' for k, v in versions.items())}.\n"
    return text


def _read(name: str) -> str:
    """Read prose that is kept next to this file."""
    return Path(__file__).with_name(name).read_text("utf-8")


def _tabulate(lines: list[dict[str, str]]) -> str:
    return markdown_table(lines, ("loss",)) if lines else "Nothing is measured yet.\n"


def _estimator_lines(rows: Sequence[Row]) -> list[dict[str, str]]:
    costs = {(r["loss"], r["neurons"]): r for r in rows if r["part"] == "cost"}
    sizes = sorted({n for _, n in costs})
    lines = []
    for row in rows:
        if row["part"] != "estimator":
            continue
        line = {"loss": row["loss"]}
        for kind in ("batch", "tied"):
            for title, key in _MEASURES.items():
                line[f"{title}, {kind}"] = f"{row[kind][key]:.2f}"
        for n in sizes:
            ms = costs.get((row["loss"], n), {}).get("ms")
            line[f"ms, {n:,}"] = _two_digits(ms)
        for n in sizes[-1:]:
            used = costs.get((row["loss"], n), {}).get("bytes")
            line[f"MB, {n:,}"] = _two_digits(used and used / 1e6)
        lines.append(line)
    return lines


def _two_digits(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def select_strengths(rows: Sequence[Row]) -> pd.DataFrame:
    """Select each network's rows over seeds, every loss at its best strength.

    By training images: of the strengths that keep the control's accuracy, the one of
    the least EMD.
    """
    done = [row for row in rows if row["part"] == "pull" and "failed" not in row]
    if not done:
        return pd.DataFrame(columns=["loss", "strength"])
    frame = pd.DataFrame(done)
    frame = frame.join(pd.DataFrame(list(frame["train"])).add_prefix("train_"))
    groups = frame.groupby(["loss", "strength"], sort=False, dropna=False)
    means = groups[["train_accuracy", "train_emd_mean"]].mean()
    means = means[groups.size() == groups.size().max()].reset_index()
    control = means.loc[means["loss"] == "control", "train_accuracy"].max()
    lost = means["train_accuracy"] < control - POINT - 1e-9
    kept = means[means["strength"].isna() | ~lost]
    best = kept.loc[kept.groupby("loss", sort=False)["train_emd_mean"].idxmin()]
    order = list(dict.fromkeys(kept["loss"]))
    best = best.set_index("loss").loc[order, ["strength"]].reset_index()
    return best.merge(frame, on=["loss", "strength"], how="left")


def _correction_lines(rows: Sequence[Row]) -> list[dict[str, str]]:
    found = select_strengths(rows)
    if not len(found):
        return []
    pulls = pd.DataFrame([row for row in rows if row["part"] == "pull"])
    edges = pulls.groupby("loss", sort=False)["strength"].agg(["min", "max"])
    lines = []
    for (name, strength), own in found.groupby(
        ["loss", "strength"], sort=False, dropna=False
    ):
        edge = strength in tuple(edges.loc[name])
        text = "-" if pd.isna(strength) else f"{strength:,.0f}{'*' * edge}"
        line = {"loss": name, "strength": text}
        line["accuracy %"] = spread(list(100 * own["accuracy"]), "{:.1f}".format)
        for title, key in (("EMD", "emd_mean"), ("paired shift", "paired_shift_mean")):
            line[title] = spread(list(own[key]), emd_text)
        lines.append(line | {"mean rate": f"{own['mean_rate'].mean():.4f}"})
    blank = dict.fromkeys(lines[0], "-") | {"strength": "none kept accuracy"}
    failed = [name for name in edges.index if name not in set(found["loss"])]
    return lines + [blank | {"loss": name} for name in failed]


def findings(rows: Sequence[Row]) -> list[str]:
    """Compare each loss with the control by EMD and paired shift."""
    found = select_strengths(rows)
    if not {"control", "baseline"} <= set(found["loss"]):
        return []
    means = found.groupby("loss")[["emd_mean", "paired_shift_mean"]].mean()
    ratios = means / means.loc["control"].clip(lower=1e-12)
    noise = found.loc[found["loss"] == "baseline", "floor_sampling"].mean()
    sentences = [f"EMDs up to {emd_text(noise)} are within the choice of test images."]
    control = found.loc[found["loss"] == "control", "emd_mean"].to_numpy()
    for name, own in found.dropna(subset="strength").groupby("loss", sort=False):
        emd, paired = ratios.loc[name]
        below = (own["emd_mean"].to_numpy() < control).sum()
        sentence = (
            f"{name}: EMD {emd:.2f} times the control's (lower in {below} of "
            f"{len(own)} seeds), paired shift {paired:.2f} times"
        )
        if emd < 0.9 and paired > 0.95:
            sentence += ": it restores the distribution, and not single neurons"
        elif emd < 0.9:
            sentence += ": it restores single neurons as well"
        sentences.append(sentence + ".")
    return sentences


def draw_costs(costs: Sequence[Row]) -> alt.TopLevelMixin:
    """Draw milliseconds and megabytes over neurons, a line a loss."""
    frame = pd.DataFrame(costs).assign(mb=lambda f: f["bytes"].astype(float) / 1e6)
    names = list(dict.fromkeys(frame["loss"]))
    marks = {"title": None, "sort": names}
    base = alt.Chart(frame, width=340, height=260).encode(
        x=alt.X("neurons:Q", title="neurons").scale(type="log").axis(format="~s"),
        color=alt.Color("loss:N", **marks).scale(range=charts.COLOURS, domain=names),
        shape=alt.Shape("loss:N", **marks).scale(range=charts.SHAPES, domain=names),
    )
    return alt.hconcat(
        *(
            base.transform_filter(f"isValid(datum.{key})")
            .mark_line(point={"filled": True, "size": 40})
            .encode(
                y=alt.Y(f"{key}:Q", title=f"{unit}, value and gradient")
                .scale(type="log")
                .axis(format=".3~g", labelOverlap=True)
            )
            for key, unit in (("ms", "ms"), ("mb", "MB"))
        )
    )


def draw_corrections(rows: Sequence[Row]) -> alt.TopLevelMixin:
    """Draw EMD, paired shift and accuracy after fine-tuning, a point a seed."""
    frame = select_strengths(rows).query("loss != 'baseline'")
    frame = frame[["loss", "emd_mean", "paired_shift_mean", "accuracy"]]
    frame = frame.assign(accuracy=100 * frame["accuracy"])
    y = alt.Y("loss:N", sort=list(dict.fromkeys(frame["loss"])), title=None).axis(
        labelLimit=260
    )
    base = alt.Chart(frame, width=200, height={"step": 22})
    panels = []
    for key, title in (
        ("emd_mean", "EMD to the baseline"),
        ("paired_shift_mean", "paired shift"),
        ("accuracy", "accuracy, %"),
    ):
        x = (
            alt.X(f"{key}:Q", title=title)
            .scale(zero=key != "accuracy")
            .axis(tickCount=4)
        )
        mean = base.encode(x=f"mean({key}):Q")
        control = mean.transform_filter("datum.loss == 'control'").mark_rule(
            strokeDash=[3, 2], color=charts.GREY
        )
        seeds = base.mark_point(size=45).encode(x=x, y=y)
        means = mean.mark_tick(thickness=3).encode(y=y)
        panels.append(alt.layer(control, seeds, means))
    return alt.hconcat(*panels)
