"""The paper's claims: the table of them, a rule each, and what judges a run by them."""

import statistics

import pandas as pd

from experiments.report.evidence import (
    CLIPS_APART,
    EQUAL_APART,
    LEAD,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    UNDECIDED,
    Claim,
    Evidence,
    Judgement,
    count_signs,
    majority,
    max_floor,
    select,
    single_seed_note,
)
from experiments.report.formats import count, emd_text, markdown_table, percent
from experiments.report.judged import POINT, ROUNDING, SETTING, baselines, has_learned
from experiments.report.names import MODE_NAMES
from experiments.report.pairs import Pairs, equal_accuracy_pairs, find_repeated
from experiments.report.run import Run
from experiments.study.config import MODES
from experiments.study.grid import CLIPS

TRAINED = 0.05  # accuracy that a network which trains may lose
# Accuracy this close to a point's loss decides nothing: it is within chance.
MARGIN = 0.005
LOST = POINT + MARGIN - 2 * ROUNDING  # from here on a point is clearly missed


def judge_claims(run: Run, *, lower: bool = False) -> list[Judgement]:
    """Judge `CLAIMS` by the run's rows of its own site and scope.

    Args:
        run: finished or not.
        lower: judge by the lower floors.
    """
    evidence = Evidence.of_run(run, lower=lower)
    bases = baselines(evidence.judged)[["accuracy", "dataset"]].to_numpy()
    learned = all(has_learned(*base) for base in bases)
    found = []
    for claim in CLAIMS:
        mode = _finest_mode(evidence) if claim.rule is accuracy_first else claim.mode
        wanted = select(
            evidence.planned,
            target=claim.target,
            method=claim.method,
            mode=mode,
            bits=claim.bits,
        )
        one = claim.rule(evidence)
        lack = evidence.missing(wanted)
        if lack and not (claim.stands and one.verdict == REPRODUCED):
            one = Judgement(one.ours, *lack)
        if not learned and one.verdict != NOT_RUN:
            one = Judgement(one.ours, UNDECIDED, "the baseline has not learned")
        found.append(one)
    return found


def equal_accuracy(evidence: Evidence) -> Judgement:
    """Judge pairs of equal accuracy and different firing."""
    same = equal_accuracy_pairs(evidence.judged)
    kept = same.select(same.keeps)
    hiding = kept.select(kept.hides)
    repeated = find_repeated(same, evidence.judged)
    ours = (
        f"of {count(len(same), 'pair')} of equal accuracy {len(kept)} keep it; "
        f"{kept.differs.sum()} of these differ so in EMD, and {len(hiding)} hide a "
        "drift"
    )
    more = int((repeated["seeds"] > 1).sum())
    # A pair of which both were to run in one seed alone can hide nothing in another.
    ran = evidence.planned.groupby(SETTING).size()
    modes = repeated[["mode", "far", "near"]].to_numpy()
    once = any(min(ran[m, far], ran[m, near]) == 1 for m, far, near in modes)
    if len(repeated):
        best = repeated.sort_values(["seeds", "ratio"], ascending=False, kind="stable")
        pair, seeds = best[["pair", "seeds"]].iloc[0]
        ours += f". The furthest apart of those in most seeds: {same.summarize(pair)}"
        ours += f", the least of the {seeds} seeds that ran both" * (seeds > 1)
        weights = [v["target"] == "weights" for v in (hiding.one, hiding.other)]
        ours += ". Both are weight quantizers, as the paper's are, in "
        ours += str((weights[0] & weights[1]).sum())
    if more or once:
        why = (
            f"{count(len(repeated), 'pair')} of settings hide a drift in every seed "
            f"that ran both, {more} of them in more than one"
        )
        return Judgement(ours, REPRODUCED, why + "; of one seed alone" * (not more))
    if len(hiding):
        why = "no pair hides a drift in every seed that ran both"
        return Judgement(ours, UNDECIDED, why)
    if not len(kept):
        return Judgement(ours, UNDECIDED, "no two networks keep an equal accuracy")
    seen = max_floor(evidence.judged) < EQUAL_APART
    why = "no pair's EMDs are apart by more than the floor, by which the paper's "
    why += f"{EQUAL_APART} would {'not ' * (not seen)}be seen"
    return Judgement(ours, NOT_REPRODUCED if seen else UNDECIDED, why)


