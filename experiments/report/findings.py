"""The findings of one run, in three sentences."""

import pandas as pd

from experiments.report.formats import emd_text, percent
from experiments.report.judged import baselines, find_furthest, summarize
from experiments.report.names import MODE_NAMES
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
    bases = baselines(judged)
    if not len(bases):
        return "The baseline is missing, so there is nothing to compare with yet."
    mean = bases[["accuracy", "mean_rate", "dead_fraction", "floor_sampling"]].mean()
    means = f" (means over {len(bases)} seeds)" if len(bases) > 1 else ""
    control = judged.loc[judged["mode"] == "control", "emd_mean"]
    moved = emd_text(control.max()) if len(control) else "an unknown EMD"
    return (
        f"The full-precision baseline reaches {percent(mean['accuracy'])} accuracy at "
        f"a mean firing rate of {mean['mean_rate']:.3f} with "
        f"{percent(mean['dead_fraction'])} of its neurons dead{means}; fine-tuning it "
        f"without a quantizer moves firing by {moved}, the choice of test images by "
        f"up to {emd_text(mean['floor_sampling'])}."
    )


def _describe_drift(judged: pd.DataFrame) -> str:
    if not len(judged):
        return "No quantized network is finished, so drift cannot be judged yet."
    drift = judged["state"] == "drift"
    modes = {m: judged["mode"] == m for m in MODES if (judged["mode"] == m).any()}
    counts = (
        f"{MODE_NAMES[m]} {(drift & own).sum()} of {own.sum()}"
        for m, own in modes.items()
    )
    text = (
        f"Firing drifts in {drift.sum()} of {len(judged)} quantized networks "
        f"({', '.join(counts)})"
    )
    for state, words in (
        ("cannot_tell", "cannot be told from what moves without a quantizer"),
        ("below_margin", "moved less than that"),
        ("no_drift", "show no drift"),
        ("collapsed", "collapsed (accuracy under twice chance)"),
    ):
        number = (judged["state"] == state).sum()
        text += f"; {number} {words}" if number else ""
    if judged["loss"].isna().all():
        return f"{text}; the baseline's accuracy is missing."
    kept = judged[judged["keeps"]]
    text += f"; {len(kept)} keep accuracy within a point of the baseline"
    if drift.any():
        hidden = kept[kept["state"] == "drift"]
        some = hidden if len(hidden) else judged[drift]
        furthest = find_furthest(some)
        text += f", {len(hidden)} of which drift all the same" * bool(len(hidden))
        text += f"; furthest{' of these' * bool(len(hidden))} is {summarize(furthest)}"
        if judged["seed"].nunique() > 1:
            text += f", of seed {furthest['seed']}"
    return f"{text}."


_FAMILIES = {
    ("weights", "uniform"): "uniform weights",
    ("weights", "lq_net"): "LQ-Net weights",
    ("membrane", "uniform"): "membranes",
    ("membrane", "lq_net"): "membranes",
}


def _describe_methods(judged: pd.DataFrame) -> str:
    if not len(judged):
        return "No quantized network is finished, so methods cannot be compared yet."
    # The mode in which most is trained: there, what is left is the quantizer's.
    mode = max(judged["mode"], key=MODES.index)
    judged = judged[judged["mode"] == mode]
    keys = zip(judged["target"], judged["method"], strict=True)
    family = [_FAMILIES.get(key, f"{key[1]} {key[0]}") for key in keys]
    parts = [
        f"{name} {emd_text(own['emd_mean'].mean())}, drift in "
        f"{(own['state'] == 'drift').sum()} of {len(own)}"
        for name, own in judged.groupby(family, sort=False)
    ]
    means = f"mean EMD: {'; '.join(parts)}"
    head = f"By {MODE_NAMES[mode]}"
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
