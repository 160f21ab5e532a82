"""What a report calls things: methods, modes, floors, and how it prints numbers."""

from typing import Any

import numpy as np

from experiments.study.grid import CLIPS
from experiments.study.measure import FLOORS as FLOORS
from snnjax.runs import Row

MODE_NAMES = {
    "fp32": "baseline",
    "control": "control",
    "fp32_bn": "baseline+BN",
    "ptq": "PTQ",
    "ptq_bn": "PTQ+BN",
    "qat": "QAT",
}
DEFINITIONS = {
    "rate": "spikes of a neuron / (T x images), over the whole test set",
    "EMD": "earth mover's distance: the exact W1 between the firing rates of a layer's "
    "neurons in the baseline and in the quantized network; unless a layer is named, "
    "its mean over layers",
    "paired shift": "mean |rate - rate'| neuron by neuron; |mean shift| <= EMD <= "
    "paired shift in every layer, and EMD does not see neurons that swap their rates",
    "KS": "Kolmogorov-Smirnov: the largest share of a layer's neurons by which the "
    "distributions of rates differ at any rate; it counts neurons, not their way",
    "latency EMD": "earth mover's distance between the neurons' mean first-spike "
    "latencies (T for a silent image), in time steps",
    "time-W1": "how far spikes move in time, image by image and neuron by neuron, in "
    "time steps: the cheapest matching of a neuron's spikes in the baseline and in the "
    "quantized network, where a spike left over costs T/2",
    "mean rate": "mean over all neurons",
    "dead": "rate < 0.05",
    "saturated": "rate > 0.95",
    "noise floor": "the largest EMD from the baseline that shows without quantization: "
    "of the control (the baseline fine-tuned in full precision for QAT's steps), of "
    "other seeds (their mean), and what the baseline shows against itself on other "
    "images (the EMD that 5 % of pairs of bootstrap samples of the test images exceed; "
    "a quantized network sees the same images as its baseline, so for it that is an "
    "upper bound); for PTQ+BN at least what BatchNorm taken anew moves in the baseline",
    "no drift seen": "EMD is at most what the choice of test images makes",
    "lower floor": "what the way to the row moves by itself, without a quantizer and "
    "without other seeds: for PTQ other test images, for PTQ+BN BatchNorm taken anew "
    "too, for QAT the control too. Above it firing moved; above the noise floor it "
    "moved by more than another seed moves it",
    "within": "EMD is at most the lower floor; beyond it the table tells how many "
    "times it is the lower floor, or the noise floor where it is above that too; of "
    "seeds that differ, in how many firing moved (beyond the lower floor), drifted "
    "(beyond the noise floor) or collapsed",
    "collapsed": "accuracy under twice chance, where the baseline's is not",
    "PTQ, PTQ+BN": "quantized without any training; +BN: only BatchNorm's running "
    "statistics are taken anew, as in baseline+BN",
    "QAT": "the baseline, trained on with the quantizer",
    "narrow, wide": "weights clipped to [-1, 1], to [-10, 10]",
    "everywhere": "the stem and the last layer too, not the residual blocks alone",
    "pre-fire": "the membrane is quantized as the threshold sees it, not as it is kept",
    "synaptic operations": "spikes times the connections that each has, an image",
}


def is_full(row: Row) -> bool:
    return row["target"] == "none"


def count(number: int, noun: str) -> str:
    """So many of them.

    >>> count(1, "pair"), count(2, "pair")
    ('1 pair', '2 pairs')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def emd_text(emd: float) -> str:
    """Four decimals, as the paper prints EMDs; two digits where these say nothing."""
    if emd == 0 or emd >= 0.00095:
        return f"{emd:.4f}"
    return np.format_float_positional(emd, precision=2, fractional=False, trim="-")


def method_name(row: Row) -> str:
    """What the row quantizes and how, without its bits and mode.

    >>> method_name(dict(target="weights", method="uniform", grid="mid_rise",
    ...                  clip=10.0, signed=True))
    'uniform mid-rise wide'
    """
    if row["target"] == "none":
        return f"full precision, seed {row['seed']}"
    clips = {bound: name for name, bound in CLIPS.items()}
    clip = clips.get(row["clip"], f"clip {row['clip']}")
    sign = "signed" if row["signed"] else "unsigned"
    method = {"lq_net": "LQ-Net"}.get(row["method"], row["method"])
    grid = (row["grid"] or "").replace("_", "-")
    if row["target"] == "membrane":
        parts = ["membrane", method * (method != "uniform"), sign]
        parts.append(clip * (clip != "narrow"))
        parts.append(grid * (grid != "mid-tread"))
        parts.append("pre-fire" * (row.get("site") == "pre_fire"))
    else:
        target = row["target"] * (row["target"] != "weights")
        parts = [target, method, grid, clip, sign * (not row["signed"])]
    parts.append("everywhere" * bool(row.get("quantize_all")))
    return " ".join(part for part in parts if part)


def setting_name(row: Row) -> str:
    """Method and bits: what the rows of several seeds and modes have in common."""
    name = method_name(row)
    return name if is_full(row) else f"{name} {row['bits']} bit"


def plain(value: Any) -> str:
    """An option's value, or its values; not set is another thing than none of them."""
    values = value if isinstance(value, list) else [value]
    return ", ".join("not set" if v is None else str(v) for v in values) or "none"


def method_order(row: Row) -> tuple[Any, ...]:
    """Sort key: full precision, weights (uniform, LQ-Net), membrane, the rest."""
    targets, methods = ("none", "weights", "membrane"), (None, "uniform", "lq_net")
    return (
        (*targets, row["target"]).index(row["target"]),
        bool(row.get("quantize_all")),
        row.get("site") == "pre_fire",
        (*methods, row["method"]).index(row["method"]),
        row["grid"] or "",
        row["clip"] or 0.0,
        not row["signed"],
    )
