"""The paper's claims: its numbers, ours beside them, and a verdict by a stated rule."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from experiments.common import MODES, Row
from experiments.report import pairs
from experiments.report.claim import (
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    UNDECIDED,
    Claim,
    lacking,
    main_grid,
    majority,
)
from experiments.report.judge import Verdict, baselines, learned, verdicts
from experiments.report.names import MODE_NAMES, method_name
from experiments.report.quantizer_claims import (
    four_bits,
    lq_net_keeps,
    unsigned_better,
    wide_drifts,
)
from experiments.report.run import Run
from experiments.report.settings import Setting, settings
from experiments.report.table import aligned


def claims(run: Run) -> list[Claim]:
    """All claims, judged by the run's rows of its own site and scope."""
    judged = verdicts(run.main)
    some = settings(judged)
    found = [
        _equal_accuracy(run, judged),
        wide_drifts(run, judged, some),
        lq_net_keeps(run, judged, some),
        _accuracy_first(run, some),
        four_bits(run, some),
        unsigned_better(run, judged),
        Claim(
            "LQ-Net on membranes does not train",
            "it did not train",
            "none here",
            "the grid of this study quantizes membranes uniformly",
            NOT_RUN,
            "no row quantizes membranes by LQ-Net",
        ),
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
        f"of {len(same)} pairs of equal accuracy {len(kept)} keep it; "
        f"{len(differing)} of these differ so in EMD, and {len(hiding)} hide a drift"
    )
    more = sum(n > 1 for _, n in repeated)
    if repeated:
        pair, seeds = max(repeated, key=lambda two: (two[1], two[0].ratio))
        ours += (
            f". The furthest apart of those in most seeds: {pair.far.told}, against "
            f"{pair.near.told}: {pair.ratio:.1f} times, the least of the {seeds} seeds "
            "that ran both"
        )
    one_seed = not run.config.repeat or len(run.config.seeds) == 1
    if repeated and (more or one_seed):
        verdict = REPRODUCED
        why = (
            f"{len(repeated)} pairs of settings hide a drift in every seed that ran "
            f"both, {more} of them in more than one"
        )
    elif lack := lacking(run, lambda row: True):
        verdict, why = lack
    elif repeated:
        verdict, why = UNDECIDED, "only in pairs that ran in one seed"
    elif hiding:
        verdict, why = UNDECIDED, "no pair hides a drift in every seed that ran both"
    elif differing:
        verdict, why = UNDECIDED, "no pair's EMDs are apart by more than the floor"
    elif not kept:
        verdict, why = UNDECIDED, "no two networks keep an equal accuracy"
    else:
        verdict, why = NOT_REPRODUCED, "no pair was found"
    return Claim(
        "Equal accuracy can hide different firing",
        "uniform narrow 6 bit 74.9% / 0.0077 and LQ-Net 6 bit 75.3% / 0.0073 beside "
        "uniform wide 6 bit 73.7% / 0.0136",
        "pairs of one mode and seed, accuracies kept and within 0.5 points of each "
        f"other, EMDs more than {pairs.OTHERWISE} times apart, the larger above the "
        "floor and above the smaller by more than the floor. Reproduced with a pair "
        "that does so in every seed that ran both, and in more than one where the run "
        "repeats its grid; not where no EMDs are so many times apart",
        ours,
        verdict,
        why,
    )


@dataclasses.dataclass(frozen=True)
class _Recovery:
    """A method in one mode: the fewest bits from which on accuracy and firing are kept.

    None where the most bits, ``most``, do not keep it.
    """

    accuracy: int | None
    firing: int | None
    most: int

    @property
    def told(self) -> str:
        both = (self.accuracy, self.firing)
        return " / ".join(f"> {self.most}" if b is None else str(b) for b in both)


def _from_where(line: Sequence[Setting], good: Callable[[Setting], bool]) -> int | None:
    found = None
    for setting in sorted(line, key=lambda s: -s.row["bits"]):
        if not good(setting):
            break
        found = setting.row["bits"]
    return found


