"""Make the page from the rows alone."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import altair as alt
import pandas as pd

from experiments.beyond import arms, figures, findings, losses, tuning
from experiments.beyond.comparison import BOTH, compare, compare_arms, group_by_arm
from experiments.beyond.config import BeyondConfig
from experiments.sampling import half_width
from experiments.study import recipe
from experiments.study.names import DATASET_NAMES
from experiments.tables import (
    emd_text,
    list_seeds,
    markdown_table,
    points,
    spread,
)
from snnjax.report import charts
from snnjax.runs import Row

_TEXT = ("quantizer", "arm", "loss")
# Of each part, the arm that others are compared with.
_FIRST = {"ptq": arms.PTQ_BN, "qat": losses.PLAIN, "memory": arms.SAME_BITS}
_FIRST["inputs"] = list(arms.INPUTS)[4]
# Parts whose rows are many: the page has their medians.
_MANY = ("ptq", "qat")
# Titles on the page of details.
_TITLES = {
    "ptq": "Calibrated after quantization",
    "qat": "Trained with quantization",
    "memory": "Bits at equal memory",
    "inputs": "How many inputs, and of what kind",
}
# What the page has of the rows of the others.
_BRIEF = {key: key for key in ("quantizer", "arm", "seeds", "accuracy %")}
_BRIEF |= {"ratio": "EMD", "ratio of it": "paired shift"}
# What each figure shows, for those who cannot see it.
_ALT = {
    "ptq": "Each arm's drift and accuracy beside PTQ+BN, a point a quantizer",
    "qat": "Each arm's drift and accuracy beside plain training, a point a quantizer",
    "memory": "Drift over bits a weight, a line an allocation",
    "inputs": "Drift over the number of images",
}
# What no loss optimised, by column.
_BESIDE = {
    "time-W1": "time_w1_mean",
    "latency": "latency_emd_mean",
    "noisy EMD": "corrupted_emd_mean",
    "noisy paired": "corrupted_paired_shift_mean",
}


def make_files(rows: Sequence[Row], config: BeyondConfig) -> dict[str, bytes]:
    """Return ``{path: contents}`` of the page, that of its rows, and the figures."""
    name = page_name(config)
    files = {
        f"{name}.md": to_markdown(rows, config).encode(),
        f"{name}_details.md": to_details(rows, config).encode(),
    }
    for part in _FIRST:
        if mine := _comparable(rows, part):
            files[f"{name}/{part}.png"] = charts.to_png(_draw(part, mine))
    return files


def page_name(config: BeyondConfig) -> str:
    """Return the name of the page: of digits, or with that of the data set."""
    return "beyond" + f"_{config.dataset}" * (config.dataset != "digits")


def _draw(part: str, rows: Sequence[Row]) -> alt.TopLevelMixin:
    if part in _MANY:
        return figures.draw_arms(compare_arms(rows, _FIRST[part]), _FIRST[part])
    return {"memory": figures.draw_memory, "inputs": figures.draw_inputs}[part](rows)


def _measured(rows: Sequence[Row], part: str) -> list[Row]:
    return [row for row in rows if row["part"] == part and "failed" not in row]


def _comparable(rows: Sequence[Row], part: str) -> list[Row]:
    """Return the rows of a part; none before there is an arm beside the first."""
    found = _measured(rows, part)
    return [] if compare_arms(found, _FIRST[part]).empty else found


def to_markdown(rows: Sequence[Row], config: BeyondConfig) -> str:
    """Return the page: what calibration restores, and what training preserves."""
    name = page_name(config)
    family = "digits" if config.dataset == "digits" else "cifar"
    text = _read("head.md").format(
        dataset=DATASET_NAMES[config.dataset],
        width=config.width,
        images=config.images,
        details=f"{name}_details.md",
    )
    base, missing = _baselines(rows), []
    for part, first in _FIRST.items():
        mine = _comparable(rows, part)
        if not mine:
            missing.append(_TITLES[part].lower())
            continue
        text += _read(f"{part}.md").format(
            epochs=config.qat_epochs,
            many="s" * (config.qat_epochs > 1),
            trained_on=_name_images(config),
            more=_read(f"qat_{family}.md").strip(),
            images=config.images,
            details=f"{name}_details.md",
            **_describe_calibrated(mine, config),
        )
        found = findings.list_failed(rows, part)
        if part in _MANY:
            text += markdown_table(_summary_lines(compare_arms(mine, first)), _TEXT)
        else:
            lines = _lines(mine, base, first)
            brief = [{title: x[key] for key, title in _BRIEF.items()} for x in lines]
            text += markdown_table(brief, _TEXT)
        if part == "qat":
            tuned = [row for row in rows if row["part"] == "tune"]
            found += findings.judge_losses(mine)
            found += findings.list_numbers(mine, tuned)
        text += "\n" + "".join(f"- {sentence}\n" for sentence in found)
        text += f"\n![{_ALT[part]}]({name}/{part}.png)\n\n"
    if missing:
        text += f"Not measured yet: {'; '.join(missing)}.\n\n"
    return text + _versions(rows)


def _describe_calibrated(rows: Sequence[Row], config: BeyondConfig) -> dict[str, str]:
    """Return what the text on calibration says of its own rows."""
    unfit = {quantizer.name for quantizer in arms.UNFIT}
    names = dict.fromkeys(row["quantizer"] for row in rows)
    alone = [name for name in names if name in unfit]
    fit = [name for name in names if name not in unfit]
    text = f" {' and '.join(alone)} are on the page of every row alone: scaled, they "
    text += "are grids of this table once more."
    return {
        "crops": " (on crops, as training saw them)" * recipe.augments(config.study()),
        "quantizers": ", ".join(fit) if len(fit) < 4 else f"{len(fit)} quantizers",
        "unfit": text if alone else "",
    }


def _name_images(config: BeyondConfig) -> str:
    if config.train_images is None:
        return "the training images"
    return f"{config.train_images:,} training images"


def to_details(rows: Sequence[Row], config: BeyondConfig) -> str:
    """Return the page of every row's numbers."""
    text = _read("details.md").format(
        dataset=DATASET_NAMES[config.dataset], page=f"{page_name(config)}.md"
    )
    base = _baselines(rows)
    if base:
        text += markdown_table([_baseline_line(row) for row in base]) + "\n"
    for part, title in _TITLES.items():
        if mine := _measured(rows, part):
            text += f"## {title}\n\n"
            text += markdown_table(_lines(mine, base, _FIRST[part]), _TEXT) + "\n"
    if tuned := _measured(rows, "tune"):
        text += _read("tune.md") + markdown_table(_tuning_lines(tuned), _TEXT) + "\n"
    return text + _versions(rows)


