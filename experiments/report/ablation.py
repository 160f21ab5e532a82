"""The paper's open choices, one at a time: grid, membrane site, scope."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pandas as pd

from experiments.report.formats import (
    count,
    emd_text,
    markdown_table,
    points,
    signed_emd,
)
from experiments.report.names import MODE_NAMES
from experiments.report.pairs import EQUAL, Pairs, match_pairs
from experiments.report.run import Run
from experiments.study.config import MODES
from experiments.study.grid import CLIPS, grid, name_row


@dataclasses.dataclass(frozen=True)
class Choice:
    """A choice, and pairs of rows that differ in nothing else."""

    title: str
    one: str
    other: str
    pairs: Pairs


def find_choices(run: Run) -> list[Choice]:
    """Return the choices that the run has both sides of, at the ablation's bits."""
    bits = run.config.ablation_bits or run.config.bits
    judged = run.judged[run.judged["bits"].isin(bits)]
    own = run.judged_main[run.judged_main["bits"].isin(bits)]
    grids = match_pairs(own, "grid", "mid_rise", "mid_tread")
    sites = match_pairs(judged, "site", "post_reset", "pre_fire")
    scopes = match_pairs(judged, "quantize_all", False, True)
    found = [
        Choice("Grid type", "mid-rise", "mid-tread", grids),
        Choice("Membrane site", "post-reset", "pre-fire", sites),
        Choice("Scope", "blocks", "everywhere", scopes),
    ]
    return [choice for choice in found if len(choice.pairs)]


def describe_missing(run: Run) -> list[str]:
    """Explain of each choice without all its pairs why they are missing."""
    done, sentences = {name_row(row) for row in run.rows}, []
    for title, is_other in (
        ("Membrane site", lambda row: row["site"] not in (None, run.config.site)),
        ("Scope", lambda row: row["quantize_all"] != run.config.quantize_all),
    ):
        rows = [row for row in (s.to_row() for s in grid(run.config)) if is_other(row)]
        left = sum(name_row(row) not in done for row in rows)
        if not rows:
            sentences.append(f"{title}: not part of this run.")
        elif left:
            sentences.append(f"{title}: {left} of {len(rows)} rows are missing.")
    return sentences


def markdown(choice: Choice) -> str:
    """Describe the choice's effect by mode and bit width, and tabulate its pairs."""
    sides = (side.to_dict("records") for side in (choice.pairs.one, choice.pairs.other))
    lines = [_line(choice, *pair) for pair in zip(*sides, strict=True)]
    table = markdown_table(lines, ("method", "mode"))
    return f"{describe_effect(choice)}\n{describe_hidden_drift(choice)}\n\n{table}"


def describe_effect(choice: Choice) -> str:
    """Describe mean and range of what the other side changes, by mode and bits."""
    one = choice.pairs.one
    # The grids' levels, and so their effect, depend on the clip.
    clip = one["clip"] if choice.title == "Grid type" else one["clip"] * 0
    keys = [one["mode"].map(MODES.index), one["bits"], clip]
    names = {bound: f", {name}" for name, bound in CLIPS.items()}
    sentences = []
    for (mode, bits, clip), rows in one.groupby(keys):
        some = choice.pairs.select(one.index.isin(rows.index))
        alive = some.select(some.collapsed == 0)
        text = f"By {MODE_NAMES[MODES[mode]]} at {bits} bits{names.get(clip, '')}, "
        text += f"{choice.other} in place of {choice.one}, {_summarize(some)}"
        if 0 < len(alive) < len(some):
            text += f"; {_summarize(alive)}, without the pairs of which at least one "
            text += "collapsed"
        elif not len(alive):
            where = "in each pair at least one"
            text += (
                f"; {where if len(some) > 1 else 'at least one of the two'} collapsed"
            )
        sentences.append(f"- {text}.")
    return "\n".join(sentences)


def describe_hidden_drift(choice: Choice) -> str:
    """Describe in how many pairs accuracy hides the choice's effect on firing."""
    pairs = choice.pairs.equal
    pairs = pairs.select(pairs.keeps)
    text = (
        f"- Of {count(len(choice.pairs), 'pair')} {len(pairs)} keep accuracy within a "
        f"point, and within {100 * EQUAL:g} of each other"
    )
    if not len(pairs):
        return f"{text}: accuracy hides nothing of this choice."
    lower = pairs.by_lower.select(pairs.by_lower.hides)
    text += (
        f"; there accuracy hides a drift in {pairs.hides.sum()} by the "
        f"noise floor, in {len(lower)} by the lower one"
    )
    if len(lower):
        text += f"; the furthest apart: {lower.summarize(lower.ratio.idxmax())}"
    return f"{text}."


def _summarize(some: Pairs) -> str:
    accuracy = 100 * (some.other["accuracy"]) - 100 * some.one["accuracy"]
    points = _changes(accuracy, "{:+.2f}".format)
    firing = _changes(some.other["emd_mean"] - some.one["emd_mean"], signed_emd)
    beyond, lower = ((each.signs != 0).sum() for each in (some, some.by_lower))
    if len(some) == 1:
        where = "beyond the noise floor" if beyond else "beyond the lower floor"
        where = where if beyond or lower else "within the floors"
        return (
            f"over 1 pair, changes accuracy by {points[0]} points and EMD by "
            f"{firing[0]}, {where}"
        )
    return (
        f"over {len(some)} pairs, changes accuracy by {points[0]} points on the mean "
        f"({points[1]} to {points[2]}) and EMD by {firing[0]} ({firing[1]} to "
        f"{firing[2]}), beyond the noise floor in {beyond}, beyond the lower one in "
        f"{lower}"
    )


def _changes(found: pd.Series, text: Callable[[float], str]) -> list[str]:
    """Return mean, minimum and maximum as text."""
    return [text(x) for x in (found.mean(), found.min(), found.max())]


def _line(choice: Choice, one: dict[str, Any], other: dict[str, Any]) -> dict[str, str]:
    name = one["way"]
    if choice.title == "Grid type":
        name = name.replace(f" {choice.one}", "")
    return {
        "method": name,
        "bits": str(one["bits"]),
        "mode": MODE_NAMES[one["mode"]],
        "seed": str(one["seed"]),
        f"accuracy %, {choice.one}": points(one["accuracy"]),
        choice.other: points(other["accuracy"]),
        "change": f"{100 * other['accuracy'] - 100 * one['accuracy']:+.2f}",
        f"EMD, {choice.one}": emd_text(one["emd_mean"]),
        f"{choice.other} ": emd_text(other["emd_mean"]),
        "change ": signed_emd(other["emd_mean"] - one["emd_mean"]),
    }
