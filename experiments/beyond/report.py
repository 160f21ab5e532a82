"""Make the page from the rows alone."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from experiments.beyond import arms, figures, losses, tuning
from experiments.beyond.config import BeyondConfig
from experiments.sampling import half_width
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
# Parts whose rows are many: their titles on the page of details.
_IN_DETAIL = {"ptq": "Calibrated after quantization", "qat": "Trained with it"}
# What each figure shows, for those who cannot see it.
_ALT = {
    "ptq": "Each arm's drift and accuracy beside PTQ+BN, a point a quantizer",
    "qat": "Each arm's drift and accuracy beside plain training, a point a quantizer",
    "memory": "Drift over bits a weight, a line an allocation",
    "inputs": "Drift over the number of images",
}
BOTH = ("emd_mean", "paired_shift_mean")
# What no loss optimised, by column.
_BESIDE = {
    "time-W1": "time_w1_mean",
    "latency": "latency_emd_mean",
    "noisy EMD": "corrupted_emd_mean",
    "noisy paired": "corrupted_paired_shift_mean",
}
# A network below this accuracy is dead, not quantized: no ratio to it says anything.
DEAD = 0.6


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
    if part in _IN_DETAIL:
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
    text = _read("head.md").format(
        dataset=DATASET_NAMES[config.dataset],
        width=config.width,
        images=config.images,
        details=f"{name}_details.md",
    )
    base = _baselines(rows)
    for part, first in _FIRST.items():
        mine = _comparable(rows, part)
        text += _read(f"{part}.md").format(
            epochs=config.qat_epochs,
            images=config.images,
            details=f"{name}_details.md",
        )
        if not mine:
            text += "Nothing is measured yet.\n\n"
            continue
        found = list_failed(rows, part)
        if part in _IN_DETAIL:
            text += markdown_table(_summary_lines(compare_arms(mine, first)), _TEXT)
        else:
            text += markdown_table(_lines(mine, base, first), _TEXT)
        if part == "qat":
            tuned = [row for row in rows if row["part"] == "tune"]
            found += judge_losses(mine) + list_numbers(mine, tuned)
        text += "\n" + "".join(f"- {sentence}\n" for sentence in found)
        text += f"\n![{_ALT[part]}]({name}/{part}.png)\n\n"
    return text + _versions(rows)


def to_details(rows: Sequence[Row], config: BeyondConfig) -> str:
    """Return the page of every row's numbers."""
    text = _read("details.md").format(page=f"{page_name(config)}.md")
    base = _baselines(rows)
    if base:
        text += markdown_table([_baseline_line(row) for row in base]) + "\n"
    for part, title in _IN_DETAIL.items():
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


def list_failed(rows: Sequence[Row], part: str) -> list[str]:
    """Return a sentence on the networks whose loss became NaN or infinite."""
    failed = [row for row in rows if row["part"] == part and "failed" in row]
    names = ", ".join(f"{r['quantizer']} {r['arm']} (seed {r['seed']})" for r in failed)
    return [f"Left out, since the loss was not finite: {names}."] if failed else []


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


