"""The claims that set accuracy against firing: what it hides, what recovers first."""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Sequence

from experiments.report import pairs
from experiments.report.claims.evidence import (
    EQUAL_APART,
    LEAD,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    Claim,
    majority,
    max_floor,
    missing_rows_verdict,
    planned_rows,
)
from experiments.report.formats import count
from experiments.report.judge import Verdict
from experiments.report.names import MODE_NAMES, method_name, setting_name
from experiments.report.run import Run
from experiments.report.settings import Setting
from experiments.report.table import markdown_table
from experiments.study.config import MODES
from snnjax.firing._drift import POINT, ROUNDING
from snnjax.runs import Row


def equal_accuracy(run: Run, judged: Sequence[Verdict]) -> Claim:
    """Judge claim 1: pairs of equal accuracy and different firing."""
    same = pairs.equal_accuracy_pairs(judged)
    kept = [pair for pair in same if pair.keeps_accuracy]
    differing = [pair for pair in kept if pair.differs]
    hiding = [pair for pair in kept if pair.hides]
    repeated = pairs.find_repeated(same, judged)
    ours = (
        f"of {count(len(same), 'pair')} of equal accuracy {len(kept)} keep it; "
        f"{len(differing)} of these differ so in EMD, and {len(hiding)} hide a drift"
    )
    more = sum(n > 1 for _, n in repeated)
    if repeated:
        pair, seeds = max(repeated, key=lambda two: (two[1], two[0].ratio))
        ours += f". The furthest apart of those in most seeds: {pair.summary}"
        ours += f", the least of the {seeds} seeds that ran both" * (seeds > 1)
        weights = sum(
            all(v.row["target"] == "weights" for v in (p.far, p.near)) for p in hiding
        )
        ours += f". Both are weight quantizers, as the paper's are, in {weights}"
    # A pair of which both were to run in one seed alone can hide nothing in another.
    ran = Counter((row["mode"], setting_name(row)) for row in planned_rows(run.config))
    once = any(
        min(ran[pair.settings[0], name] for name in pair.settings[1:]) == 1
        for pair, _ in repeated
    )
    if more or once:
        verdict = REPRODUCED
        why = (
            f"{count(len(repeated), 'pair')} of settings hide a drift in every seed "
            f"that ran both, {more} of them in more than one"
        )
        why += "" if more else "; of one seed alone"
    elif lack := missing_rows_verdict(run, lambda row: True):
        verdict, why = lack
    elif hiding:
        verdict, why = UNDECIDED, "no pair hides a drift in every seed that ran both"
    elif not kept:
        verdict, why = UNDECIDED, "no two networks keep an equal accuracy"
    else:
        why = "no pair's EMDs are apart by more than the floor"
        seen = max_floor(judged) < EQUAL_APART
        verdict = NOT_REPRODUCED if seen else UNDECIDED
        why += (
            f", by which the paper's {EQUAL_APART} would {'not ' * (not seen)}be seen"
        )
    return Claim("equal_accuracy", ours, verdict, why)


@dataclasses.dataclass(frozen=True)
class _Recovery:
    """Shares of accuracy and EMD that a method recovers at the bits between.

    Of what the most bits recover, the mean share over the bit widths between the
    fewest and the most.
    """

    accuracy: float
    firing: float

    @property
    def summary(self) -> str:
        """Both shares in percent."""
        return f"{100 * self.accuracy:.0f} % / {100 * self.firing:.0f} %"


def _recovery(line: Sequence[Setting]) -> _Recovery | None:
    """Return None for a method that lost too little to recover."""
    few, *between, most = sorted(line, key=lambda s: s.row["bits"])
    gain = most.mean("accuracy") - few.mean("accuracy")
    fall = few.mean("emd_mean") - most.mean("emd_mean")
    if (
        gain <= POINT + ROUNDING
        or fall <= few.mean("emd_mean") / 2
        or most.has_collapsed
    ):
        return None
    return _Recovery(
        statistics.fmean(
            (s.mean("accuracy") - few.mean("accuracy")) / gain for s in between
        ),
        statistics.fmean(
            (few.mean("emd_mean") - s.mean("emd_mean")) / fall for s in between
        ),
    )


def _recoveries(
    some: Sequence[Setting], wanted: Sequence[Row], mode: str
) -> dict[str, _Recovery | None]:
    """Return the recovery of each complete method with at least three bit widths."""
    lines: dict[str, list[Setting]] = {}
    for s in some:
        if s.row["mode"] == mode:
            lines.setdefault(method_name(s.row), []).append(s)
    own = Counter(method_name(row) for row in wanted if row["mode"] == mode)
    return {
        name: _recovery(line)
        for name, line in lines.items()
        if len(line) > 2 and sum(len(s.judged) for s in line) >= own[name]
    }


def accuracy_first(run: Run, some: Sequence[Setting]) -> Claim:
    """Judge claim 4: accuracy recovers with more bits before EMD does."""
    wanted = planned_rows(run.config)
    bits = {m: {row["bits"] for row in wanted if row["mode"] == m} for m in MODES}
    # The finest scale decides, and of equal ones the mode in which most is trained.
    mode = max(run.config.modes, key=lambda m: (len(bits[m]), MODES.index(m)))
    found = {m: _recoveries(some, wanted, m) for m in MODES}
    decisive = [one for one in found[mode].values() if one]
    apart = [one.accuracy - one.firing for one in decisive]
    signs = [(d > LEAD) - (d < -LEAD) for d in apart]
    if lack := missing_rows_verdict(run, lambda row: row["mode"] == mode):
        verdict, why = lack
    elif len(bits[mode]) < 3:
        verdict, why = UNDECIDED, "fewer than three bit widths"
    elif not decisive:
        verdict, why = UNDECIDED, "no method has much to have back"
    else:
        for_it, against, ties = (signs.count(sign) for sign in (1, -1, 0))
        verdict = majority(for_it, against, ties)
        why = (
            f"by {MODE_NAMES[mode]} accuracy is ahead with {count(for_it, 'method')}, "
            f"firing with {against}, neither with {ties}; "
            f"{len(found[mode]) - len(decisive)} do not tell"
        )
    shown = {m: own for m, own in found.items() if own}
    lines = [
        {"method": name}
        | {
            MODE_NAMES[m]: one.summary if (one := own.get(name)) else "-"
            for m, own in shown.items()
        }
        for name in dict.fromkeys(n for own in shown.values() for n in own)
    ]
    table = f"\n\n{markdown_table(lines)}" if lines else ": not measured"
    ours = f"share of accuracy / share of EMD that is back at the bits between{table}"
    return Claim("accuracy_first", ours, verdict, why)
