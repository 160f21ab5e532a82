"""The paper's claims of single quantizers: clips, LQ-Net, membranes."""

import statistics
from collections.abc import Sequence

from experiments.report import pairs
from experiments.report.claim import (
    CLIPS_APART,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    Claim,
    alone,
    beside,
    fallen,
    highest_floor,
    is_lq_membrane,
    is_lq_net,
    is_membrane,
    is_qat,
    is_uniform,
    lacking,
    majority,
    sign_of,
)
from experiments.report.judge import POINT, Verdict
from experiments.report.names import MODE_NAMES, count, emd_text, percent
from experiments.report.run import Run
from experiments.report.settings import Setting
from experiments.study.grid import CLIPS
from snnjax.runs import Row

TRAINED = 0.05  # accuracy that a network which trains may lose


def wide_drifts(run: Run, judged: Sequence[Verdict], some: Sequence[Setting]) -> Claim:
    """Uniform weights: the wide clip against the narrow one."""
    uniform = [v for v in judged if is_uniform(v.row)]
    clips = pairs.matched(uniform, "clip", CLIPS["narrow"], CLIPS["wide"])
    told, counts = [], {}
    for mode in ("qat", "ptq_bn", "ptq"):
        two = [pair for pair in clips if pair[0].row["mode"] == mode]
        signs = [sign_of(pair[1], pair[0]) for pair in two if fallen(pair) < 2]
        alive = [sign_of(pair[1], pair[0]) for pair in two if not fallen(pair)]
        counts[mode] = [
            [some.count(sign) for sign in (1, -1, 0)] for some in (signs, alive)
        ]
        told.append(f"By {MODE_NAMES[mode]} {_clips_told(two, signs)}")
    lack = lacking(run, lambda row: is_uniform(row) and is_qat(row))
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
        why += alone(v for v in uniform if is_qat(v.row))
    six = beside(some, lambda row: is_uniform(row) and row["bits"] == 6)
    return Claim(
        "Uniform quantization drifts with the wide clip, less with the narrow one",
        "at 6 bit, narrow 74.9% / 0.0077, wide 73.7% / 0.0136",
        "QAT pairs of one grid, bits and seed. Reproduced where the wide clip's EMD is "
        "larger by more than the floor in more than half of them and smaller in none; "
        "not where as many at least are smaller as are larger, and as are neither; the "
        "same must hold without the pairs of which one collapsed",
        f"{'. '.join(told)}. At 6 bit: {six}",
        verdict,
        why,
    )


def _clips_told(two: Sequence[tuple[Verdict, Verdict]], signs: Sequence[int]) -> str:
    """What the wide clip does in pairs of narrow and wide."""
    text = (
        "the wide clip's EMD is larger by more than the floor in "
        f"{signs.count(1)} of {count(len(signs), 'pair')}, smaller in {signs.count(-1)}"
    )
    if alive := [pair for pair in two if not fallen(pair)]:
        narrow, wide = (
            statistics.fmean(pair[i].row["emd_mean"] for pair in alive) for i in (0, 1)
        )
        text += f" (mean EMD where neither collapsed: narrow {emd_text(narrow)}, wide "
        text += f"{emd_text(wide)}, larger in {sum(w > n for n, w in _emds(alive))} of "
        text += f"{len(alive)})"
    if once := [pair for pair in two if fallen(pair) == 1]:
        wide_fell = sum(wide.state == "collapsed" for _, wide in once)
        text += f"; in {len(once)} of them one collapsed, the wide clip's in "
        text += str(wide_fell)
    if len(two) > len(signs):
        text += f"; {len(two) - len(signs)} more, of which both collapsed, are left out"
    return text


def _emds(
    some: Sequence[tuple[Verdict, Verdict]],
) -> list[tuple[float, float]]:
    return [(n.row["emd_mean"], w.row["emd_mean"]) for n, w in some]


