"""The results page: what a study found, against the paper, as markdown.

It follows from the rows and the config alone, so that it can be made again, byte for
byte, from the copies of them that are published beside it.
"""

import dataclasses
import re

from experiments.report import (
    ablation,
    methods,
    origin,
    pairs,
    pictures,
    prediction,
    references,
)
from experiments.report.claim import RULES
from experiments.report.claims import claims
from experiments.report.judge import verdicts
from experiments.report.names import DEFINITIONS, is_full
from experiments.report.run import Run, unfinished
from experiments.report.table import aligned

_DATASETS = {"digits": "digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_LOWER = "by the lower floor"
_MODELS = {"sew_resnet8": "SEW-ResNet8", "sew_resnet18": "SEW-ResNet18"}


def markdown(run: Run, figures: str = "figures") -> str:
    """The page.

    Args:
        run: what was run, finished or not.
        figures: the folder of its figures, as the page links to it.
    """
    sections = {
        "Baselines": references.markdown(run),
        "Accuracy and EMD": _tables(run, figures),
        "All measures": methods.all_measures(run),
        "The paper's claims": _claims(run),
        "Equal accuracy, other firing": _pairs(run),
        "What the paper leaves open": _ablation(run),
        "Does EMD predict anything?": _prediction(run, figures),
        "How it was made": origin.markdown(run),
        "Definitions": "\n".join(f"- {k}: {v}" for k, v in DEFINITIONS.items()) + "\n",
    }
    parts = [_head(run)]
    parts += [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    return "\n".join(parts)


def _head(run: Run) -> str:
    config = run.config
    dataset = _DATASETS[config.dataset]
    text = (
        f"# {dataset}: accuracy and firing under quantization\n\n"
        f"{_MODELS[config.model]} of width {config.width}, T = {config.timesteps}, on "
        f"{dataset}, quantized in the ways of the paper (Smith, Whitehill and Ganji, "
        "2026, arXiv 2604.14487; its networks are larger) and measured beyond "
        "accuracy. The study wrote this page from its rows; no number of ours in it "
        "was typed by hand.\n"
    )
    if images := run.info.get("images"):
        text += f"\n{images[0]:,} training and {images[1]:,} test images.\n"
    if left := unfinished(run):
        text += f"\n**{left}** The page is of the rows that are there.\n"
    return text


def _tables(run: Run, figures: str) -> str:
    """The paper's tables, and the figures of them."""
    if not (text := methods.paper(run)):
        return "No quantized network is finished yet.\n"
    text += f"\n{_picture('over_bits', figures, pictures.OVER_BITS)}"
    return f"{text}\n{_picture('layers', figures, pictures.LAYER_MAP)}"


def _picture(name: str, folder: str, caption: str) -> str:
    alt = re.sub(r" \([^)]*\)", "", caption).partition(":")[0].partition(".")[0]
    return f"![{alt}]({folder}/{name}.png)\n\n{caption}\n"


def _claims(run: Run) -> str:
    found = claims(run)
    # What another seed moves is often the most; what follows without it, beside it.
    rows = [row | {"floor_seed": None} for row in run.rows]
    lower = claims(dataclasses.replace(run, rows=rows))
    numbered = list(enumerate(zip(found, lower, strict=True), 1))
    lines = [
        {
            "no.": str(n),
            "claim": claim.title,
            "verdict": f"**{claim.verdict}**",
            _LOWER: other.verdict,
        }
        for n, (claim, other) in numbered
    ]
    text = (
        "The paper's numbers are of CIFAR-100 and SEW-ResNet18, as accuracy / EMD. "
        f"{RULES} The last column judges by a lower floor: training on and other test "
        "images, without other seeds.\n\n"
        f"{aligned(lines, ('claim', 'verdict', _LOWER))}"
    )
    for n, (claim, other) in numbered:
        text += (
            f"\n### {n}. {claim.title}\n\n"
            f"- Paper: {claim.paper}.\n"
            f"- Rule: {claim.rule}.\n"
            f"- Verdict: **{claim.verdict}** ({claim.why}).\n"
        )
        if (claim.verdict, claim.why) != (other.verdict, other.why):
            text += f"- By the lower floor: {other.verdict} ({other.why}).\n"
        text += f"- Here: {claim.ours}"
        text += "" if claim.ours.endswith("\n") else ".\n"
    return text


def _pairs(run: Run) -> str:
    judged = verdicts(run.main)
    if not any(not is_full(v.row) for v in judged):
        return ""
    text = (
        f"Pairs of one mode and seed whose accuracies differ by at most "
        f"{100 * pairs.EQUAL:g} points and whose EMDs are more than {pairs.OTHERWISE} "
        f"times apart: of each mode at most {pairs.SHOWN}, each setting once. First "
        "those that hide a drift: both accuracies within a point of the baseline, the "
        "larger EMD above the noise floor, and above the other by more than it. Then "
        "the furthest apart, marked where their difference is within the floor or "
        "accuracy is not kept.\n\n"
    )
    same = pairs.equal(judged)
    return f"{text}{pairs.counted(same)}\n\n{pairs.top(same)}"


def _ablation(run: Run) -> str:
    found = ablation.choices(run)
    return "\n".join(f"### {c.title}\n\n{ablation.markdown(c)}" for c in found)


def _prediction(run: Run, figures: str) -> str:
    text = prediction.markdown(run.rows)
    if not prediction.enough(run.rows):
        return text
    return f"{text}\n{_picture('prediction', figures, pictures.PREDICTION)}"