def wide_clip(evidence: Evidence) -> Judgement:
    """Judge the wide clip against the narrow one, with uniform weights."""
    uniform = {"target": "weights", "method": "uniform"}
    texts = []
    for mode in ("qat", "ptq_bn", "ptq"):
        clips = evidence.match(
            "clip", CLIPS["wide"], CLIPS["narrow"], mode=mode, **uniform
        )
        texts.append(f"By {MODE_NAMES[mode]} {_describe_clips(clips)}")
    qat = select(evidence.judged, mode="qat", **uniform)
    clips = evidence.match(
        "clip", CLIPS["wide"], CLIPS["narrow"], mode="qat", **uniform
    )
    every, alive = (
        count_signs(clips.signs[clips.collapsed < limit]) for limit in (2, 1)
    )
    if not any(every):
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
    six = evidence.format_settings(select(evidence.settings, bits=(6,), **uniform))
    ours = f"{'. '.join(texts)}. At 6 bit: {six}"
    return Judgement(ours, verdict, why + single_seed_note(qat))


def _describe_clips(clips: Pairs) -> str:
    """Describe what the wide clip does in pairs of wide and narrow."""
    left = clips.select(clips.collapsed < 2)
    larger, smaller, _ = count_signs(left.signs)
    text = (
        f"the wide clip's EMD is larger by more than the floor in {larger} of "
        f"{count(len(left), 'pair')}, smaller in {smaller}"
    )
    alive = clips.select(clips.collapsed == 0)
    if len(alive):
        wide, narrow = alive.one["emd_mean"], alive.other["emd_mean"]
        text += f" (mean EMD where neither collapsed: narrow {emd_text(narrow.mean())}"
        text += f", wide {emd_text(wide.mean())}, larger in {(wide > narrow).sum()} of "
        text += f"{len(alive)})"
    once = clips.select(clips.collapsed == 1)
    if len(once):
        fell = (once.one["state"] == "collapsed").sum()
        text += f"; in {len(once)} of them one collapsed, the wide clip's in {fell}"
    if dropped := len(clips) - len(left):
        text += f"; {dropped} more, of which both collapsed, are left out"
    return text


def lq_net(evidence: Evidence) -> Judgement:
    """Judge LQ-Net against the baseline, and clip against clip."""
    wanted = {"target": "weights", "method": "lq_net", "mode": "qat"}
    settings = select(evidence.settings, **wanted)
    trained = select(evidence.judged, **wanted)
    clips = evidence.match("clip", CLIPS["narrow"], CLIPS["wide"], **wanted)
    alive = clips.select(clips.collapsed < 2)
    names = settings["setting"]
    lossy = names[~settings["keeps"]]
    moved = names[~settings["within"]]
    apart = alive.one["label"][alive.signs != 0]
    failed = [
        f"{what}: {', '.join(dict.fromkeys(some))}"
        for what, some in (
            ("accuracy lost", names[~(settings["loss"] <= LOST + ROUNDING)]),
            ("firing moved", moved),
            ("clips apart", apart),
        )
        if len(some)
    ]
    if not len(clips):
        verdict, why = UNDECIDED, "no pair of clips"
    elif settings[["floor", "loss"]].isna().any(axis=None):
        verdict, why = UNDECIDED, "a baseline or its floor is missing"
    elif failed:
        verdict, why = NOT_REPRODUCED, "; ".join(failed)
    elif len(lossy):
        verdict = UNDECIDED
        why = f"accuracy misses a point by less than half a point: {', '.join(lossy)}"
    else:
        verdict, why = REPRODUCED, "all settings keep both and no clips are apart"
        if max_floor(trained) >= CLIPS_APART:
            verdict = UNDECIDED
            why += ", but by this floor the paper's uniform ones would not be either"
    every = select(evidence.settings, target="weights")
    wide = (every["bits"] == 2) & (every["clip"] == CLIPS["wide"])
    six = (every["bits"] == 6) & (every["method"] == "lq_net")
    ours = (
        f"{len(settings) - len(lossy)} of {count(len(settings), 'setting')} keep "
        f"accuracy, {len(settings) - len(moved)} firing; {len(apart)} of "
        f"{count(len(alive), 'pair')} of clips are apart. Beside each other: "
        f"{evidence.format_settings(every[wide | six])}"
    )
    return Judgement(ours, verdict, why + single_seed_note(trained))