def lq_net_keeps(run: Run, judged: Sequence[Verdict], some: Sequence[Setting]) -> Claim:
    """LQ-Net: accuracy and firing against the baseline, and clip against clip."""
    ours = [s for s in some if is_lq_net(s.row) and is_qat(s.row)]
    trained = [v for v in judged if is_lq_net(v.row) and is_qat(v.row)]
    clips = pairs.matched(trained, "clip", CLIPS["narrow"], CLIPS["wide"])
    lossy = [s.name for s in ours if not s.kept]
    lost = [s.name for s in ours if s.surely_lost]
    moved = [s.name for s in ours if not s.within]
    alive = [pair for pair in clips if fallen(pair) < 2]
    apart = [n.name for n, w in alive if sign_of(n, w)]
    lack = lacking(run, lambda row: is_lq_net(row) and is_qat(row))
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
    elif any(s.floor is None or s.loss is None for s in ours):
        verdict, why = UNDECIDED, "a baseline or its floor is missing"
    elif failed:
        verdict, why = NOT_REPRODUCED, "; ".join(failed)
    elif lossy:
        verdict = UNDECIDED
        why = f"accuracy misses a point by less than half a point: {', '.join(lossy)}"
    else:
        verdict, why = REPRODUCED, "all settings keep both and no clips are apart"
        if highest_floor(trained) >= CLIPS_APART:
            verdict = UNDECIDED
            why += ", but by this floor the paper's uniform ones would not be either"
    if not lack:
        why += alone(trained)

    def told(row: Row) -> bool:
        wide = row["bits"] == 2 and row["clip"] == CLIPS["wide"]
        return row["target"] == "weights" and (
            wide or (is_lq_net(row) and row["bits"] == 6)
        )

    return Claim(
        "LQ-Net keeps accuracy and firing, and does not care for the clip",
        "at 6 bit, narrow 75.3% / 0.0073, wide 75.3% / 0.0072 (baseline 75.2%); at 2 "
        "bit wide, LQ-Net 74.4% / 0.0121 against uniform 51.6% / 0.1206",
        "QAT. Reproduced where every setting keeps accuracy and firing and no narrow "
        "and wide EMDs differ by more than the floor; one that does not is enough "
        "against it, if it is accuracy by 1.5 points at least. It is a claim of no "
        f"difference: a floor over {CLIPS_APART}, by which the paper's uniform clips "
        "are apart, can only contradict it",
        f"{len(ours) - len(lossy)} of {count(len(ours), 'setting')} keep accuracy, "
        f"{len(ours) - len(moved)} firing; {len(apart)} of "
        f"{count(len(alive), 'pair')} of clips are apart. Beside each other: "
        f"{beside(some, told)}",
        verdict,
        why,
    )


def four_bits(run: Run, some: Sequence[Setting]) -> Claim:
    """Membranes: whether 2 bits are too few, and 4 enough."""
    ours = [s for s in some if is_membrane(s.row) and is_qat(s.row)]
    enough = {(s.row["signed"], s.row["bits"]): _enough(s) for s in ours}
    lack = lacking(run, lambda r: is_membrane(r) and is_qat(r) and r["bits"] in (2, 4))
    both = (True, False)
    if lack:
        verdict, why = lack
    elif any((sign, b) not in enough for sign in both for b in (2, 4)):
        verdict, why = UNDECIDED, "2 or 4 bits were not trained"
    elif any(s.floor is None or s.loss is None for s in ours):
        verdict, why = UNDECIDED, "a baseline or its floor is missing"
    else:
        told = [(enough[sign, 2], enough[sign, 4]) for sign in both]
        if any(two is True or four is False for two, four in told):
            verdict = NOT_REPRODUCED
        else:
            verdict = UNDECIDED if None in {*told[0], *told[1]} else REPRODUCED
        words = {True: "are", False: "are not", None: "may be"}
        why = "; ".join(
            f"{sign}: 2 bits {words[two]} enough, 4 {words[four]}"
            for sign, (two, four) in zip(("signed", "unsigned"), told, strict=True)
        )
        why += alone(v for s in ours for v in s.judged)
    few = beside(some, lambda row: is_membrane(row) and row["bits"] in (2, 4))
    return Claim(
        "Membranes need 4 bits",
        "at 2 bit, unsigned 71.9% / 0.010, signed 67.1% / 0.014 (baseline 75.2%)",
        "QAT. Bits are enough where accuracy and firing are kept, and not enough where "
        "one is not; accuracy by half a point at least on either side of the point, "
        "else they may be. Reproduced where 4 are and 2 are not, signed and unsigned; "
        "not where 4 are not or 2 are",
        few,
        verdict,
        why,
    )


