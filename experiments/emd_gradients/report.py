"""Make the tables and figures from the rows alone."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

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
    if select_strengths(rows):
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


def group_items(
    items: Iterable[Any], key: Callable[[Any], Any]
) -> dict[Any, list[Any]]:
    """Group items by their key, in the order in which keys appear.

    >>> group_items([1, 2, 3], lambda n: n % 2)
    {1: [1, 3], 0: [2]}
    """
    groups: dict[Any, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


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


def select_strengths(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Select each network's rows over seeds, every loss at its best strength."""
    done = (row for row in rows if row["part"] == "pull" and "failed" not in row)
    runs = group_items(done, lambda row: (row["loss"], row["strength"]))
    seeds = max((len(some) for some in runs.values()), default=0)
    runs = {key: some for key, some in runs.items() if len(some) == seeds}
    control = runs.get(("control", None))
    found: dict[str, list[Row]] = {}
    for (name, strength), some in runs.items():
        if strength is None:
            found[name] = some
            continue
        kept = control is None or mean_on_training(some, "accuracy") >= (
            mean_on_training(control, "accuracy") - POINT - 1e-9
        )
        emds = [mean_on_training(r, "emd_mean") for r in (some, found.get(name, some))]
        if kept and (name not in found or emds[0] < emds[1]):
            found[name] = some
    return found


def mean_on_training(rows: Sequence[Row], key: str) -> float:
    """Return the mean over seeds on training images, which selects strengths."""
    return statistics.fmean(row["train"][key] for row in rows)


def mean(rows: Sequence[Row], key: str) -> float:
    """Return the mean over seeds."""
    return statistics.fmean(row[key] for row in rows)


def _correction_lines(rows: Sequence[Row]) -> list[dict[str, str]]:
    found, lines = select_strengths(rows), []
    pulls = pd.DataFrame([row for row in rows if row["part"] == "pull"])
    if not found:
        return []
    edges = pulls.groupby("loss", sort=False)["strength"].agg(["min", "max"])
    for name, some in found.items():
        strength = some[0]["strength"]
        edge = strength in tuple(edges.loc[name])
        lines.append(
            {
                "loss": name,
                "strength": "-" if strength is None else f"{strength:,.0f}{'*' * edge}",
                "accuracy %": spread([100 * r["accuracy"] for r in some], _one_decimal),
                "EMD": spread([r["emd_mean"] for r in some], emd_text),
                "paired shift": spread(
                    [r["paired_shift_mean"] for r in some], emd_text
                ),
                "mean rate": f"{mean(some, 'mean_rate'):.4f}",
            }
        )
    blank = dict.fromkeys(lines[0], "-") | {"strength": "none kept accuracy"}
    return lines + [blank | {"loss": name} for name in edges.index if name not in found]


def _one_decimal(value: float) -> str:
    return f"{value:.1f}"


def findings(rows: Sequence[Row]) -> list[str]:
    """Compare each loss with the control by EMD and paired shift."""
    found = select_strengths(rows)
    control = found.get("control")
    if control is None or "baseline" not in found:
        return []
    floor = mean(found["baseline"], "floor_sampling")
    sentences = [f"EMDs up to {emd_text(floor)} are within the choice of test images."]
    for name, some in found.items():
        if some[0]["strength"] is None:
            continue
        factors = [
            mean(some, key) / max(mean(control, key), 1e-12)
            for key in ("emd_mean", "paired_shift_mean")
        ]
        below = sum(
            row["emd_mean"] < other["emd_mean"]
            for row, other in zip(some, control, strict=True)
        )
        sentence = (
            f"{name}: EMD {factors[0]:.2f} times the control's (lower in {below} of "
            f"{len(some)} seeds), paired shift {factors[1]:.2f} times"
        )
        if factors[0] < 0.9 and factors[1] > 0.95:
            sentence += ": it restores the distribution, and not single neurons"
        elif factors[0] < 0.9:
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
    found = select_strengths(rows)
    found.pop("baseline", None)
    some = [row | {"loss": name} for name, own in found.items() for row in own]
    frame = pd.DataFrame(some)
    frame["accuracy"] = 100 * frame["accuracy"]
    y = alt.Y("loss:N", sort=list(found), title=None).axis(labelLimit=260)
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