def _baselines(rows: Sequence[Row]) -> list[Row]:
    return [
        row
        for row in rows
        if row["part"] == "fp32" and row["seed"] not in arms.TUNING_SEEDS
    ]


def _versions(rows: Sequence[Row]) -> str:
    versions = {k: v for row in rows for k, v in row.get("versions", {}).items()}
    return f"{', '.join(f'{k} {v}' for k, v in versions.items())}.\n"


def _read(name: str) -> str:
    """Read prose that is kept next to this file."""
    return Path(__file__).with_name(name).read_text("utf-8")


def _baseline_line(row: Row) -> dict[str, str]:
    return {
        "seed": str(row["seed"]),
        "accuracy %": points(row["accuracy"]),
        "mean rate": f"{row['mean_rate']:.4f}",
        "EMD by other images": emd_text(row["floor_sampling"]),
        "operations": f"{row['operations']:,.0f}",
    }


def _tuning_lines(rows: Sequence[Row]) -> list[dict[str, str]]:
    chosen, lines = tuning.choose_trials(rows), []
    for trial, found in tuning.score_trials(rows).items():
        arm, numbers = losses.TRIALS[trial]
        lines.append(
            {
                "loss": trial,
                "accuracy": f"{100 * found['accuracy']:+.2f}",
                "EMD ratio": f"{found['emd_mean']:.2f}",
                "paired ratio": f"{found['paired_shift_mean']:.2f}",
                "score": f"{found['score']:.3f}",
                "chosen": "yes" if chosen[arm] == numbers else "",
            }
        )
    return lines


def _lines(
    rows: Sequence[Row], base: Sequence[Row], first: str
) -> list[dict[str, str]]:
    operations = {row["seed"]: row["operations"] for row in base}
    groups, lines = group_by_arm(rows), []
    beside = {
        column: key
        for column, key in _BESIDE.items()
        if any(key in row for row in rows)
    }
    for (quantizer, arm), found in groups.items():
        theirs = groups.get((quantizer, first), [])
        more = [row["operations"] / operations[row["seed"]] for row in found]
        line = {
            "quantizer": quantizer,
            "arm": arm,
            "seeds": list_seeds({row["seed"] for row in found}),
            "accuracy %": spread([r["accuracy"] for r in found], points),
            "EMD": spread([r["emd_mean"] for r in found], emd_text),
            "ratio": interval_text(compare(found, theirs, "emd_mean")),
            "paired shift": spread([r["paired_shift_mean"] for r in found], emd_text),
            "ratio of it": interval_text(compare(found, theirs, "paired_shift_mean")),
        }
        for column, key in beside.items():
            ratios = compare(found, theirs, key)
            line[column] = f"{statistics.fmean(ratios):.2f}" if ratios else "-"
        line["operations"] = f"{statistics.fmean(more):.3f}"
        line["seconds"] = f"{statistics.fmean(r['seconds'] for r in found):.0f}"
        lines.append(line)
    return lines


def interval_text(values: Sequence[float]) -> str:
    """Print a mean ratio with half of its 95 % interval.

    >>> interval_text([0.5, 0.6, 0.7])
    '0.60 ± 0.25'
    """
    if not values:
        return "-"
    text = f"{statistics.fmean(values):.2f}"
    same = len(values) < 2 or not statistics.stdev(values)
    return text if same else f"{text} ± {half_width(values):.2f}"


def _summary_lines(compared: pd.DataFrame) -> list[dict[str, str]]:
    lines = []
    for arm, own in compared.groupby("arm", sort=False):
        line = {"arm": str(arm), "seeds": list_seeds(set().union(*own["seeds"]))}
        line["quantizers"] = str(len(own))
        for title, key in zip(("EMD", "paired shift"), BOTH, strict=True):
            line[title] = _median(own[key], "{:.2f}")
        line["accuracy, points"] = _median(own["accuracy"], "{:+.2f}")
        several = own["seeds"].map(len).max() > 1  # of one there is no interval
        line["both below"] = f"{own['below'].sum()} of {len(own)}" if several else "-"
        lines.append(line)
    return lines


def _median(values: pd.Series, form: str) -> str:
    """Print a median and the range.

    >>> _median(pd.Series([0.5, 0.25, 1.0]), "{:.2f}")
    '0.50 (0.25 to 1.00)'
    """
    text = form.format(values.median())
    if len(values) > 1:
        text += f" ({form.format(values.min())} to {form.format(values.max())})"
    return text
