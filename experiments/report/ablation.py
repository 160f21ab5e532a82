"""The paper's open choices, one at a time: grid, membrane site, scope."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from experiments.report.evidence import compare_emds
from experiments.report.formats import count, emd_text, points
from experiments.report.names import MODE_NAMES, group_items, is_full, method_name
from experiments.report.pairs import EQUAL, Matched, equal_accuracy_pairs, match_pairs
from experiments.report.run import Run, is_main
from experiments.report.table import Verdict, markdown_table
from experiments.study.config import MODES
from experiments.study.grid import CLIPS, grid, name_row


@dataclasses.dataclass(frozen=True)
class Choice:
    """A choice, and pairs of rows that differ in nothing else."""

    title: str
    one: str
    other: str
    pairs: Sequence[Matched]


def find_choices(run: Run) -> list[Choice]:
    """Return the choices that the run has both sides of, at the ablation's bits."""
    bits = run.config.ablation_bits or run.config.bits
    judged = [v for v in run.judged if v.row["bits"] in bits]
    own = [v for v in judged if is_main(v.row, run.config) and not is_full(v.row)]
    grids = match_pairs(own, "grid", "mid_rise", "mid_tread")
    sites = match_pairs(judged, "site", "post_reset", "pre_fire")
    scopes = match_pairs(judged, "quantize_all", False, True)
    found = [
        Choice("Grid type", "mid-rise", "mid-tread", grids),
        Choice("Membrane site", "post-reset", "pre-fire", sites),
        Choice("Scope", "blocks", "everywhere", scopes),
    ]
    return [choice for choice in found if choice.pairs]


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
    lines = [_line(choice, *pair) for pair in choice.pairs]
    table = markdown_table(lines, ("method", "mode"))
    return f"{describe_effect(choice)}\n{describe_hidden_drift(choice)}\n\n{table}"


def describe_effect(choice: Choice) -> str:
    """Describe mean and range of what the other side changes, by mode and bits."""

    def key(pair: Matched) -> tuple[int, int, float]:
        row = pair[0].row
        # The grids' levels, and so their effect, depend on the clip.
        clip = row["clip"] if choice.title == "Grid type" else 0.0
        return MODES.index(row["mode"]), row["bits"], clip

    names = {bound: f", {name}" for name, bound in CLIPS.items()}
    sentences = []
    for (mode, bits, clip), some in sorted(group_items(choice.pairs, key).items()):
        alive = [p for p in some if all(v.state != "collapsed" for v in p)]
        text = f"By {MODE_NAMES[MODES[mode]]} at {bits} bits{names.get(clip, '')}, "
        text += f"{choice.other} in place of {choice.one}, {_summarize(some)}"
        if alive and len(alive) < len(some):
            text += f"; {_summarize(alive)}, without the pairs of which at least one "
            text += "collapsed"
        elif not alive:
            where = "in each pair at least one"
            text += (
                f"; {where if len(some) > 1 else 'at least one of the two'} collapsed"
            )
        sentences.append(f"- {text}.")
    return "\n".join(sentences)


def describe_hidden_drift(choice: Choice) -> str:
    """Describe in how many pairs accuracy hides the choice's effect on firing."""
    pairs = [
        pair
        for two in choice.pairs
        for pair in equal_accuracy_pairs(two)
        if pair.keeps_accuracy
    ]
    text = (
        f"- Of {count(len(choice.pairs), 'pair')} {len(pairs)} keep accuracy within a "
        f"point, and within {100 * EQUAL:g} of each other"
    )
    if not pairs:
        return f"{text}: accuracy hides nothing of this choice."
    lower = [two for pair in pairs if (two := pair.by_lower).hides]
    text += (
        f"; there accuracy hides a drift in {sum(pair.hides for pair in pairs)} by the "
        f"noise floor, in {len(lower)} by the lower one"
    )
    if lower:
        furthest = max(lower, key=lambda pair: pair.ratio)
        text += f"; the furthest apart: {furthest.summary}"
    return f"{text}."


def _summarize(some: Sequence[Matched]) -> str:
    points = _changes(some, lambda v: 100 * v.row["accuracy"], "{:+.2f}".format)
    firing = _changes(some, lambda v: v.row["emd_mean"], _signed)
    beyond = sum(compare_emds(*pair) != 0 for pair in some)
    lower = sum(compare_emds(*(v.by_lower for v in pair)) != 0 for pair in some)
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


def _changes(
    pairs: Sequence[Matched],
    value: Callable[[Verdict], float],
    text: Callable[[float], str],
) -> list[str]:
    """Return mean, minimum and maximum of what the other side changes, as text."""
    found = [value(other) - value(one) for one, other in pairs]
    return [text(x) for x in (statistics.fmean(found), min(found), max(found))]


def _signed(emd: float) -> str:
    return f"{'-' if emd < 0 else '+'}{emd_text(abs(emd))}"


def _line(choice: Choice, one: Verdict, other: Verdict) -> dict[str, Any]:
    accuracies = [100 * v.row["accuracy"] for v in (one, other)]
    emds = [v.row["emd_mean"] for v in (one, other)]
    name = method_name(one.row)
    if choice.title == "Grid type":
        name = name.replace(f" {choice.one}", "")
    return {
        "method": name,
        "bits": str(one.row["bits"]),
        "mode": MODE_NAMES[one.row["mode"]],
        "seed": str(one.row["seed"]),
        f"accuracy %, {choice.one}": points(one.row["accuracy"]),
        choice.other: points(other.row["accuracy"]),
        "change": f"{accuracies[1] - accuracies[0]:+.2f}",
        f"EMD, {choice.one}": emd_text(emds[0]),
        f"{choice.other} ": emd_text(emds[1]),
        "change ": _signed(emds[1] - emds[0]),
    }
