"""The results page as markdown: a study's findings against the paper's.

It follows from rows and config alone, of which copies are published with it.
"""

import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence

from experiments.report import ablation, pairs, prediction, settings
from experiments.report.claims import judge_claims
from experiments.report.evidence import CLIPS_APART, EQUAL_APART, SIGNS_APART
from experiments.report.formats import (
    CAPTIONS,
    DEFINITIONS,
    PAGE,
    RULES,
    emd_text,
    points,
    spread,
)
from experiments.report.names import FLOORS, is_full
from experiments.report.run import Run, describe_origin, describe_unfinished
from experiments.report.table import markdown_table
from snnjax.runs import Row

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
        "Baselines": _baselines(run),
        "Accuracy and EMD": _tables(run, figures),
        "All measures": settings.tabulate_measures(run),
        "The paper's claims": _claims(run),
        "Equal accuracy, other firing": _pairs(run),
        "What the digests leave open": _ablation(run),
        "Does EMD predict anything?": _prediction(run, figures),
        "How it was made": describe_origin(run),
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
    if not (text := settings.paper_tables(run)):
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
            "claim": claim.text["title"],
            _HIGHER: claim.verdict,
            _LOWER: other.verdict,
        }
        for n, (claim, other) in numbered
    ]
    table = markdown_table(lines, ("claim", _HIGHER, _LOWER))
    text = f"{RULES}\n\n{_sizes(run)}\n\n{table}"
    for n, (claim, other) in numbered:
        text += "\n### {n}. {title}\n\n- Paper: {paper}.\n- Rule: {rule}.\n".format(
            n=n, **claim.text
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


def _baselines(run: Run) -> str:
    """Tabulate the full-precision networks, and their noise floors."""
    rows = {(row["mode"], row["seed"]): row for row in run.rows if is_full(row)}
    bases = [row for (mode, _), row in rows.items() if mode == "fp32"]
    if not bases:
        return "No baseline is finished yet.\n"
    controls = [rows.get(("control", row["seed"]), {}) for row in bases]
    reestimated = [rows.get(("fp32_bn", row["seed"]), {}) for row in bases]
    shown: dict[str, tuple[Iterable[Row], str, Callable[[float], str]]] = {
        "accuracy %": (bases, "accuracy", points),
        "mean rate": (bases, "mean_rate", lambda rate: f"{rate:.4f}"),
        "dead %": (bases, "dead_fraction", points),
        "saturated %": (bases, "saturated_fraction", points),
        "control's accuracy %": (controls, "accuracy", points),
        "floor: control": (controls, "emd_mean", emd_text),
        "floor: seed": (controls, "floor_seed", emd_text),
        "floor: sampling": (bases, "floor_sampling", emd_text),
    }
    if "ptq_bn" in run.config.modes:
        shown["BatchNorm re-estimated"] = (reestimated, "emd_mean", emd_text)
    lines = [{"seed": str(row["seed"])} for row in bases]
    lines += [{"seed": "mean"}] * (len(bases) > 1)
    for title, (some, key, show) in shown.items():
        values = [row.get(key) for row in some]
        known = [value for value in values if value is not None]
        # Of two seeds the floor is one distance, of more none is its own.
        if title == "floor: seed" and known:
            known = [statistics.fmean(known)]
        cells = ["-" if value is None else show(value) for value in values]
        cells.append(spread(known, show) if known else "-")
        for line, cell in zip(lines, cells, strict=False):
            line[title] = cell
    floors = ", ".join(f"{k.removeprefix('floor_')}: {v}" for k, v in FLOORS.items())
    reestimation = PAGE["reestimation"] * ("ptq_bn" in run.config.modes)
    about = PAGE["floors"].format(floors=floors, reestimation=reestimation)
    text = f"{markdown_table(lines)}\n{about} "
    text = f"{text}{_sampling_error(run, bases)}".rstrip() + "\n"
    for row in filter(None, controls):
        if (before := row.get("emd_mean_epoch_before")) is not None and before > 0:
            moved = row["emd_mean"] / before - 1
            text += (
                f"In its last epoch the EMD of seed {row['seed']}'s control went from "
                f"{emd_text(before)} to {emd_text(row['emd_mean'])}, by "
                f"{100 * moved:+.0f} %: it "
                f"{'still moved' if abs(moved) > 0.1 else 'had settled'} (by more or "
                "less than 10 %).\n"
            )
        elif before is None and run.config.qat_epochs > 1:
            text += f"Whether the EMD of seed {row['seed']}'s control had settled was "
            text += "not measured.\n"
    if len(bases) > 1:
        text += "± is the sample standard deviation over the seeds that have it.\n"
    return text


def _sampling_error(run: Run, bases: Sequence[Row]) -> str:
    """Describe the standard error of accuracy by the choice of test images."""
    if not (images := run.info.get("images")):
        return ""
    p = statistics.fmean(row["accuracy"] for row in bases)
    error = 100 * math.sqrt(p * (1 - p) / images[1])
    parts = [f"{100 * math.sqrt(d / images[1]):.2f}" for d in (0.05, 0.1, 0.2)]
    return PAGE["sampling_error"].format(error, *parts)
