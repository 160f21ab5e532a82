"""The paper's claims, judged over seeds by the sizes of their effects.

The claims themselves are data, in words.toml: title, the paper's numbers, the rule in
words, and the rows that it rests on (``where``).
"""

import math
from collections.abc import Collection
from typing import Any, NamedTuple

import pandas as pd

from experiments.report import effects
from experiments.report.judged import FEWEST, baselines, has_learned
from experiments.report.run import Run, plan, select_main
from experiments.report.words import CLAIMS
from experiments.tables import count

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
UNDECIDED = "not decidable at this size"
UNFINISHED = "not finished yet"
NOT_RUN = "not part of this run"


class Judgement(NamedTuple):
    """The verdict on a claim, and its reason."""

    verdict: str
    why: str


def select(rows: pd.DataFrame, *, bits: Collection[int] = (), **wanted: Any):
    """Return the rows with some values of their columns."""
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    return rows[rows["bits"].isin(bits)] if bits else rows


def judge_claims(run: Run) -> list[Judgement]:
    """Judge the paper's claims by the run's rows of its own site and scope."""
    planned = select_main(plan(run.rows, run.config), run.config)
    references = planned["target"] == "none"
    unmeasured = int((~planned["done"][references].astype(bool)).sum())
    planned = planned[~references]
    bases = baselines(run.judged_main)[["accuracy", "dataset"]].to_numpy()
    learned = all(has_learned(*base) for base in bases)
    found = []
    for key, measure in effects.MEASURES.items():
        where = CLAIMS[key].get("where", {})
        own, wanted = select(run.judged_main, **where), select(planned, **where)
        if key == "accuracy_first":  # asked of modes with a scale of bits
            widths = planned.groupby("mode")["bits"].transform("nunique")
            wanted = planned[widths > 2]
        left = int((~wanted["done"].astype(bool)).sum()) + unmeasured
        if not len(wanted):
            one = Judgement(NOT_RUN, "this run has no such rows")
        elif not learned:
            one = Judgement(UNDECIDED, "the baseline has not learned")
        elif left:
            one = Judgement(UNFINISHED, f"{count(left, 'row')} still missing")
        else:
            one = _judge(measure(own))
        found.append(one)
    return found


def _judge(found: list[effects.Effect]) -> Judgement:
    """Judge a claim by effects over seeds: by all of them for it, or one against."""
    if not found:
        return Judgement(UNDECIDED, "no settings can be compared")
    signs = {effect.sign for effect in found}
    verdict = NOT_REPRODUCED if -1 in signs else UNDECIDED
    verdict = REPRODUCED if signs == {1} else verdict
    numbers = [count(effect.seeds, "seed") for effect in found]
    if len(set(numbers)) == 1:
        text = f"{'; '.join(map(str, found))}; {numbers[0]}"
    else:
        text = "; ".join(f"{x}, {n}" for x, n in zip(found, numbers, strict=True))
    if verdict == UNDECIDED:
        needed = effects.estimate_deciding_seeds(found)
        if min(effect.seeds for effect in found) < FEWEST:
            text += f", at least {FEWEST} are needed"
        elif math.isfinite(needed):
            text += f", about {math.ceil(needed)} would be needed"
    return Judgement(verdict, text)
