"""One claim of the paper, and what its rule is made of."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

from experiments.report.judge import Verdict
from experiments.report.names import MODE_NAMES, emd_text, percent, setting_name
from experiments.report.run import Run, is_main
from experiments.report.settings import Setting, alike
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

RULES = (
    "Every claim is judged twice: by the noise floor, with other seeds, and by the "
    "lower one, without (see Definitions). "
    "Firing is kept where EMD is at most the floor, accuracy where it is within "
    "a point of the seed's baseline, after QAT of its control too (which is trained as "
    "long, without a quantizer); of several seeds the mean is judged. A difference "
    "of two EMDs counts where it is larger than the floor: EMD is a distance, so "
    "networks whose EMDs to one baseline are that far apart are at least as far from "
    "each other. Pairs of quantizers of which both collapsed are left out; where one "
    "did, the pair counts as measured, and is told. A claim that its rows neither bear "
    "out nor contradict, because differences are within the floor or some speak for it "
    "and some against, is not decidable, and none is beside a baseline under twice "
    "chance; one whose rows are missing is not finished. An ablation's rows are no "
    "evidence."
)


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim of the paper and what became of it here, in markdown."""

    title: str
    paper: str
    rule: str
    ours: str
    verdict: str
    why: str


def main_grid(config: StudyConfig) -> list[Row]:
    """The rows that are planned of the config's own site and scope."""
    rows = [spec.to_row() for spec in grid(config)]
    return [row for row in rows if is_main(row, config)]


def lacking(run: Run, wanted: Callable[[Row], bool]) -> tuple[str, str] | None:
    """Verdict and why where the planned rows that a claim wants cannot judge it."""
    planned = [row for row in main_grid(run.config) if wanted(row)]
    done = {name_row(row) for row in run.main}
    left = sum(name_row(row) not in done for row in planned)
    if not planned:
        return NOT_RUN, "this run has no such rows"
    if left:
        return UNFINISHED, f"{left} of its {len(planned)} rows are missing"
    return None


def alone(judged: Iterable[Verdict]) -> str:
    """That settings rest on one seed, to be added to why; empty where on several."""
    seeds: dict[str, set[int]] = {}
    for v in judged:
        seeds.setdefault(setting_name(v.row), set()).add(v.row["seed"])
    single = [min(own) for own in seeds.values() if len(own) == 1]
    if not single:
        return ""
    some = f"{len(single)} of {len(seeds)} settings " * (len(single) < len(seeds))
    return f"; {some}of seed {min(single)} alone"


def beside(some: Sequence[Setting], wanted: Callable[[Row], bool]) -> str:
    """Accuracy and EMD of settings, of each the mode in which most is trained.

    Of the seeds that all of them have: seeds differ in their baselines.
    """
    last = {s.name: s for s in some if wanted(s.row)}  # modes follow each other
    if not last:
        return "not measured"
    fair, _ = alike(list(last.values()))
    told = [
        f"{s.name} {MODE_NAMES[s.row['mode']]} {percent(s.mean('accuracy'))} / "
        f"{emd_text(s.mean('emd_mean'))}"
        for s in fair
    ]
    seeds = {s.seeds for s in fair}
    over = seeds.pop() if len(seeds) == 1 else frozenset()
    named = any(s.seeds - over for s in last.values()) and over
    return "; ".join(told) + (f" (seed {', '.join(map(str, over))})" if named else "")


def majority(for_it: int, against: int, neither: int) -> str:
    """The verdict of pairs: for it more than half, or against it as many as not.

    Reproduced with none against it; not reproduced where those against are at least as
    many as those for it, and as those that tell nothing.
    """
    if not against and for_it > neither:
        return REPRODUCED
    return NOT_REPRODUCED if against and against >= max(for_it, neither) else UNDECIDED


def highest_floor(judged: Iterable[Verdict]) -> float:
    """Of the floors they are judged by; infinite where one is missing."""
    floors = [v.floor for v in judged if v.state != "reference"]
    return max((math.inf if f is None else f for f in floors), default=math.inf)


def fallen(pair: tuple[Verdict, Verdict]) -> int:
    """How many of the two collapsed."""
    return sum(v.state == "collapsed" for v in pair)


def sign_of(one: Verdict, other: Verdict) -> int:
    """1 where the EMD of one is larger by more than the floor, -1 where smaller."""
    floor = max(v.floor or 0.0 for v in (one, other))
    apart = one.row["emd_mean"] - other.row["emd_mean"]
    return (apart > floor) - (apart < -floor)


def is_qat(row: Row) -> bool:
    return row["mode"] == "qat"


def is_uniform(row: Row) -> bool:
    return (row["target"], row["method"]) == ("weights", "uniform")


def is_lq_net(row: Row) -> bool:
    return (row["target"], row["method"]) == ("weights", "lq_net")


def is_membrane(row: Row) -> bool:
    return (row["target"], row["method"]) == ("membrane", "uniform")


def is_lq_membrane(row: Row) -> bool:
    return (row["target"], row["method"]) == ("membrane", "lq_net")