def _finest_mode(evidence: Evidence) -> str:
    """Return the mode of most bit widths, of equal ones that which trains most."""
    bits = evidence.planned.groupby("mode")["bits"].nunique()
    modes = evidence.run.config.modes
    return max(modes, key=lambda mode: (bits.get(mode, 0), MODES.index(mode)))


def accuracy_first(evidence: Evidence) -> Judgement:
    """Judge whether accuracy recovers with more bits before EMD does."""
    mode = _finest_mode(evidence)
    found = {m: _recoveries(evidence, m) for m in MODES}
    decisive = [shares for shares in found[mode].values() if shares]
    lead = pd.Series([accuracy - firing for accuracy, firing in decisive], dtype=float)
    signs = (lead > LEAD).astype(int) - (lead < -LEAD).astype(int)
    if select(evidence.planned, mode=mode)["bits"].nunique() < 3:
        verdict, why = UNDECIDED, "fewer than three bit widths"
    elif not decisive:
        verdict, why = UNDECIDED, "no method has much to have back"
    else:
        counts = count_signs(signs)
        verdict = majority(*counts)
        why = (
            f"by {MODE_NAMES[mode]} accuracy is ahead with "
            f"{count(counts[0], 'method')}, firing with {counts[1]}, neither with "
            f"{counts[2]}; {len(found[mode]) - len(decisive)} do not tell"
        )
    shown = {m: own for m, own in found.items() if own}
    cells = {
        m: {
            way: "{:.0f} % / {:.0f} %".format(*(100 * share for share in shares))
            for way, shares in own.items()
            if shares
        }
        for m, own in shown.items()
    }
    lines = [
        {"method": way} | {MODE_NAMES[m]: cells[m].get(way, "-") for m in shown}
        for way in dict.fromkeys(way for own in shown.values() for way in own)
    ]
    table = f"\n\n{markdown_table(lines)}" if lines else ": not measured"
    ours = f"share of accuracy / share of EMD that is back at the bits between{table}"
    return Judgement(ours, verdict, why)


def _recoveries(evidence: Evidence, mode: str) -> dict[str, tuple[float, float] | None]:
    """Return what each complete method with at least three bit widths recovers."""
    planned = select(evidence.planned, mode=mode).groupby("way")["done"].all()
    groups = select(evidence.settings, mode=mode).groupby("way", sort=False)
    return {
        way: _recovery(line) for way, line in groups if len(line) > 2 and planned[way]
    }


def _recovery(line: pd.DataFrame) -> tuple[float, float] | None:
    """Return shares of accuracy and EMD that a method recovers at the bits between.

    Of what the most bits recover, the mean share over the bit widths between the
    fewest and the most; None for a method that lost too little to recover.
    """
    few, *between, most = line.sort_values("bits").to_dict("records")
    gain = most["accuracy"] - few["accuracy"]
    fall = few["emd_mean"] - most["emd_mean"]
    if gain <= POINT + ROUNDING or fall <= few["emd_mean"] / 2 or most["collapsed"]:
        return None
    return (
        statistics.fmean((s["accuracy"] - few["accuracy"]) / gain for s in between),
        statistics.fmean((few["emd_mean"] - s["emd_mean"]) / fall for s in between),
    )


def four_bits(evidence: Evidence) -> Judgement:
    """Judge that 2 bits are too few for membranes, and 4 are enough."""
    wanted = {"target": "membrane", "method": "uniform"}
    settings = select(evidence.settings, mode="qat", **wanted)
    enough = {
        (s["signed"], s["bits"]): _is_enough(s) for s in settings.to_dict("records")
    }
    both = {"signed": True, "unsigned": False}
    if any((sign, bits) not in enough for sign in both.values() for bits in (2, 4)):
        verdict, why = UNDECIDED, "2 or 4 bits were not trained"
    elif settings[["floor", "loss"]].isna().any(axis=None):
        verdict, why = UNDECIDED, "a baseline or its floor is missing"
    else:
        found = {
            name: (enough[sign, 2], enough[sign, 4]) for name, sign in both.items()
        }
        if any(two is True or four is False for two, four in found.values()):
            verdict = NOT_REPRODUCED
        else:
            known = None not in [one for own in found.values() for one in own]
            verdict = REPRODUCED if known else UNDECIDED
        words = {True: "are", False: "are not", None: "may be"}
        why = "; ".join(
            f"{name}: 2 bits {words[two]} enough, 4 {words[four]}"
            for name, (two, four) in found.items()
        )
        why += single_seed_note(select(evidence.judged, mode="qat", **wanted))
    few = select(evidence.settings, bits=(2, 4), **wanted)
    return Judgement(evidence.format_settings(few), verdict, why)