def _recoveries(
    some: Sequence[Setting],
    wanted: Sequence[Row],
    mode: str,
    fires: Callable[[Setting], bool],
) -> dict[str, _Recovery]:
    """Of each method that has all the rows that are wanted, of several bit widths."""
    lines: dict[str, list[Setting]] = {}
    for s in some:
        if s.row["mode"] == mode:
            lines.setdefault(method_name(s.row), []).append(s)
    own = Counter(method_name(row) for row in wanted if row["mode"] == mode)
    return {
        name: _Recovery(
            _from_where(line, lambda s: s.kept and not s.collapsed),
            _from_where(line, lambda s: fires(s) and not s.collapsed),
            max(s.row["bits"] for s in line),
        )
        for name, line in lines.items()
        if len(line) > 1 and sum(len(s.judged) for s in line) >= own[name]
    }


def _first(own: Iterable[_Recovery], fewest: int) -> tuple[str, str]:
    """Whether accuracy comes first, by the bits of each method; and why."""
    never, signs, silent = 10**6, [], 0
    for one in own:
        both = (one.accuracy, one.firing)
        accuracy, firing = (never if b is None else b for b in both)
        if accuracy == firing and accuracy in (never, fewest):
            silent += 1
        else:
            signs.append((firing > accuracy) - (firing < accuracy))
    if not signs:
        return UNDECIDED, "no method tells: both at the fewest bits, or never"
    for_it, against, ties = (signs.count(sign) for sign in (1, -1, 0))
    return majority(for_it, against, ties), (
        f"accuracy first with {for_it} methods, firing first with {against}, at the "
        f"same bits with {ties}; {silent} do not tell"
    )


def _accuracy_first(run: Run, some: Sequence[Setting]) -> Claim:
    wanted = main_grid(run.config)
    bits = {m: {row["bits"] for row in wanted if row["mode"] == m} for m in MODES}
    # The finest scale decides, and of equal ones the mode in which most is trained.
    mode = max(run.config.modes, key=lambda m: (len(bits[m]), MODES.index(m)))
    found = {
        MODE_NAMES[m]: _recoveries(some, wanted, m, lambda s: s.within) for m in MODES
    }
    # Firing is kept by a high floor early and by a low one late, accuracy by neither.
    finer = _recoveries(some, wanted, mode, lambda s: s.within_lowest)
    name = MODE_NAMES[mode]
    if lack := lacking(run, lambda row: row["mode"] == mode):
        verdict, why = lack
    elif len(bits[mode]) < 3:
        verdict, why = UNDECIDED, "fewer than three bit widths"
    elif any(s.lowest is None for s in some):
        verdict, why = UNDECIDED, "a noise floor is missing"
    else:
        fewest = min(bits[mode])
        verdict, why = _first(found[name].values(), fewest)
        alone, other = _first(finer.values(), fewest)
        why = f"by {name}, {why}"
        if alone != verdict:
            why += f"; {verdict} by the noise floor, but {alone} by the lowest floor: "
            why += other
            verdict = UNDECIDED
    found[f"{name}, lowest floor"] = finer
    methods = dict.fromkeys(n for own in found.values() for n in own)
    lines = [
        {"method": n}
        | {title: own[n].told if n in own else "-" for title, own in found.items()}
        for n in methods
    ]
    return Claim(
        "With more bits accuracy recovers before EMD does",
        "stated without one number",
        "for each method, the fewest bits from which on accuracy is kept, and those "
        "from which on firing is, in the mode of the most bit widths. A method tells "
        "nothing where both are the fewest bits, or never. Reproduced where accuracy "
        "comes first with more than half of the others and firing with none; not where "
        "firing does with as many at least as accuracy, and as tie. A high floor alone "
        "lets firing recover first and a low one last, so the verdict must be the same "
        "by each row's lowest floor",
        "bits for accuracy / bits for firing (> n: not by n bits, the most measured)"
        + (f"\n\n{aligned(lines)}" if lines else ": not measured"),
        verdict,
        why,
    )
