"""The paper's claims: its numbers, ours beside them, and a verdict by a stated rule."""

from collections.abc import Callable, Sequence

from experiments.report import pairs
from experiments.report.claim import (
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    UNDECIDED,
    Claim,
    lacking,
    majority,
)
from experiments.report.judge import Verdict, verdicts
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
    return [
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


def _equal_accuracy(run: Run, judged: Sequence[Verdict]) -> Claim:
    same = pairs.equal(judged)
    differing = [pair for pair in same if pair.differs]
    hiding = [pair for pair in same if pair.hides]
    kept = [pair for pair in hiding if pair.far.kept and pair.near.kept]
    repeated = pairs.repeated(same, judged)
    ours = (
        f"of {len(same)} pairs of equal accuracy {len(differing)} differ so in EMD, "
        f"and {len(hiding)} hide a drift ({len(kept)} with both networks within a "
        "point of the baseline)"
    )
    if repeated:
        pair, seeds = repeated[0]
        both = [n for _, n in repeated if n > 1]
        ours += (
            f". The furthest apart: {pair.far.told}, against {pair.near.told}: "
            f"{pair.ratio:.1f} times, in {seeds} of {seeds} seeds"
        )
        verdict = REPRODUCED
        why = (
            f"{len(repeated)} pairs of settings hide a drift in every seed that ran "
            f"both, {len(both)} of them in more than one"
        )
    elif hiding:
        verdict, why = UNDECIDED, "no pair hides a drift in every seed that ran both"
    elif differing:
        verdict, why = UNDECIDED, "no pair's larger EMD is above the noise floor"
    elif lack := lacking(run, lambda row: True) or (not same and "no such pair"):
        verdict, why = UNDECIDED, lack
    else:
        verdict, why = NOT_REPRODUCED, "no pair was found"
    return Claim(
        "Equal accuracy can hide different firing",
        "uniform narrow 6 bit 74.9% / 0.0077 and LQ-Net 6 bit 75.3% / 0.0073 beside "
        "uniform wide 6 bit 73.7% / 0.0136",
        "pairs of one mode and seed, accuracies within 0.5 points, EMDs more than "
        f"{pairs.OTHERWISE} times apart, the larger above its floor. Reproduced with a "
        "pair that does so in every seed that ran both; not with no pair of such EMDs",
        ours,
        verdict,
        why,
    )


def _from_where(line: Sequence[Setting], good: Callable[[Setting], bool]) -> int | None:
    """The fewest bits from which on all are good; None where the most bits are not."""
    found = None
    for setting in sorted(line, key=lambda s: -s.row["bits"]):
        if not good(setting):
            break
        found = setting.row["bits"]
    return found


def _recovery(some: Sequence[Setting], mode: str) -> dict[str, tuple]:
    """Bits from which accuracy, and from which firing is kept, by method."""
    lines: dict[str, list[Setting]] = {}
    for s in some:
        if s.row["mode"] == mode:
            lines.setdefault(method_name(s.row), []).append(s)
    return {
        name: (
            _from_where(line, lambda s: s.kept and not s.collapsed),
            _from_where(line, lambda s: s.within and not s.collapsed),
        )
        for name, line in lines.items()
        if len(line) > 1
    }


def _accuracy_first(run: Run, some: Sequence[Setting]) -> Claim:
    bits = {m: {s.row["bits"] for s in some if s.row["mode"] == m} for m in MODE_NAMES}
    # The finest scale decides, and of equal ones the mode in which most is trained.
    mode = max(MODE_NAMES, key=lambda m: (len(bits[m]), list(MODE_NAMES).index(m)))
    found = {m: _recovery(some, m) for m in ("ptq", "ptq_bn", "qat")}
    never, fewest = 10**6, min(bits[mode], default=0)
    signs = []
    for own in found.get(mode, {}).values():
        accuracy, firing = (never if b is None else b for b in own)
        if accuracy != firing or accuracy not in (never, fewest):
            signs.append((firing > accuracy) - (firing < accuracy))
    for_it, against, ties = (signs.count(sign) for sign in (1, -1, 0))
    silent = len(found.get(mode, {})) - len(signs)
    lack = lacking(run, lambda row: row["mode"] == mode)
    if lack or len(bits[mode]) < 3:
        verdict, why = UNDECIDED, lack or "fewer than three bit widths"
    elif not signs:
        verdict, why = UNDECIDED, "no method tells: both at the fewest bits, or never"
    else:
        verdict = majority(for_it, against, ties)
        why = (
            f"by {MODE_NAMES[mode]}, accuracy first with {for_it} methods, firing "
            f"first with {against}, at the same bits with {ties}; {silent} do not tell"
        )
    lines = [
        {"method": name}
        | {
            MODE_NAMES[m]: " / ".join(str(b or "never") for b in own[name])
            if name in own
            else "-"
            for m, own in found.items()
        }
        for name in dict.fromkeys(n for own in found.values() for n in own)
    ]
    return Claim(
        "With more bits accuracy recovers before EMD does",
        "stated without one number",
        "for each method, the fewest bits from which on accuracy is kept, and those "
        "from which on firing is, in the mode of the most bit widths. A method tells "
        "nothing where both are the fewest bits, or never. Reproduced where accuracy "
        "comes first with at least half of the others and firing with none; not where "
        "firing does with as many",
        "bits for accuracy / bits for firing"
        + (f"\n\n{aligned(lines)}" if lines else ": not measured"),
        verdict,
        why,
    )
