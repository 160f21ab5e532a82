"""The paper's claims: its numbers, ours beside them, and a verdict by a stated rule."""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Sequence

from experiments.report import pairs
from experiments.report.evidence import (
    CLIPS_APART,
    EQUAL_APART,
    LEAD,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    UNDECIDED,
    Claim,
    compare_emds,
    format_settings,
    majority,
    max_floor,
    missing_rows_verdict,
    num_collapsed,
    planned_rows,
    selects,
    single_seed_note,
)
from experiments.report.formats import count, emd_text, percent
from experiments.report.names import (
    MODE_NAMES,
    group_items,
    method_name,
    setting_key,
)
from experiments.report.pairs import Matched
from experiments.report.run import Run
from experiments.report.settings import Setting, group_settings
from experiments.report.table import Verdict, label, markdown_table
from experiments.study.config import CLASSES, MODES
from experiments.study.grid import CLIPS
from snnjax.firing._drift import POINT, ROUNDING, baselines, has_learned
from snnjax.runs import Row


def judge_claims(run: Run, *, lower: bool = False) -> list[Claim]:
    """Judge all claims by the run's rows of its own site and scope.

    Args:
        run: finished or not.
        lower: judge by the lower floors.
    """
    judged = [v.by_lower if lower else v for v in run.judged_main]
    some = group_settings(judged)
    found = [
        equal_accuracy(run, judged),
        wide_clip(run, judged, some),
        lq_net(run, judged, some),
        accuracy_first(run, some),
        four_bits(run, some),
        unsigned_membranes(run, judged),
        lq_membranes(run, some),
    ]
    if all(has_learned(base, CLASSES) for base in baselines(run.main)):
        return found
    nothing = {"verdict": UNDECIDED, "why": "the baseline has not learned"}
    return [
        one if one.verdict == NOT_RUN else dataclasses.replace(one, **nothing)
        for one in found
    ]


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
    ran = Counter(setting_key(row) for row in planned_rows(run.config))
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
    by_mode = (s for s in some if s.row["mode"] == mode)
    lines = group_items(by_mode, lambda s: method_name(s.row))
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


TRAINED = 0.05  # accuracy that a network which trains may lose
# Accuracy this close to a point's loss decides nothing: it is within chance.
MARGIN = 0.005
LOST = POINT + MARGIN - 2 * ROUNDING  # from here on a point is clearly missed


def wide_clip(run: Run, judged: Sequence[Verdict], some: Sequence[Setting]) -> Claim:
    """Judge claim 2: the wide clip against the narrow one, with uniform weights."""
    is_uniform = selects("weights", "uniform")
    uniform = [v for v in judged if is_uniform(v.row)]
    clips = pairs.match_pairs(uniform, "clip", CLIPS["narrow"], CLIPS["wide"])
    texts, counts = [], {}
    for mode in ("qat", "ptq_bn", "ptq"):
        two = [pair for pair in clips if pair[0].row["mode"] == mode]
        signs = [
            compare_emds(pair[1], pair[0]) for pair in two if num_collapsed(pair) < 2
        ]
        alive = [
            compare_emds(pair[1], pair[0]) for pair in two if not num_collapsed(pair)
        ]
        counts[mode] = [
            [some.count(sign) for sign in (1, -1, 0)] for some in (signs, alive)
        ]
        texts.append(f"By {MODE_NAMES[mode]} {_describe_clips(two, signs)}")
    lack = missing_rows_verdict(run, selects("weights", "uniform", "qat"))
    every, alive = counts["qat"]
    if lack:
        verdict, why = lack
    elif not any(every):
        verdict, why = UNDECIDED, "of each pair both collapsed"
    else:
        verdict = majority(*every)
        why = "{} of the QAT pairs for it, {} against, {} within the floor".format(
            *every
        )
        # A dead network fires otherwise, and its accuracy shows it.
        if alive != every and majority(*alive) != verdict:
            why += "; without the pairs of which one collapsed {}, {} and {}".format(
                *alive
            )
            verdict = UNDECIDED
    if not lack:
        why += single_seed_note(v for v in uniform if v.row["mode"] == "qat")
    six = format_settings(some, selects("weights", "uniform", bits=(6,)))
    ours = f"{'. '.join(texts)}. At 6 bit: {six}"
    return Claim("wide_clip", ours, verdict, why)


