"""A claim of the paper, and what the rules that judge it are made of."""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import pandas as pd

from experiments.report.formats import CLAIMS, emd_text, percent
from experiments.report.judged import by_lower
from experiments.report.names import MODE_NAMES, method_name, setting_name
from experiments.report.pairs import DIFFERENT, Pairs, match_pairs
from experiments.report.run import Run, select_main
from experiments.report.settings import group_settings, split_by_seeds
from experiments.study.grid import grid, name_row

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
UNDECIDED = "not decidable at this size"
UNFINISHED = "not finished yet"
NOT_RUN = "not part of this run"

# Differences of EMD in the paper, at 6 bits and (signs) at 2, by the claim's number.
EQUAL_APART, CLIPS_APART, SIGNS_APART = 0.0063, 0.0059, 0.0040
# A method's accuracy recovers before its EMD if it leads by this share.
LEAD = 0.05
NUMBERS = {
    "DIFFERENT": DIFFERENT,
    "LEAD": f"{100 * LEAD:g}",
    "EQUAL_APART": EQUAL_APART,
    "CLIPS_APART": CLIPS_APART,
}


class Judgement(NamedTuple):
    """A run's numbers beside the paper's, the verdict on a claim, and its reason."""

    ours: str
    verdict: str
    why: str


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        key: of its title, numbers and rule in words.toml.
        rule: judges it, as if no row were missing.
        target, method, mode, bits: of the rows that it rests on; None for any.
        stands: True if it is reproduced even while rows are missing.
    """

    key: str
    rule: Callable[["Evidence"], Judgement]
    target: str | None = None
    method: str | None = None
    mode: str | None = None
    bits: Collection[int] = ()
    stands: bool = False

    @property
    def text(self) -> dict[str, str]:
        """Its title, the paper's numbers, and the rule that judges it."""
        return {k: v.format(**NUMBERS) for k, v in CLAIMS[self.key].items()}


def select(rows: pd.DataFrame, *, bits: Collection[int] = (), **wanted: Any):
    """Return the rows with some values of their columns; None stands for any."""
    for name, value in wanted.items():
        rows = rows if value is None else rows[rows[name] == value]
    return rows[rows["bits"].isin(bits)] if bits else rows


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Rows of a run's own site and scope, by which its claims are judged.

    Attributes:
        run: the run.
        judged: its rows, judged by the noise floors or by the lower ones.
    """

    run: Run
    judged: pd.DataFrame

    @classmethod
    def of_run(cls, run: Run, *, lower: bool) -> "Evidence":
        """Return the evidence of a run."""
        return cls(run, by_lower(run.judged_main) if lower else run.judged_main)

    @functools.cached_property
    def settings(self) -> pd.DataFrame:
        """The rows grouped by what is quantized and how."""
        return group_settings(self.judged)

    @functools.cached_property
    def planned(self) -> pd.DataFrame:
        """The planned rows, finished or not."""
        rows = [spec.to_row() for spec in grid(self.run.config)]
        names = [
            {"way": method_name(r), "setting": setting_name(r), "id": name_row(r)}
            for r in rows
        ]
        columns = ["target", "method", "site", "quantize_all", "bits", "mode", "way"]
        frame = pd.DataFrame(
            [row | name for row, name in zip(rows, names, strict=True)],
            columns=[*columns, "setting", "id"],
            dtype=object,
        )
        done = {name_row(row) for row in self.run.rows}
        frame["done"] = frame["id"].isin(done)
        return select_main(frame, self.run.config)

    def missing(self, wanted: pd.DataFrame) -> tuple[str, str] | None:
        """Return verdict and reason if planned rows are missing; None if none are."""
        left = (~wanted["done"]).sum()
        if not len(wanted):
            return NOT_RUN, "this run has no such rows"
        if left:
            return UNFINISHED, f"{left} of its {len(wanted)} rows are missing"
        return None

    def match(self, option: str, one: Any, other: Any, **wanted: Any) -> Pairs:
        """Return pairs of some rows that differ in one option alone."""
        return match_pairs(select(self.judged, **wanted), option, one, other)

    def format_settings(self, some: pd.DataFrame) -> str:
        """Print accuracy and EMD of settings, of each in the mode that trains most.

        Of the seeds that all of them have: seeds differ in their baselines.
        """
        last = some.drop_duplicates("setting", keep="last")  # modes follow each other
        if not len(last):
            return "not measured"
        # The settings stand in the order in which their names came first.
        names = list(dict.fromkeys(some["setting"]))
        rows = self.judged.merge(last[["mode", "setting"]], on=["mode", "setting"])
        fair, _ = split_by_seeds(rows)
        fair = group_settings(fair).set_index("setting").loc[names].reset_index()
        text = "; ".join(
            f"{s['setting']} {MODE_NAMES[s['mode']]} {percent(s['accuracy'])} / "
            f"{emd_text(s['emd_mean'])}"
            for s in fair.to_dict("records")
        )
        seeds = set(fair["seeds"])
        over = seeds.pop() if len(seeds) == 1 else frozenset()
        named = any(own - over for own in last["seeds"]) and over
        return text + (f" (seed {', '.join(map(str, over))})" if named else "")


def single_seed_note(rows: pd.DataFrame) -> str:
    """Return a note that settings rest on one seed; empty where on several."""
    seeds = rows.groupby("setting")["seed"].agg(["nunique", "min"])
    single = seeds[seeds["nunique"] == 1]
    if not len(single):
        return ""
    some = f"{len(single)} of {len(seeds)} settings " * (len(single) < len(seeds))
    return f"; {some}of seed {single['min'].min()} alone"


def majority(for_it: int, against: int, neither: int) -> str:
    """Return the verdict of pairs: for it more than half, or against it as many as not.

    Reproduced with none against it; not reproduced where those against are at least as
    many as those for it, and as those that decide nothing.
    """
    if not against and for_it > neither:
        return REPRODUCED
    return NOT_REPRODUCED if against and against >= max(for_it, neither) else UNDECIDED


def count_signs(signs: pd.Series) -> tuple[int, int, int]:
    """Return how many are 1, -1 and 0."""
    more, fewer, same = (int((signs == sign).sum()) for sign in (1, -1, 0))
    return more, fewer, same


def max_floor(judged: pd.DataFrame) -> float:
    """Return the highest of the rows' floors; infinite where one is missing."""
    floors = judged.loc[~judged["full"], "floor"]
    return math.inf if floors.isna().any() or not len(floors) else floors.max()
