"""The results page: what a study found, against the paper, as markdown.

It follows from the rows and the config alone, so that it can be made again, byte for
byte, from the copies of them that are published beside it.
"""

import re
from collections.abc import Sequence

from experiments.report import (
    ablation,
    methods,
    origin,
    pairs,
    pictures,
    prediction,
    references,
)
from experiments.report.claim import CLIPS_APART, EQUAL_APART, RULES, SIGNS_APART
from experiments.report.claims import claims
from experiments.report.judge import verdicts
from experiments.report.names import DEFINITIONS, emd_text, is_full
from experiments.report.run import Run, unfinished
from experiments.report.table import aligned

_DATASETS = {"digits": "digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
# In their training and test splits.
_IMAGES = {"digits": (1438, 359), "cifar10": (50_000, 10_000)}
_IMAGES["cifar100"] = _IMAGES["cifar10"]
_HIGHER, _LOWER = "by the noise floor", "by the lower floor"
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
        "What the digests leave open": _ablation(run),
        "Does EMD predict anything?": _prediction(run, figures),
        "How it was made": origin.markdown(run),
    }
    parts = [_head(run)]
    parts += [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    return "\n".join([*parts, f"## Definitions\n\n{_definitions(parts)}"])


def _definitions(parts: Sequence[str]) -> str:
    """Of the words that the page uses."""
    page = "\n".join(parts)
    used = {k: v for k, v in DEFINITIONS.items() if k.partition(",")[0] in page}
    return "\n".join(f"- {k}: {v}" for k, v in used.items()) + "\n"


def _head(run: Run) -> str:
    config = run.config
    dataset = _DATASETS[config.dataset]
    text = (
        f"# {dataset}: accuracy and firing under quantization\n\n"
        f"{_MODELS[config.model]} of width {config.width}, T = {config.timesteps}, on "
        f"{dataset}, quantized in the ways of the paper (Smith, Whitehill and Ganji, "
        "2026, arXiv 2604.14487; its networks are larger) and measured beyond "
        "accuracy. The study wrote this page from its rows; no number of ours in it "
        "was typed by hand. The paper's numbers and claims are from digests of it: its "
        "full text was not at hand.\n"
    )
    if images := run.info.get("images"):
        text += f"\n{images[0]:,} training and {images[1]:,} test images"
        if tuple(images) != (usual := _IMAGES[config.dataset]):
            text += (
                f": not all of {dataset}, which has {usual[0]:,} and {usual[1]:,}. "
                "With all of them the same command gives other numbers"
            )
        text += ".\n"
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
    both = zip(claims(run), claims(run, lower=True), strict=True)
    numbered = list(enumerate(both, 1))
    lines = [
        {
            "no.": str(n),
            "claim": claim.title,
            _HIGHER: claim.verdict,
            _LOWER: other.verdict,
        }
        for n, (claim, other) in numbered
    ]
    text = (
        "The paper's numbers are of CIFAR-100 and SEW-ResNet18, as accuracy / EMD. "
        f"{RULES}\n\n{_sizes(run)}\n\n{aligned(lines, ('claim', _HIGHER, _LOWER))}"
    )
    for n, (claim, other) in numbered:
        text += (
            f"\n### {n}. {claim.title}\n\n"
            f"- Paper: {claim.paper}.\n"
            f"- Rule: {claim.rule}.\n"
        )
        if (claim.verdict, claim.why) == (other.verdict, other.why):
            text += f"- Verdict: **{claim.verdict}** ({claim.why}).\n"
        else:
            text += f"- By the noise floor: **{claim.verdict}** ({claim.why}).\n"
            text += f"- By the lower floor: **{other.verdict}** ({other.why}).\n"
        text += _here("Here", claim.ours)
        if other.ours != claim.ours:
            text += _here("Here, by the lower floor", other.ours)
    return text


def _here(name: str, ours: str) -> str:
    end = "" if ours.endswith("\n") else ".\n"  # a table ends by itself
    return f"- {name}: {ours}{end}"


def _sizes(run: Run) -> str:
    """The differences that the paper tells, beside the floors that ours must pass."""
    judged = [v for v in verdicts(run.main) if not is_full(v.row)]
    # The paper's networks are trained with their quantizers.
    judged = [v for v in judged if v.row["mode"] == "qat"] or judged
    told = []
    for name, values in (
        ("noise floor", [v.floor for v in judged]),
        ("lower one", [v.lower for v in judged]),
    ):
        known = sorted({emd_text(value) for value in values if value is not None})
        ends = dict.fromkeys([*known[:1], *known[-1:]])
        told.append(f"the {name} is {' to '.join(ends) or 'missing'}")
    return (
        f"The paper's EMDs differ by {EQUAL_APART:.4f} in claim 1, {CLIPS_APART:.4f} "
        f"in claim 2 and {SIGNS_APART:.4f} in claim 6, and its LQ-Net networks are "
        f"0.0072 and 0.0073 from their baseline at 6 bits. Here {' and '.join(told)}: "
        "what is smaller than a floor is not seen by it, whether it is there or not."
    )


def _pairs(run: Run) -> str:
    judged = verdicts(run.main)
    if not any(not is_full(v.row) for v in judged):
        return ""
    text = (
        f"Pairs of one mode and seed whose accuracies differ by at most "
        f"{100 * pairs.EQUAL:g} points and whose EMDs are more than {pairs.OTHERWISE} "
        f"times apart: of each mode at most {pairs.SHOWN}, each setting once. First "
        "those that hide a drift: both accuracies within a point of the baseline's "
        "(after QAT, of the control's too), the larger EMD above the noise floor, and "
        "above the other by more than it. Then those that do so by the lower floor, "
        "and the furthest apart of the others."
    )
    if len(run.main) < len(run.rows):
        text += " The ablation's rows are not among these: it tells of its own pairs."
    text += "\n\n"
    same = pairs.equal(judged)
    return f"{text}{pairs.counted(same)}\n\n{pairs.top(same)}"


def _ablation(run: Run) -> str:
    found = ablation.choices(run)
    parts = [f"### {c.title}\n\n{ablation.markdown(c)}" for c in found]
    return "\n".join(parts + [f"{line}\n" for line in ablation.absent(run)])


def _prediction(run: Run, figures: str) -> str:
    text = prediction.markdown(run.rows)
    if not prediction.enough(run.rows):
        return text
    return f"{text}\n{_picture('prediction', figures, pictures.PREDICTION)}"
