"""Make the tables and figures from the rows alone."""

import io
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from experiments.report.formats import emd_text, markdown_table
from snnjax.runs import Row

POINT = 0.01  # of accuracy
WIDTH, GREY = 9.6, "#6b6b6b"
STYLE = {
    "font.size": 8.5,
    "text.parse_math": False,  # a run may have dollars in its name
    "axes.titlesize": 9.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
}
# Okabe and Ito's colours, one a family; its members differ by marker and line.
_FAMILIES = {"sorted": "#0072B2", "soft": "#009E73", "Sinkhorn": "#D55E00"}
_MARKERS = "osD^"
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
        found["figures/costs.png"] = png(cost_figure(costs))
    if select_strengths(rows):
        found["figures/pull.png"] = png(correction_figure(rows))
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


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG file, at twice the size it is shown at."""
    file = io.BytesIO()
    # No metadata: the same rows give the same bytes on every machine's clock.
    figure.savefig(file, format="png", dpi=200, metadata={"Software": None})
    return file.getvalue()


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


def _spread(rows: Sequence[Row], key: str) -> float:
    return statistics.stdev(row[key] for row in rows) if len(rows) > 1 else 0.0


def _correction_lines(rows: Sequence[Row]) -> list[dict[str, str]]:
    found, lines = select_strengths(rows), []
    pulls = (row for row in rows if row["part"] == "pull")
    ordered = sorted(pulls, key=lambda row: row["strength"] or 0)
    tried = group_items(ordered, lambda row: row["loss"])
    for name, some in found.items():
        strength = some[0]["strength"]
        edge = strength in (tried[name][i]["strength"] for i in (0, -1))
        text = "-" if strength is None else f"{strength:,.0f}{'*' * edge}"
        line = {"loss": name, "strength": text}
        accuracy, spread = (100 * of(some, "accuracy") for of in (mean, _spread))
        line["accuracy %"] = f"{accuracy:.1f} ± {spread:.1f}"
        for title, key in (("EMD", "emd_mean"), ("paired shift", "paired_shift_mean")):
            values = (emd_text(of(some, key)) for of in (mean, _spread))
            line[title] = " ± ".join(values)
        line["mean rate"] = f"{mean(some, 'mean_rate'):.4f}"
        lines.append(line)
    blank = dict.fromkeys(lines[0], "-") if lines else {}
    failed = [name for name in tried if lines and name not in found]
    none = {"strength": "none kept accuracy"}
    return lines + [blank | {"loss": name} | none for name in failed]


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


def _styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    members: dict[str, int] = {}
    styles = {}
    for name in names:
        family = name.split()[0]
        number = members[family] = members.get(family, -1) + 1
        styles[name] = {
            "color": _FAMILIES.get(family, "#B5579A"),
            "marker": _MARKERS[number % 4],
            "linestyle": ("-", "--", ":")[number % 3],
        }
    return styles


@matplotlib.rc_context(STYLE)
def cost_figure(costs: Sequence[Row]) -> Figure:
    """Draw milliseconds and megabytes over neurons, a line a loss."""
    figure = Figure((WIDTH, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    names = list(dict.fromkeys(row["loss"] for row in costs))
    styles = _styles(names)
    for axis, key, unit, label in (
        (axes[0], "ms", 1, "ms"),
        (axes[1], "bytes", 1e6, "MB"),
    ):
        for name in names:
            some = [r for r in costs if r["loss"] == name and r[key] is not None]
            values = [max(row[key] / unit, 1e-3) for row in some]
            axis.plot([row["neurons"] for row in some], values, **styles[name])
        axis.set(xscale="log", yscale="log", xlabel="neurons")
        axis.yaxis.set_minor_locator(NullLocator())
        axis.set_title(f"{label}, value and gradient", loc="left")
        axis.grid()
    handles = [Line2D([], [], label=name, **styles[name]) for name in names]
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    return figure


@matplotlib.rc_context(STYLE)
def correction_figure(rows: Sequence[Row]) -> Figure:
    """Draw EMD, paired shift and accuracy after fine-tuning, a point a seed."""
    found = select_strengths(rows)
    found.pop("baseline", None)
    names = list(found)
    figure = Figure((WIDTH, 0.9 + 0.34 * len(names)), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    columns = (
        ("emd_mean", "EMD to the baseline", 1),
        ("paired_shift_mean", "paired shift", 1),
        ("accuracy", "accuracy, %", 100),
    )
    styles = _styles(names)
    for axis, (key, title, unit) in zip(axes, columns, strict=True):
        for y, name in enumerate(names):
            values = [unit * row[key] for row in found[name]]
            colour = GREY if name in ("drifted", "control") else styles[name]["color"]
            middle = statistics.fmean(values)
            axis.plot([middle, middle], [y - 0.3, y + 0.3], color=colour, lw=2.4)
            axis.plot(values, [y] * len(values), "o", color=colour, mfc="white", ms=5)
        if "control" in found:
            control = unit * mean(found["control"], key)
            axis.axvline(control, color=GREY, lw=0.8, ls=":")
        axis.set_title(title, loc="left")
        axis.grid(axis="x")
        if key != "accuracy":
            axis.set_xlim(0, 1.05 * max(row[key] for s in found.values() for row in s))
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    return figure
