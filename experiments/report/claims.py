"""The paper's claims: its numbers, ours beside them, and a verdict by a stated rule."""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Sequence

from experiments.report import pairs
from experiments.report.claim import (
    EQUAL_APART,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    UNDECIDED,
    Claim,
    highest_floor,
    lacking,
    main_grid,
    majority,
)
from experiments.report.judge import POINT, Verdict, baselines, learned, verdicts
from experiments.report.names import MODE_NAMES, count, method_name, setting_name
from experiments.report.quantizer_claims import (
    four_bits,
    lq_membranes,
    lq_net_keeps,
    unsigned_better,
    wide_drifts,
)
from experiments.report.run import Run
from experiments.report.settings import Setting, settings
from experiments.report.table import aligned
from experiments.study.config import MODES
from snnjax.runs import Row

# A method's accuracy is back before its EMD, by this much of a share.
_AHEAD = 0.05


def claims(run: Run, *, lower: bool = False) -> list[Claim]:
    """All claims, judged by the run's rows of its own site and scope.

    Args:
        run: finished or not.
        lower: judge by the lower floors.
    """
    judged = [v.by_lower if lower else v for v in verdicts(run.main)]
    some = settings(judged)
    found = [
        _equal_accuracy(run, judged),
        wide_drifts(run, judged, some),
        lq_net_keeps(run, judged, some),
        _accuracy_first(run, some),
        four_bits(run, some),
        unsigned_better(run, judged),
        lq_membranes(run, some),
    ]
    if all(learned(base) for base in baselines(run.main)):
        return found
    nothing = {"verdict": UNDECIDED, "why": "the baseline has not learned"}
    return [
        one if one.verdict == NOT_RUN else dataclasses.replace(one, **nothing)
        for one in found
    ]


def _equal_accuracy(run: Run, judged: Sequence[Verdict]) -> Claim:
    same = pairs.equal(judged)
    kept = [pair for pair in same if pair.kept]
    differing = [pair for pair in kept if pair.differs]
    hiding = [pair for pair in kept if pair.hides]
    repeated = pairs.repeated(same, judged)
    ours = (
        f"of {count(len(same), 'pair')} of equal accuracy {len(kept)} keep it; "
        f"{len(differing)} of these differ so in EMD, and {len(hiding)} hide a drift"
    )
    more = sum(n > 1 for _, n in repeated)
    if repeated:
        pair, seeds = max(repeated, key=lambda two: (two[1], two[0].ratio))
        ours += f". The furthest apart of those in most seeds: {pair.told}"
        ours += f", the least of the {seeds} seeds that ran both" * (seeds > 1)
        weights = sum(
            all(v.row["target"] == "weights" for v in (p.far, p.near)) for p in hiding
        )
        ours += f". Both are weight quantizers, as the paper's are, in {weights}"
    # A pair of which both were to run in one seed alone can hide nothing in another.
    ran = Counter((row["mode"], setting_name(row)) for row in main_grid(run.config))
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
    elif lack := lacking(run, lambda row: True):
        verdict, why = lack
    elif hiding:
        verdict, why = UNDECIDED, "no pair hides a drift in every seed that ran both"
    elif not kept:
        verdict, why = UNDECIDED, "no two networks keep an equal accuracy"
    else:
        why = "no pair's EMDs are apart by more than the floor"
        seen = highest_floor(judged) < EQUAL_APART
        verdict = NOT_REPRODUCED if seen else UNDECIDED
        why += (
            f", by which the paper's {EQUAL_APART} would {'not ' * (not seen)}be seen"
        )
    return Claim(
        "Equal accuracy can hide different firing",
        "uniform narrow 6 bit 74.9% / 0.0077 and LQ-Net 6 bit 75.3% / 0.0073 beside "
        "uniform wide 6 bit 73.7% / 0.0136",
        "pairs of one mode and seed, accuracies kept and within 0.5 points of each "
        f"other, EMDs more than {pairs.OTHERWISE} times apart, the larger above the "
        "floor and above the smaller by more than the floor. Reproduced with a pair "
        "that does so in every seed that ran both, and in more than one where both "
        "were to run in more; not where none does, by a floor under the paper's "
        f"{EQUAL_APART}",
        ours,
        verdict,
        why,
    )


@dataclasses.dataclass(frozen=True)
class _Recovery:
    """How much of what few bits cost a method has back at the bits between.

    Of what the most bits give back of accuracy, and of EMD, the mean share over the bit
    widths between the fewest and the most.
    """

    accuracy: float
    firing: float

    @property
    def told(self) -> str:
        return f"{100 * self.accuracy:.0f} % / {100 * self.firing:.0f} %"


def _recovery(line: Sequence[Setting]) -> _Recovery | None:
    """None of a method that tells nothing: there is little to have back."""
    few, *between, most = sorted(line, key=lambda s: s.row["bits"])
    gain = most.mean("accuracy") - few.mean("accuracy")
    fall = few.mean("emd_mean") - most.mean("emd_mean")
    if gain <= POINT + 1e-9 or fall <= few.mean("emd_mean") / 2 or most.collapsed:
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
    """Of each method that has all the rows that are wanted, of three bits or more."""
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


def _accuracy_first(run: Run, some: Sequence[Setting]) -> Claim:
    wanted = main_grid(run.config)
    bits = {m: {row["bits"] for row in wanted if row["mode"] == m} for m in MODES}
    # The finest scale decides, and of equal ones the mode in which most is trained.
    mode = max(run.config.modes, key=lambda m: (len(bits[m]), MODES.index(m)))
    found = {m: _recoveries(some, wanted, m) for m in MODES}
    telling = [one for one in found[mode].values() if one]
    apart = [one.accuracy - one.firing for one in telling]
    signs = [(d > _AHEAD) - (d < -_AHEAD) for d in apart]
    if lack := lacking(run, lambda row: row["mode"] == mode):
        verdict, why = lack
    elif len(bits[mode]) < 3:
        verdict, why = UNDECIDED, "fewer than three bit widths"
    elif not telling:
        verdict, why = UNDECIDED, "no method has much to have back"
    else:
        for_it, against, ties = (signs.count(sign) for sign in (1, -1, 0))
        verdict = majority(for_it, against, ties)
        why = (
            f"by {MODE_NAMES[mode]} accuracy is ahead with {count(for_it, 'method')}, "
            f"firing with {against}, neither with {ties}; "
            f"{len(found[mode]) - len(telling)} do not tell"
        )
    shown = {m: own for m, own in found.items() if own}
    lines = [
        {"method": name}
        | {
            MODE_NAMES[m]: one.told if (one := own.get(name)) else "-"
            for m, own in shown.items()
        }
        for name in dict.fromkeys(n for own in shown.values() for n in own)
    ]
    return Claim(
        "With more bits accuracy recovers before EMD does",
        "stated without one number",
        "what the most bits give back, of the accuracy and of the EMD that the fewest "
        "cost, and how much of it is there at the bits between, on the mean; in the "
        "mode of the most bit widths. A method tells nothing whose accuracy gains less "
        "than a point, or whose EMD does not fall to half. Reproduced where accuracy "
        f"is ahead by {100 * _AHEAD:g} points of its share with more than half of the "
        "others and firing with none; not where firing is with as many at least as "
        "accuracy, and as neither. No floor is in it",
        "share of accuracy / share of EMD that is back at the bits between"
        + (f"\n\n{aligned(lines)}" if lines else ": not measured"),
        verdict,
        why,
    )