def _enough(setting: Setting) -> bool | None:
    """Whether its bits are enough; None where accuracy is too near to tell."""
    if setting.collapsed or setting.surely_lost or not setting.within:
        return False
    return True if setting.surely_kept else None


def unsigned_better(run: Run, judged: Sequence[Verdict]) -> Claim:
    """Membranes of 2 bits: unsigned against signed."""
    two = [v for v in judged if is_membrane(v.row) and v.row["bits"] == 2]
    signs = pairs.matched(two, "signed", True, False)
    trained = [pair for pair in signs if is_qat(pair[0].row)]
    left = [pair for pair in trained if fallen(pair) < 2]
    gains = [u.row["accuracy"] - s.row["accuracy"] for s, u in left]
    firing = [sign_of(s, u) for s, u in left]
    accuracy = [(gain > POINT) - (gain < -POINT) for gain in gains]
    lack = lacking(run, lambda r: is_membrane(r) and is_qat(r) and r["bits"] == 2)
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
        why += alone(v for pair in trained for v in pair)
    told = [
        f"seed {u.row['seed']}, {MODE_NAMES[u.row['mode']]}: unsigned "
        f"{percent(u.row['accuracy'])} / {emd_text(u.row['emd_mean'])}, signed "
        f"{percent(s.row['accuracy'])} / {emd_text(s.row['emd_mean'])}"
        for s, u in signs
        if u.row["mode"] in ("qat", "ptq_bn")
    ]
    if once := sum(fallen(pair) == 1 for pair in trained):
        told.append(f"in {once} of {count(len(trained), 'QAT pair')} one collapsed")
    return Claim(
        "At 2 bits unsigned membranes are better than signed ones",
        "unsigned 71.9% / 0.010, signed 67.1% / 0.014",
        "QAT, seed by seed. Reproduced where in every seed unsigned has a point more "
        "accuracy and an EMD smaller by more than the floor; not where signed has one "
        "of these in every seed",
        "; ".join(told) or "not measured",
        verdict,
        why,
    )


def lq_membranes(run: Run, some: Sequence[Setting]) -> Claim:
    """Membranes by LQ-Net's levels: whether such networks train."""
    ours = [s for s in some if is_lq_membrane(s.row) and is_qat(s.row)]
    trained = [
        not s.collapsed and s.loss is not None and s.loss <= TRAINED + 1e-9
        for s in ours
    ]
    if lack := lacking(run, lambda row: is_lq_membrane(row) and is_qat(row)):
        verdict, why = lack
    elif any(s.loss is None for s in ours):
        verdict, why = UNDECIDED, "a baseline is missing"
    else:
        verdict = UNDECIDED if any(trained) else REPRODUCED
        verdict = NOT_REPRODUCED if all(trained) else verdict
        why = f"{sum(trained)} of {count(len(ours), 'setting')} train"
        why += alone(v for s in ours for v in s.judged)
    return Claim(
        "LQ-Net on membranes does not train",
        "it did not train",
        "QAT. A setting trains where accuracy is within 5 points of the baseline's and "
        "of the control's. Reproduced where none does, not where all do. Here "
        "LQ-Net's codes are 0 and 1, so that zero is a level, and the gradient learns "
        "its basis",
        beside(some, is_lq_membrane)
        if ours
        else "the grid of this study quantizes membranes uniformly "
        "(`--membrane-grid lq_net` does by LQ-Net)",
        verdict,
        why,
    )