def _describe_clips(two: Sequence[Matched], signs: Sequence[int]) -> str:
    """Describe what the wide clip does in pairs of narrow and wide."""
    text = (
        "the wide clip's EMD is larger by more than the floor in "
        f"{signs.count(1)} of {count(len(signs), 'pair')}, smaller in {signs.count(-1)}"
    )
    if alive := [pair for pair in two if not num_collapsed(pair)]:
        emds = [[v.row["emd_mean"] for v in pair] for pair in alive]
        narrow, wide = (statistics.fmean(side) for side in zip(*emds, strict=True))
        larger = sum(w > n for n, w in emds)
        text += f" (mean EMD where neither collapsed: narrow {emd_text(narrow)}, wide "
        text += f"{emd_text(wide)}, larger in {larger} of "
        text += f"{len(alive)})"
    if once := [pair for pair in two if num_collapsed(pair) == 1]:
        wide_fell = sum(wide.state == "collapsed" for _, wide in once)
        text += f"; in {len(once)} of them one collapsed, the wide clip's in "
        text += str(wide_fell)
    if len(two) > len(signs):
        text += f"; {len(two) - len(signs)} more, of which both collapsed, are left out"
    return text


def lq_net(run: Run, judged: Sequence[Verdict], some: Sequence[Setting]) -> Claim:
    """Judge claim 3: LQ-Net against the baseline, and clip against clip."""
    is_lq_net = selects("weights", "lq_net", "qat")
    some_lq = [s for s in some if is_lq_net(s.row)]
    trained = [v for v in judged if is_lq_net(v.row)]
    clips = pairs.match_pairs(trained, "clip", CLIPS["narrow"], CLIPS["wide"])
    lossy = [s.name for s in some_lq if not s.keeps_accuracy()]
    lost = [s.name for s in some_lq if not s.keeps_accuracy(LOST)]
    moved = [s.name for s in some_lq if not s.is_within]
    alive = [pair for pair in clips if num_collapsed(pair) < 2]
    apart = [label(n.row) for n, w in alive if compare_emds(n, w)]
    lack = missing_rows_verdict(run, is_lq_net)
    failed = [
        f"{what}: {', '.join(dict.fromkeys(names))}"
        for what, names in (
            ("accuracy lost", lost),
            ("firing moved", moved),
            ("clips apart", apart),
        )
        if names
    ]
    if lack:
        verdict, why = lack
    elif not clips:
        verdict, why = UNDECIDED, "no pair of clips"
    elif any(s.floor is None or s.loss is None for s in some_lq):
        verdict, why = UNDECIDED, "a baseline or its floor is missing"
    elif failed:
        verdict, why = NOT_REPRODUCED, "; ".join(failed)
    elif lossy:
        verdict = UNDECIDED
        why = f"accuracy misses a point by less than half a point: {', '.join(lossy)}"
    else:
        verdict, why = REPRODUCED, "all settings keep both and no clips are apart"
        if max_floor(trained) >= CLIPS_APART:
            verdict = UNDECIDED
            why += ", but by this floor the paper's uniform ones would not be either"
    if not lack:
        why += single_seed_note(trained)

    def compared(row: Row) -> bool:
        wide = row["bits"] == 2 and row["clip"] == CLIPS["wide"]
        return row["target"] == "weights" and (
            wide or (row["method"] == "lq_net" and row["bits"] == 6)
        )

    ours = (
        f"{len(some_lq) - len(lossy)} of {count(len(some_lq), 'setting')} keep "
        f"accuracy, {len(some_lq) - len(moved)} firing; {len(apart)} of "
        f"{count(len(alive), 'pair')} of clips are apart. Beside each other: "
        f"{format_settings(some, compared)}"
    )
    return Claim("lq_net", ours, verdict, why)


def four_bits(run: Run, some: Sequence[Setting]) -> Claim:
    """Judge claim 5: 2 bits are too few for membranes, and 4 are enough."""
    is_membrane = selects("membrane", "uniform", "qat")
    ours = [s for s in some if is_membrane(s.row)]
    enough = {(s.row["signed"], s.row["bits"]): _enough(s) for s in ours}
    lack = missing_rows_verdict(run, selects("membrane", "uniform", "qat", (2, 4)))
    both = (True, False)
    if lack:
        verdict, why = lack
    elif any((sign, b) not in enough for sign in both for b in (2, 4)):
        verdict, why = UNDECIDED, "2 or 4 bits were not trained"
    elif any(s.floor is None or s.loss is None for s in ours):
        verdict, why = UNDECIDED, "a baseline or its floor is missing"
    else:
        texts = [(enough[sign, 2], enough[sign, 4]) for sign in both]
        if any(two is True or four is False for two, four in texts):
            verdict = NOT_REPRODUCED
        else:
            verdict = UNDECIDED if None in {*texts[0], *texts[1]} else REPRODUCED
        words = {True: "are", False: "are not", None: "may be"}
        why = "; ".join(
            f"{sign}: 2 bits {words[two]} enough, 4 {words[four]}"
            for sign, (two, four) in zip(("signed", "unsigned"), texts, strict=True)
        )
        why += single_seed_note(v for s in ours for v in s.judged)
    few = format_settings(some, selects("membrane", "uniform", bits=(2, 4)))
    return Claim("four_bits", few, verdict, why)


