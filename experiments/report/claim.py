"""One claim of the paper, and what its rule is made of."""

import dataclasses
from collections.abc import Callable, Sequence

from experiments.common import Row
from experiments.report.judge import Verdict
from experiments.report.names import MODE_NAMES, emd_text, percent
from experiments.report.run import Run
from experiments.report.settings import Setting
from experiments.rows import grid
from experiments.run_folder import row_name

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
UNDECIDED = "not decidable at this size"
NOT_RUN = "not part of this run"

RULES = (
    "Firing is kept where EMD is at most the noise floor, accuracy where it is within "
    "a point of the seed's baseline; of several seeds the mean is judged. A difference "
    "of two EMDs counts where it is larger than the floor: EMD is a distance, so "
    "networks whose EMDs to one baseline are that far apart are at least as far from "
    "each other. What collapsed is left out of pairs, and counted. A claim that its "
    "rows neither bear out nor contradict, because differences are within the floor or "
    "rows are missing, is not decidable."
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


def lacking(run: Run, wanted: Callable[[Row], bool]) -> str:
    """Why a claim cannot be judged by the planned rows that it wants, if so."""
    config = run.config
    planned = [
        row
        for row in grid(config)
        if row["quantize_all"] == config.quantize_all
        and row["site"] in (None, config.site)
        and wanted(row)
    ]
    done = {row_name(row) for row in run.main}
    left = sum(row_name(row) not in done for row in planned)
    if not planned:
        return "this run has no such rows"
    return f"{left} of its {len(planned)} rows are missing" if left else ""


def beside(some: Sequence[Setting], wanted: Callable[[Row], bool]) -> str:
    """Accuracy and EMD of settings, of each the mode in which most is trained."""
    found = {s.name: s for s in some if wanted(s.row)}  # modes follow each other
    told = [
        f"{name} {MODE_NAMES[s.row['mode']]} {percent(s.mean('accuracy'))} / "
        f"{emd_text(s.mean('emd_mean'))}"
        for name, s in found.items()
    ]
    return "; ".join(told) or "not measured"


def majority(for_it: int, against: int, neither: int) -> str:
    """The verdict of pairs: for it half of all at least, and none against it."""
    if for_it and not against and for_it >= neither:
        return REPRODUCED
    return NOT_REPRODUCED if against and against >= for_it else UNDECIDED


def alive(*some: Verdict) -> bool:
    """Whether none of them collapsed."""
    return all(v.state != "collapsed" for v in some)


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
    return row["target"] == "membrane"
