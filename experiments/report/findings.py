"""The findings of one run, in three sentences."""

import pandas as pd

from experiments.report.judged import baselines, find_furthest, summarize
from experiments.study.config import MODES
from experiments.study.names import MODE_NAMES
from experiments.tables import emd_text, percent


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
    mean = bases[["accuracy", "mean_rate", "dead_fraction"]].mean()
    means = f" (means over {len(bases)} seeds)" if len(bases) > 1 else ""
    control = judged.loc[judged["mode"] == "control", "emd_mean"]
    moved = f"up to {emd_text(control.max())}" if len(control) else "an unknown EMD"
    return (
        f"The full-precision baseline reaches {percent(mean['accuracy'])} accuracy at "
        f"a mean firing rate of {mean['mean_rate']:.3f} with "
        f"{percent(mean['dead_fraction'])} of its neurons dead{means}; fine-tuning it "
        f"without a quantizer moves firing by {moved}, the choice of test images by "
        f"up to {emd_text(bases['floor_sampling'].max())}."
    )


def _describe_drift(judged: pd.DataFrame) -> str:
    if not len(judged):
        return "No quantized network is finished, so drift cannot be judged yet."
    drift = judged["state"] == "drift"
    shares = drift.groupby(judged["mode"]).agg(["sum", "size"])
    counts = [
        "{} {} of {}".format(MODE_NAMES[m], *shares.loc[m])
        for m in MODES
        if m in shares.index
    ]
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


def _describe_methods(judged: pd.DataFrame) -> str:
    if not len(judged):
        return "No quantized network is finished, so methods cannot be compared yet."
    # The mode in which most is trained: there, what is left is the quantizer's.
    mode = max(judged["mode"], key=MODES.index)
    judged = judged[judged["mode"] == mode]
    # Fewer bits move firing more: methods are compared at the bits that all have.
    bits = set.intersection(*judged.groupby("way")["bits"].agg(set))
    fair = judged[judged["bits"].isin(bits)] if bits else judged
    scores = fair.groupby("way", sort=False)["emd_mean"].mean()
    best, worst = scores.idxmin(), scores.sort_values(kind="stable").index[-1]
    if len(scores) == 1:
        return f"By {MODE_NAMES[mode]} {best} is the only method measured."
    return (
        f"By {MODE_NAMES[mode]}, over {', '.join(map(str, sorted(bits))) or 'unequal'} "
        f"bits, firing is kept best by {best} (mean EMD {emd_text(scores[best])}) and "
        f"worst by {worst} ({emd_text(scores[worst])})."
    )