def _enough(setting: Setting) -> bool | None:
    """Return True if its bits are enough; None where accuracy is too near to tell."""
    lost = not setting.keeps_accuracy(LOST)
    if setting.has_collapsed or lost or not setting.is_within:
        return False
    return True if setting.keeps_accuracy(POINT - MARGIN) else None


def unsigned_membranes(run: Run, judged: Sequence[Verdict]) -> Claim:
    """Judge claim 6: unsigned membranes of 2 bits against signed ones."""
    is_two_bit = selects("membrane", "uniform", bits=(2,))
    two = [v for v in judged if is_two_bit(v.row)]
    signs = pairs.match_pairs(two, "signed", True, False)
    trained = [pair for pair in signs if pair[0].row["mode"] == "qat"]
    left = [pair for pair in trained if num_collapsed(pair) < 2]
    gains = [u.row["accuracy"] - s.row["accuracy"] for s, u in left]
    firing = [compare_emds(s, u) for s, u in left]
    accuracy = [(gain > POINT) - (gain < -POINT) for gain in gains]
    lack = missing_rows_verdict(run, selects("membrane", "uniform", "qat", (2,)))
    if lack:
        verdict, why = lack
    elif not left:
        verdict, why = UNDECIDED, "of each pair both collapsed"
    elif len(left) < len(trained):
        verdict = UNDECIDED
        why = f"in {len(trained) - len(left)} of {count(len(trained), 'seed')} both "
        why += "collapsed"
    elif all(sign == 1 for sign in accuracy + firing):
        verdict, why = REPRODUCED, "in every seed, by both"
    elif any(all(sign == -1 for sign in own) for own in (accuracy, firing)):
        verdict, why = NOT_REPRODUCED, "signed is better in every seed by one of them"
    else:
        verdict = UNDECIDED
        why = (
            f"of {count(len(left), 'seed')} accuracy is better by more than a point in "
            f"{accuracy.count(1)}, EMD by more than the floor in {firing.count(1)}"
        )
    if not lack:
        why += single_seed_note(v for pair in trained for v in pair)
    texts = [
        f"seed {u.row['seed']}, {MODE_NAMES[u.row['mode']]}: unsigned "
        f"{percent(u.row['accuracy'])} / {emd_text(u.row['emd_mean'])}, signed "
        f"{percent(s.row['accuracy'])} / {emd_text(s.row['emd_mean'])}"
        for s, u in signs
        if u.row["mode"] in ("qat", "ptq_bn")
    ]
    if once := sum(num_collapsed(pair) == 1 for pair in trained):
        texts.append(f"in {once} of {count(len(trained), 'QAT pair')} one collapsed")
    return Claim("unsigned", "; ".join(texts) or "not measured", verdict, why)


def lq_membranes(run: Run, some: Sequence[Setting]) -> Claim:
    """Judge claim 7: networks with LQ-Net's levels on membranes do not train."""
    is_lq_membrane = selects("membrane", "lq_net", "qat")
    ours = [s for s in some if is_lq_membrane(s.row)]
    trained = [not s.has_collapsed and s.keeps_accuracy(TRAINED) for s in ours]
    if lack := missing_rows_verdict(run, is_lq_membrane):
        verdict, why = lack
    elif any(s.loss is None for s in ours):
        verdict, why = UNDECIDED, "a baseline is missing"
    else:
        verdict = UNDECIDED if any(trained) else REPRODUCED
        verdict = NOT_REPRODUCED if all(trained) else verdict
        why = f"{sum(trained)} of {count(len(ours), 'setting')} train"
        why += single_seed_note(v for s in ours for v in s.judged)
    absent = (
        "the grid of this study quantizes membranes uniformly "
        "(`--membrane-grid lq_net` does by LQ-Net)"
    )
    measured = format_settings(some, selects("membrane", "lq_net")) if ours else absent
    return Claim("lq_membranes", measured, verdict, why)
