"""A claim of the paper, and what the rules that judge it are made of."""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Sequence

from experiments.report.formats import CLAIMS, emd_text, percent
from experiments.report.names import MODE_NAMES, group_items, setting_name
from experiments.report.pairs import DIFFERENT, Matched
from experiments.report.run import Run, is_main
from experiments.report.settings import Setting, split_by_seeds
from experiments.report.table import Verdict
from experiments.study.config import StudyConfig
from experiments.study.grid import grid, name_row
from snnjax.runs import Row

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
UNDECIDED = "not decidable at this size"
UNFINISHED = "not finished yet"
NOT_RUN = "not part of this run"

# Differences of EMD in the paper, at 6 bits and (signs) at 2, by the claim's number.
EQUAL_APART, CLIPS_APART, SIGNS_APART = 0.0063, 0.0059, 0.0040
# A method's accuracy recovers before its EMD if it leads by this share.
LEAD = 0.05


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim of the paper and its verdict, in markdown.

    Attributes:
        key: of its title, numbers and rule in ``prose.toml``.
        ours: this run's numbers.
        verdict: one of the words above.
        why: the verdict's reason.
    """

    key: str
    ours: str
    verdict: str
    why: str

    @property
    def text(self) -> dict[str, str]:
        """Its title, the paper's numbers, and the rule that judges it."""
        numbers = {"DIFFERENT": DIFFERENT, "LEAD": f"{100 * LEAD:g}"}
        numbers |= {"EQUAL_APART": EQUAL_APART, "CLIPS_APART": CLIPS_APART}
        return {k: v.format(**numbers) for k, v in CLAIMS[self.key].items()}


def planned_rows(config: StudyConfig) -> list[Row]:
    """Return the planned rows of the config's own site and scope."""
    return [row for row in (s.to_row() for s in grid(config)) if is_main(row, config)]


def missing_rows_verdict(
    run: Run, wanted: Callable[[Row], bool]
) -> tuple[str, str] | None:
    """Return verdict and reason if planned rows are missing; None if all are there."""
    planned = [row for row in planned_rows(run.config) if wanted(row)]
    done = {name_row(row) for row in run.main}
    left = sum(name_row(row) not in done for row in planned)
    if not planned:
        return NOT_RUN, "this run has no such rows"
    if left:
        return UNFINISHED, f"{left} of its {len(planned)} rows are missing"
    return None


def single_seed_note(judged: Iterable[Verdict]) -> str:
    """Return a note that settings rest on one seed; empty where on several."""
    settings = group_items((v.row for v in judged), setting_name).values()
    seeds = [{row["seed"] for row in rows} for rows in settings]
    single = [min(own) for own in seeds if len(own) == 1]
    if not single:
        return ""
    some = f"{len(single)} of {len(seeds)} settings " * (len(single) < len(seeds))
    return f"; {some}of seed {min(single)} alone"


def format_settings(some: Sequence[Setting], wanted: Callable[[Row], bool]) -> str:
    """Print accuracy and EMD of settings, of each the mode in which most is trained.

    Of the seeds that all of them have: seeds differ in their baselines.
    """
    last = {s.name: s for s in some if wanted(s.row)}  # modes follow each other
    if not last:
        return "not measured"
    fair, _ = split_by_seeds(list(last.values()))
    text = "; ".join(
        f"{s.name} {MODE_NAMES[s.row['mode']]} {percent(s.mean('accuracy'))} / "
        f"{emd_text(s.mean('emd_mean'))}"
        for s in fair
    )
    seeds = {s.seeds for s in fair}
    over = seeds.pop() if len(seeds) == 1 else frozenset()
    named = any(s.seeds - over for s in last.values()) and over
    return text + (f" (seed {', '.join(map(str, over))})" if named else "")


def majority(for_it: int, against: int, neither: int) -> str:
    """Return the verdict of pairs: for it more than half, or against it as many as not.

    Reproduced with none against it; not reproduced where those against are at least as
    many as those for it, and as those that decide nothing.
    """
    if not against and for_it > neither:
        return REPRODUCED
    return NOT_REPRODUCED if against and against >= max(for_it, neither) else UNDECIDED


def max_floor(judged: Iterable[Verdict]) -> float:
    """Return the highest of the rows' floors; infinite where one is missing."""
    floors = [v.floor for v in judged if v.state != "reference"]
    return max((math.inf if f is None else f for f in floors), default=math.inf)


def num_collapsed(pair: Matched) -> int:
    """Return how many of the two collapsed."""
    return sum(v.state == "collapsed" for v in pair)


def compare_emds(one: Verdict, other: Verdict) -> int:
    """Return 1 if the EMD of one is larger by more than the floor, -1 if smaller."""
    floor = max(v.floor or 0.0 for v in (one, other))
    apart = one.row["emd_mean"] - other.row["emd_mean"]
    return (apart > floor) - (apart < -floor)


def selects(
    target: str, method: str, mode: str | None = None, bits: Collection[int] = ()
) -> Callable[[Row], bool]:
    """Return a predicate of rows with this target, method, mode and bits, if given."""

    def selected(row: Row) -> bool:
        return (
            (row["target"], row["method"]) == (target, method)
            and mode in (None, row["mode"])
            and (not bits or row["bits"] in bits)
        )

    return selected
