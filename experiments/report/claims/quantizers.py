"""The claims on single quantizers: clips, LQ-Net, membranes."""

import statistics
from collections.abc import Sequence

from experiments.report import pairs
from experiments.report.claims.evidence import (
    CLIPS_APART,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    Claim,
    compare_emds,
    format_settings,
    majority,
    max_floor,
    missing_rows_verdict,
    num_collapsed,
    selects,
    single_seed_note,
)
from experiments.report.formats import count, emd_text, percent
from experiments.report.judge import Verdict, label
from experiments.report.names import MODE_NAMES
from experiments.report.run import Run
from experiments.report.settings import Setting
from experiments.study.grid import CLIPS
from snnjax.firing._drift import POINT, ROUNDING
from snnjax.runs import Row

TRAINED = 0.05  # accuracy that a network which trains may lose


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


def _describe_clips(
    two: Sequence[tuple[Verdict, Verdict]], signs: Sequence[int]
) -> str:
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
    lossy = [s.name for s in some_lq if not s.keeps_accuracy]
    lost = [s.name for s in some_lq if s.accuracy_clearly_lost]
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
    if setting.has_collapsed or setting.accuracy_clearly_lost or not setting.is_within:
        return False
    return True if setting.accuracy_clearly_kept else None


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
    trained = [
        not s.has_collapsed and s.loss is not None and s.loss <= TRAINED + ROUNDING
        for s in ours
    ]
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
