"""The findings of one run, in three sentences."""

import statistics
from collections.abc import Sequence

from experiments.report.formats import emd_text, percent
from experiments.report.names import FLOORS, MODE_NAMES, group_items, method_name
from experiments.report.table import Verdict, summarize
from experiments.study.config import MODES
from snnjax.firing._drift import baselines, noise_floors
from snnjax.runs import Row


def findings(judged: Sequence[Verdict]) -> list[str]:
    """Return exactly three sentences on one run, whatever is finished of it.

    Args:
        judged: the judged rows of one run, without its ablation.
    """
    quantized = [v for v in judged if v.state != "reference"]
    return [
        _describe_baseline([v.row for v in judged]),
        _describe_drift(quantized),
        _describe_methods(quantized),
    ]


def _describe_baseline(rows: Sequence[Row]) -> str:
    bases, floors = baselines(rows), noise_floors(rows)
    if not bases:
        return "The baseline is missing, so there is nothing to compare with yet."
    accuracy, rate, dead = (
        statistics.fmean(row[key] for row in bases)
        for key in ("accuracy", "mean_rate", "dead_fraction")
    )
    means = f" (means over {len(bases)} seeds)" if len(bases) > 1 else ""
    parts = ", ".join(
        f"{words} {emd_text(floors[name]) if name in floors else 'missing'}"
        for name, words in FLOORS.items()
    )
    floor = f"is {emd_text(max(floors.values()))}" if floors else "is missing"
    return (
        f"The full-precision baseline reaches {percent(accuracy)} accuracy at "
        f"a mean firing rate of {rate:.3f} with "
        f"{percent(dead)} of its neurons dead{means}, and the noise floor "
        f"of its EMD {floor} ({parts})."
    )


def _describe_drift(judged: Sequence[Verdict]) -> str:
    if not judged:
        return "No quantized network is finished, so drift cannot be judged yet."
    total = len(judged)
    by = {s: [v for v in judged if v.state == s] for s in ("drift", "within")}
    lower = sum(v.by_lower.state == "drift" for v in judged)
    beyond = f", beyond the lower floor in {lower}" * (lower > len(by["drift"]))
    if by["drift"]:
        modes = {m: [v.state for v in judged if v.row["mode"] == m] for m in MODES}
        counts = ", ".join(
            f"{MODE_NAMES[mode]} {states.count('drift')} of {len(states)}"
            for mode, states in modes.items()
            if states
        )
        text = (
            f"Firing drifts beyond the noise floor in {len(by['drift'])} of {total} "
            f"quantized networks ({counts}){beyond}"
        )
    elif by["within"]:
        largest = max(by["within"], key=lambda v: v.ratio)
        text = (
            f"In {len(by['within'])} of {total} quantized networks EMD lies within the "
            f"noise floor{beyond or ' and no drift was seen'} (the largest is "
            f"{summarize(largest)})"
        )
    else:
        text = f"In none of {total} quantized networks can drift be judged"
    for state, words in (
        ("collapsed", "collapsed (accuracy under twice chance)"),
        ("no floor", "have no noise floor to be judged by"),
    ):
        number = sum(v.state == state for v in judged)
        text += f"; {number} {words}" if number else ""
    if all(v.keeps_accuracy is None for v in judged):
        return f"{text}; the baseline's accuracy is missing."
    kept = [v for v in judged if v.keeps_accuracy]
    text += f"; {len(kept)} keep accuracy within a point of the baseline"
    if by["drift"]:
        hidden = [v for v in kept if v.state == "drift"]
        furthest = max(hidden or by["drift"], key=lambda v: v.ratio)
        text += f", {len(hidden)} of which drift all the same" if hidden else ""
        text += f"; furthest{' of these' if hidden else ''} is {summarize(furthest)}"
        if len({v.row["seed"] for v in judged}) > 1:
            text += f", of seed {furthest.row['seed']}"
    return f"{text}."


def _family(row: Row) -> str:
    if row["target"] == "weights":
        name = {"uniform": "uniform", "lq_net": "LQ-Net"}.get(row["method"])
        return f"{name or row['method']} weights"
    return {"membrane": "membranes"}.get(row["target"], row["target"])


def _mean_emd(some: Sequence[Verdict]) -> float:
    return statistics.fmean(v.row["emd_mean"] for v in some)


def _describe_methods(judged: Sequence[Verdict]) -> str:
    if not judged:
        return "No quantized network is finished, so methods cannot be compared yet."
    # The mode in which most is trained: there, what is left is the quantizer's.
    mode = max((v.row["mode"] for v in judged), key=MODES.index)
    judged = [v for v in judged if v.row["mode"] == mode]
    families = group_items(judged, lambda v: _family(v.row))
    methods = group_items(judged, lambda v: method_name(v.row))
    parts = [
        f"{name} {emd_text(_mean_emd(own))}, "
        f"{[v.state for v in own].count('within')} of {len(own)} within the floor"
        for name, own in families.items()
    ]
    for name in ("uniform weights", "LQ-Net weights", "membranes"):
        if name not in families:
            parts.append(f"{name} not measured")
    means = f"mean EMD: {'; '.join(parts)}"
    head = f"By {MODE_NAMES[mode]}"
    if all(v.state == "within" for v in judged):
        beyond = sum(v.by_lower.state == "drift" for v in judged)
        if not beyond:
            return f"{head} no drift was seen with any method ({means})."
        return (
            f"{head} all methods lie within the noise floor, {beyond} of {len(judged)} "
            f"networks beyond the lower one ({means})."
        )
    # Fewer bits move firing more: methods are compared at the bits that all have.
    bits = set.intersection(*({v.row["bits"] for v in m} for m in methods.values()))
    scores = {
        name: _mean_emd([v for v in own if v.row["bits"] in bits] or own)
        for name, own in methods.items()
    }
    ranked = sorted(scores, key=scores.__getitem__)
    best, worst = ranked[0], ranked[-1]
    if len(scores) == 1:
        return f"{head} {best} is the only method measured ({means})."
    over = ", ".join(map(str, sorted(bits))) or "unequal"
    return (
        f"{head}, over {over} bits, firing is kept best by {best} "
        f"(EMD {emd_text(scores[best])}) and worst by {worst} "
        f"({emd_text(scores[worst])}) ({means})."
    )