def _is_enough(setting: dict) -> bool | None:
    """Return True if its bits are enough; None where accuracy is too near to tell."""
    lost = not setting["loss"] <= LOST + ROUNDING
    if setting["collapsed"] or lost or not setting["within"]:
        return False
    return True if setting["loss"] <= POINT - MARGIN + ROUNDING else None


def unsigned_membranes(evidence: Evidence) -> Judgement:
    """Judge unsigned membranes of 2 bits against signed ones."""
    wanted = {"target": "membrane", "method": "uniform", "bits": (2,)}
    signs = evidence.match("signed", True, False, **wanted)
    trained = signs.select(signs.one["mode"] == "qat")
    left = trained.select(trained.collapsed < 2)
    gains = left.other["accuracy"] - left.one["accuracy"]
    firing = left.signs
    accuracy = (gains > POINT).astype(int) - (gains < -POINT).astype(int)
    if not len(left):
        verdict, why = UNDECIDED, "of each pair both collapsed"
    elif len(left) < len(trained):
        verdict = UNDECIDED
        why = f"in {len(trained) - len(left)} of {count(len(trained), 'seed')} both "
        why += "collapsed"
    elif (accuracy == 1).all() and (firing == 1).all():
        verdict, why = REPRODUCED, "in every seed, by both"
    elif (accuracy == -1).all() or (firing == -1).all():
        verdict, why = NOT_REPRODUCED, "signed is better in every seed by one of them"
    else:
        verdict = UNDECIDED
        why = (
            f"of {count(len(left), 'seed')} accuracy is better by more than a point in "
            f"{(accuracy == 1).sum()}, EMD by more than the floor in "
            f"{(firing == 1).sum()}"
        )
    why += single_seed_note(pd.concat([trained.one, trained.other]))
    shown = signs.select(signs.one["mode"].isin(["qat", "ptq_bn"]))
    sides = zip(
        shown.one.to_dict("records"), shown.other.to_dict("records"), strict=True
    )
    texts = [
        f"seed {u['seed']}, {MODE_NAMES[u['mode']]}: unsigned "
        f"{percent(u['accuracy'])} / {emd_text(u['emd_mean'])}, signed "
        f"{percent(s['accuracy'])} / {emd_text(s['emd_mean'])}"
        for s, u in sides
    ]
    if once := (trained.collapsed == 1).sum():
        texts.append(f"in {once} of {count(len(trained), 'QAT pair')} one collapsed")
    return Judgement("; ".join(texts) or "not measured", verdict, why)


def lq_membranes(evidence: Evidence) -> Judgement:
    """Judge that networks with LQ-Net's levels on membranes do not train."""
    wanted = {"target": "membrane", "method": "lq_net"}
    settings = select(evidence.settings, mode="qat", **wanted)
    trained = ~settings["collapsed"].astype(bool)
    trained &= settings["loss"] <= TRAINED + ROUNDING
    if settings["loss"].isna().any():
        verdict, why = UNDECIDED, "a baseline is missing"
    else:
        verdict = UNDECIDED if trained.any() else REPRODUCED
        verdict = NOT_REPRODUCED if trained.all() else verdict
        why = f"{trained.sum()} of {count(len(settings), 'setting')} train"
        why += single_seed_note(select(evidence.judged, mode="qat", **wanted))
    if not len(settings):
        ours = "the grid of this study quantizes membranes uniformly "
        ours += "(`--membrane-grid lq_net` does by LQ-Net)"
    else:
        ours = evidence.format_settings(select(evidence.settings, **wanted))
    return Judgement(ours, verdict, why)


CLAIMS = (
    Claim("equal_accuracy", equal_accuracy, stands=True),
    Claim("wide_clip", wide_clip, "weights", "uniform", "qat"),
    Claim("lq_net", lq_net, "weights", "lq_net", "qat"),
    Claim("accuracy_first", accuracy_first),
    Claim("four_bits", four_bits, "membrane", "uniform", "qat", (2, 4)),
    Claim("unsigned", unsigned_membranes, "membrane", "uniform", "qat", (2,)),
    Claim("lq_membranes", lq_membranes, "membrane", "lq_net", "qat"),
)
