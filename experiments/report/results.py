"""The results page as markdown: a study's findings against the paper's.

It follows from rows and config alone, of which copies are published with it.
"""

import re
from collections.abc import Sequence

from experiments.report import (
    ablation,
    methods,
    origin,
    pairs,
    prediction,
    references,
)
from experiments.report.claims import judge_claims
from experiments.report.claims.evidence import CLIPS_APART, EQUAL_APART, SIGNS_APART
from experiments.report.formats import emd_text
from experiments.report.names import is_full
from experiments.report.prose import CAPTIONS, DEFINITIONS, PAGE, RULES
from experiments.report.run import Run, describe_unfinished
from experiments.report.table import markdown_table

_DATASETS = {"digits": "digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
# In their training and test splits.
_IMAGES = {"digits": (1438, 359), "cifar10": (50_000, 10_000)}
_IMAGES["cifar100"] = _IMAGES["cifar10"]
_HIGHER, _LOWER = "by the noise floor", "by the lower floor"
_MODELS = {"sew_resnet8": "SEW-ResNet8", "sew_resnet18": "SEW-ResNet18"}


def markdown(run: Run, figures: str = "figures") -> str:
    """Return the page.

    Args:
        run: what was run, finished or not.
        figures: the folder of its figures, as the page links to it.
    """
    sections = {
        "Baselines": references.markdown(run),
        "Accuracy and EMD": _tables(run, figures),
        "All measures": methods.tabulate_measures(run),
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
    """Define the words that the page uses."""
    page = "\n".join(parts)
    used = {k: v for k, v in DEFINITIONS.items() if k.partition(",")[0] in page}
    return "\n".join(f"- {k}: {v}" for k, v in used.items()) + "\n"


def _head(run: Run) -> str:
    config = run.config
    dataset = _DATASETS[config.dataset]
    text = PAGE["head"].format(
        dataset=dataset, model=_MODELS[config.model], config=config
    )
    text = f"# {dataset}: accuracy and firing under quantization\n\n{text}\n"
    if images := run.info.get("images"):
        text += f"\n{images[0]:,} training and {images[1]:,} test images"
        if tuple(images) != (usual := _IMAGES[config.dataset]):
            text += (
                f": not all of {dataset}, which has {usual[0]:,} and {usual[1]:,}. "
                "With all of them the same command gives other numbers"
            )
        text += ".\n"
    if left := describe_unfinished(run):
        text += f"\n**{left}** The page is of the rows that are there.\n"
    return text


def _tables(run: Run, figures: str) -> str:
    """Return the paper's tables and their figures."""
    if not (text := methods.paper_tables(run)):
        return "No quantized network is finished yet.\n"
    text += f"\n{_picture('over_bits', figures)}"
    return f"{text}\n{_picture('layers', figures, 'layer_map')}"


def _picture(name: str, folder: str, key: str = "") -> str:
    caption = CAPTIONS[key or name]
    alt = re.sub(r" \([^)]*\)", "", caption).partition(":")[0].partition(".")[0]
    return f"![{alt}]({folder}/{name}.png)\n\n{caption}\n"


def _claims(run: Run) -> str:
    both = zip(judge_claims(run), judge_claims(run, lower=True), strict=True)
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
    table = markdown_table(lines, ("claim", _HIGHER, _LOWER))
    text = f"{RULES}\n\n{_sizes(run)}\n\n{table}"
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
        text += _ours("Here", claim.ours)
        if other.ours != claim.ours:
            text += _ours("Here, by the lower floor", other.ours)
    return text


def _ours(name: str, ours: str) -> str:
    end = "" if ours.endswith("\n") else ".\n"  # a table ends by itself
    return f"- {name}: {ours}{end}"


def _sizes(run: Run) -> str:
    """Compare the paper's differences with the floors that ours must exceed."""
    judged = [v for v in run.judged_main if not is_full(v.row)]
    # The paper's networks are trained with their quantizers.
    judged = [v for v in judged if v.row["mode"] == "qat"] or judged
    parts = []
    for name, values in (
        ("noise floor", [v.floor for v in judged]),
        ("lower one", [v.lower for v in judged]),
    ):
        known = sorted({emd_text(value) for value in values if value is not None})
        ends = dict.fromkeys([*known[:1], *known[-1:]])
        parts.append(f"the {name} is {' to '.join(ends) or 'missing'}")
    return PAGE["sizes"].format(
        EQUAL_APART, CLIPS_APART, SIGNS_APART, " and ".join(parts)
    )


def _pairs(run: Run) -> str:
    judged = run.judged_main
    if all(is_full(v.row) for v in judged):
        return ""
    text = PAGE["pairs"].format(
        equal=f"{100 * pairs.EQUAL:g}", different=pairs.DIFFERENT, shown=pairs.SHOWN
    )
    if len(run.main) < len(run.rows):
        text += " The ablation's rows are not among these: it tells of its own pairs."
    text += "\n\n"
    same = pairs.equal_accuracy_pairs(judged)
    return f"{text}{pairs.describe_counts(same)}\n\n{pairs.tabulate(same)}"


def _ablation(run: Run) -> str:
    found = ablation.find_choices(run)
    parts = [f"### {c.title}\n\n{ablation.markdown(c)}" for c in found]
    return "\n".join(parts + [f"{line}\n" for line in ablation.describe_missing(run)])


def _prediction(run: Run, figures: str) -> str:
    text = prediction.markdown(run.judged)
    if not prediction.has_enough(run.judged):
        return text
    return f"{text}\n{_picture('prediction', figures)}"