def _groups(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Group rows by quantizer and arm, the quantizers together."""
    order = list(dict.fromkeys(row["quantizer"] for row in rows))
    found: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: order.index(row["quantizer"])):
        found.setdefault((row["quantizer"], row["arm"]), []).append(row)
    return found


def _lines(
    rows: Sequence[Row], base: Sequence[Row], first: str
) -> list[dict[str, str]]:
    operations = {row["seed"]: row["operations"] for row in base}
    groups, lines = _groups(rows), []
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


def compare(rows: Sequence[Row], first: Sequence[Row], key: str) -> list[float]:
    """Return a measure over that of the same seed in the arm to compare with."""
    theirs = {row["seed"]: row[key] for row in first if key in row}
    return [
        row[key] / theirs[row["seed"]]
        for row in rows
        if key in row and theirs.get(row["seed"])
    ]


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


def compare_arms(rows: Sequence[Row], first: str) -> pd.DataFrame:
    """Compare each arm with the first one, quantizer by quantizer.

    Returns:
        A row an arm and quantizer: the ratios ``emd_mean`` and ``paired_shift_mean``
        and the difference ``accuracy`` in points, means over seeds; ``below``, True
        where both ratios are below 1 by their intervals; and the ``seeds``. Quantizers
        whose grid does not fit are left out after calibration: scaled, they are others
        of the table once more.
    """
    unfit = [quantizer.name for quantizer in arms.UNFIT]
    rows = [r for r in rows if r["part"] == "qat" or r["quantizer"] not in unfit]
    groups, found = _groups(rows), []
    for (quantizer, arm), own in groups.items():
        theirs = groups.get((quantizer, first), [])
        ratios = {key: compare(own, theirs, key) for key in BOTH}
        if arm == first or not ratios[BOTH[0]]:
            continue
        line: dict[str, Any] = {"arm": arm, "quantizer": quantizer}
        line |= {key: statistics.fmean(values) for key, values in ratios.items()}
        line["accuracy"] = 100 * statistics.fmean(_differences(own, theirs))
        line["below"] = all(map(_is_below_1, ratios.values()))
        line["seeds"] = {row["seed"] for row in own}
        found.append(line)
    columns = ["arm", "quantizer", *BOTH, "accuracy", "below", "seeds"]
    frame = pd.DataFrame(found, columns=columns)
    order = list(dict.fromkeys(arm for _, arm in groups))
    return frame.sort_values("arm", key=lambda arm: arm.map(order.index), kind="stable")


def _is_below_1(values: Sequence[float]) -> bool:
    return statistics.fmean(values) + half_width(values) < 1


def _summary_lines(compared: pd.DataFrame) -> list[dict[str, str]]:
    lines = []
    for arm, own in compared.groupby("arm", sort=False):
        line = {"arm": str(arm), "seeds": list_seeds(set().union(*own["seeds"]))}
        line["quantizers"] = str(len(own))
        for title, key in zip(("EMD", "paired shift"), BOTH, strict=True):
            line[title] = _median(own[key], "{:.2f}")
        line["accuracy, points"] = _median(own["accuracy"], "{:+.2f}")
        line["both below"] = f"{own['below'].sum()} of {len(own)}"
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


def _differences(rows: Sequence[Row], first: Sequence[Row]) -> list[float]:
    theirs = {row["seed"]: row["accuracy"] for row in first}
    return [r["accuracy"] - theirs[r["seed"]] for r in rows if r["seed"] in theirs]


def judge_losses(rows: Sequence[Row]) -> list[str]:
    """Return sentences on `distill.firing`, and on what it leaves to `fire_match`."""
    known = [*losses.LOSSES, *losses.MATCHED_AFTER]
    kept = (losses.KEPT, losses.KEPT_AND_MATCHED)
    others = [
        arm for arm in known if arm not in (losses.PLAIN, *kept, *losses.PARTS_OF_IT)
    ]
    trained = [arm for arm in others if arm not in losses.MATCHED_AFTER]
    groups = _groups(rows)
    return [
        *_judge_arm(groups, losses.KEPT, trained),
        *_judge_arm(groups, losses.KEPT_AND_MATCHED, others),
    ]


def _judge_arm(
    groups: dict[tuple[str, str], list[Row]], arm: str, rivals: Sequence[str]
) -> list[str]:
    """Compare an arm with plain training, and with the best of its rivals."""
    alive, below, beaten, compared = [], [], [], []
    for quantizer in dict.fromkeys(quantizer for quantizer, _ in groups):
        plain = groups.get((quantizer, losses.PLAIN), [])
        ours = groups.get((quantizer, arm), [])
        if not plain or not ours:
            continue
        ratios = [compare(ours, plain, key) for key in BOTH]
        if statistics.fmean(row["accuracy"] for row in plain) >= DEAD:
            alive.append(quantizer)
            if all(map(_is_below_1, ratios)):
                below.append(quantizer)
        others = [
            groups[quantizer, rival] for rival in rivals if (quantizer, rival) in groups
        ]
        seeds = set.intersection(*({r["seed"] for r in x} for x in (ours, *others)))
        if others and seeds:
            compared.append(quantizer)
            if all(
                _mean(ours, key, seeds) < min(_mean(x, key, seeds) for x in others)
                for key in BOTH
            ):
                beaten.append(quantizer)
    if not alive:
        return []
    return [
        f"{arm} is below plain training in both measures, by 95 % intervals over "
        f"seeds, with {len(below)} of the {len(alive)} quantizers that plain training "
        f"does not kill{_but(alive, below)}.",
        f"{arm} is below the best of {'; '.join(rivals)}, each measure's own, in both "
        f"measures with {len(beaten)} of {len(compared)} quantizers"
        f"{_but(compared, beaten)}.",
    ]


def list_numbers(rows: Sequence[Row], tuned: Sequence[Row]) -> list[str]:
    """Return a sentence on the numbers of each loss, and those that tuning chose."""
    chosen = tuning.choose_trials(tuned)
    sentences = []
    for arm in dict.fromkeys(row["arm"] for row in rows if row.get("numbers")):
        if arm not in losses.LOSSES:  # they have the numbers of such a one
            continue
        every = [row["numbers"] for row in rows if row["arm"] == arm]
        used = list(map(dict, dict.fromkeys(tuple(x.items()) for x in every)))
        text = " or ".join(losses.name_numbers(numbers) for numbers in used)
        if arm in chosen and used != [dict(chosen[arm])]:
            text += f"; the tuning chose {losses.name_numbers(chosen[arm])}"
        sentences.append(f"Numbers of {arm}: {text}.")
    if any("tuning" in sentence for sentence in sentences):
        sentences.append(
            "Losses above have other numbers than the tuning chose: they were trained "
            "before it, and this table does not yet decide between them."
        )
    return sentences


def _but(all_of: Iterable[str], those: Sequence[str]) -> str:
    rest = [name for name in all_of if name not in those]
    return f" (not with {', '.join(rest)})" if rest else ""


def _mean(rows: Sequence[Row], key: str, seeds: set[int]) -> float:
    return statistics.fmean(row[key] for row in rows if row["seed"] in seeds)
