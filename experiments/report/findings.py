"""The findings of one run, in three sentences."""

import pandas as pd

from experiments.report.formats import emd_text, percent
from experiments.report.judged import baselines, noise_floors, summarize
from experiments.report.names import FLOORS, MODE_NAMES
from experiments.study.config import MODES


def findings(judged: pd.DataFrame) -> list[str]:
    """Return exactly three sentences on one run, whatever is finished of it.

    Args:
        judged: the judged rows of one run, without its ablation.
    """
    quantized = judged[~judged["full"]]
    return [
        _describe_baseline(judged),
        _describe_drift(quantized),
        _describe_methods(quantized),
    ]


def _describe_baseline(judged: pd.DataFrame) -> str:
    bases, floors = baselines(judged), noise_floors(judged)
    if not len(bases):
        return "The baseline is missing, so there is nothing to compare with yet."
    mean = bases[["accuracy", "mean_rate", "dead_fraction"]].mean()
    means = f" (means over {len(bases)} seeds)" if len(bases) > 1 else ""
    parts = ", ".join(
        f"{words} {emd_text(floors[name]) if name in floors else 'missing'}"
        for name, words in FLOORS.items()
    )
    floor = f"is {emd_text(max(floors.values()))}" if floors else "is missing"
    return (
        f"The full-precision baseline reaches {percent(mean['accuracy'])} accuracy at "
        f"a mean firing rate of {mean['mean_rate']:.3f} with "
        f"{percent(mean['dead_fraction'])} of its neurons dead{means}, and the noise "
        f"floor of its EMD {floor} ({parts})."
    )


def _describe_drift(judged: pd.DataFrame) -> str:
    if not len(judged):
        return "No quantized network is finished, so drift cannot be judged yet."
    total = len(judged)
    drift, within = (judged[judged["state"] == s] for s in ("drift", "within"))
    lower = (judged["lower_state"] == "drift").sum()
    beyond = f", beyond the lower floor in {lower}" * int(lower > len(drift))
    if len(drift):
        modes = {m: judged.loc[judged["mode"] == m, "state"] for m in MODES}
        counts = ", ".join(
            f"{MODE_NAMES[mode]} {(states == 'drift').sum()} of {len(states)}"
            for mode, states in modes.items()
            if len(states)
        )
        text = (
            f"Firing drifts beyond the noise floor in {len(drift)} of {total} "
            f"quantized networks ({counts}){beyond}"
        )
    elif len(within):
        text = (
            f"In {len(within)} of {total} quantized networks EMD lies within the "
            f"noise floor{beyond or ' and no drift was seen'} (the largest is "
            f"{summarize(within.loc[within['ratio'].idxmax()])})"
        )
    else:
        text = f"In none of {total} quantized networks can drift be judged"
    for state, words in (
        ("collapsed", "collapsed (accuracy under twice chance)"),
        ("no floor", "have no noise floor to be judged by"),
    ):
        number = (judged["state"] == state).sum()
        text += f"; {number} {words}" if number else ""
    if judged["loss"].isna().all():
        return f"{text}; the baseline's accuracy is missing."
    kept = judged[judged["keeps"]]
    text += f"; {len(kept)} keep accuracy within a point of the baseline"
    if len(drift):
        hidden = kept[kept["state"] == "drift"]
        some = hidden if len(hidden) else drift
        furthest = some.loc[some["ratio"].idxmax()]
        text += f", {len(hidden)} of which drift all the same" * bool(len(hidden))
        text += f"; furthest{' of these' * bool(len(hidden))} is {summarize(furthest)}"
        if judged["seed"].nunique() > 1:
            text += f", of seed {furthest['seed']}"
    return f"{text}."


_FAMILIES = {
    ("weights", "uniform"): "uniform weights",
    ("weights", "lq_net"): "LQ-Net weights",
}


def _describe_methods(judged: pd.DataFrame) -> str:
    if not len(judged):
        return "No quantized network is finished, so methods cannot be compared yet."
    # The mode in which most is trained: there, what is left is the quantizer's.
    mode = max(judged["mode"], key=MODES.index)
    judged = judged[judged["mode"] == mode]
    keys = zip(judged["target"], judged["method"], strict=True)
    family = [_FAMILIES.get(key, _name_family(*key)) for key in keys]
    families = dict(list(judged.groupby(family, sort=False)))
    parts = [
        f"{name} {emd_text(own['emd_mean'].mean())}, "
        f"{(own['state'] == 'within').sum()} of {len(own)} within the floor"
        for name, own in families.items()
    ]
    for name in (*_FAMILIES.values(), "membranes"):
        if name not in families:
            parts.append(f"{name} not measured")
    means = f"mean EMD: {'; '.join(parts)}"
    head = f"By {MODE_NAMES[mode]}"
    if (judged["state"] == "within").all():
        beyond = (judged["lower_state"] == "drift").sum()
        if not beyond:
            return f"{head} no drift was seen with any method ({means})."
        return (
            f"{head} all methods lie within the noise floor, {beyond} of {len(judged)} "
            f"networks beyond the lower one ({means})."
        )
    # Fewer bits move firing more: methods are compared at the bits that all have.
    bits = set.intersection(*judged.groupby("way")["bits"].agg(set))
    fair = judged[judged["bits"].isin(bits)] if bits else judged
    scores = fair.groupby("way", sort=False)["emd_mean"].mean()
    best, worst = scores.idxmin(), scores.sort_values(kind="stable").index[-1]
    if len(scores) == 1:
        return f"{head} {best} is the only method measured ({means})."
    over = ", ".join(map(str, sorted(bits))) or "unequal"
    return (
        f"{head}, over {over} bits, firing is kept best by {best} "
        f"(EMD {emd_text(scores[best])}) and worst by {worst} "
        f"({emd_text(scores[worst])}) ({means})."
    )


def _name_family(target: str, method: str) -> str:
    named = {"membrane": "membranes", "weights": f"{method} weights"}
    return named.get(target, target)
