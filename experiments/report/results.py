"""The results page as markdown: a study's findings against the paper's.

It follows from rows and config alone, of which copies are published with it.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from experiments.console import format_duration
from experiments.report import ablation, pairs, prediction, rank_correlation, settings
from experiments.report.claims import CLAIMS, judge_claims
from experiments.report.evidence import CLIPS_APART, EQUAL_APART, SIGNS_APART
from experiments.report.formats import (
    CAPTIONS,
    DEFINITIONS,
    count,
    emd_text,
    markdown_table,
    plain,
    render,
)
from experiments.report.judged import select_quantized
from experiments.report.names import FLOORS
from experiments.report.run import Run, describe_unfinished, study_command

_DATASETS = {"digits": "digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
# In their training and test splits.
_IMAGES = {"digits": (1438, 359), "cifar10": (50_000, 10_000)}
_IMAGES["cifar100"] = _IMAGES["cifar10"]
_MODELS = {"sew_resnet8": "SEW-ResNet8", "sew_resnet18": "SEW-ResNet18"}


def markdown(run: Run, figures: str = "figures") -> str:
    """Return the page.

    Args:
        run: what was run, finished or not.
        figures: the folder of its figures, as the page links to it.
    """
    config = run.config
    body = render(
        "results.md",
        config=config,
        dataset=_DATASETS[config.dataset],
        model=_MODELS[config.model],
        images=tuple(run.info.get("images", ())),
        usual_images=_IMAGES[config.dataset],
        unfinished=describe_unfinished(run),
        tables=settings.paper_tables(run),
        measures=settings.tabulate_measures(run),
        several=run.judged_main.groupby(["mode", "setting"]).size().max() > 1,
        figures=figures,
        captions=CAPTIONS,
        alt=_describe_figure,
        count=count,
        pairs=pairs,
        has_ablation=len(run.judged_main) < len(run.judged),
        choices=_describe_choices(run),
        fewest=prediction.FEWEST,
        rank_correlation=rank_correlation,
        prediction=_predict(run),
        **_baselines(run),
        **_claims(run),
        **_count_pairs(run.judged_main),
        **_origin(run),
    )
    used = {k: v for k, v in DEFINITIONS.items() if k.partition(",")[0] in body}
    lines = "\n".join(f"- {k}: {v}" for k, v in used.items())
    return f"{body}\n## Definitions\n\n{lines}\n"


def _describe_figure(key: str) -> str:
    """Return a figure's text for those who cannot see it: its caption's beginning."""
    caption = re.sub(r" \([^)]*\)", "", CAPTIONS[key])
    return caption.partition(":")[0].partition(".")[0]


def _baselines(run: Run) -> dict[str, Any]:
    lines, controls = settings.tabulate_baselines(run)
    bases = run.judged[run.judged["mode"] == "fp32"]
    errors: Sequence[str] = ()
    if (images := run.info.get("images")) and len(bases):
        p = bases["accuracy"].mean()
        variances = (p * (1 - p), 0.05, 0.1, 0.2)
        errors = [f"{100 * math.sqrt(v / images[1]):.2f}" for v in variances]
    floors = (f"{k.removeprefix('floor_')}: {v}" for k, v in FLOORS.items())
    return {
        "baselines": lines,
        "controls": controls,
        "errors": errors,
        "floors": ", ".join(floors),
        "reestimates": "ptq_bn" in run.config.modes,
    }


def _claims(run: Run) -> dict[str, Any]:
    both = (judge_claims(run), judge_claims(run, lower=True))
    claims = list(zip(CLAIMS, *both, strict=True))
    lines = [
        {
            "no.": str(n),
            "claim": claim.text["title"],
            "by the noise floor": one.verdict,
            "by the lower floor": other.verdict,
        }
        for n, (claim, one, other) in enumerate(claims, 1)
    ]
    quantized = select_quantized(run.judged_main)
    # The paper's networks are trained with their quantizers.
    trained = quantized[quantized["mode"] == "qat"]
    some = trained if len(trained) else quantized
    return {
        "claims": claims,
        "verdicts": markdown_table(lines, tuple(lines[0])[1:]),
        "apart": [f"{x:.4f}" for x in (EQUAL_APART, CLIPS_APART, SIGNS_APART)],
        "sizes": [_range(some[floor].dropna()) for floor in ("floor", "lower")],
    }


def _range(values: pd.Series) -> str:
    known = sorted({emd_text(value) for value in values})
    return " to ".join(dict.fromkeys([*known[:1], *known[-1:]])) or "missing"


def _count_pairs(judged: pd.DataFrame) -> dict[str, Any]:
    same = pairs.equal_accuracy_pairs(judged)
    return {
        "pair_counts": pairs.count_pairs(same),
        "pair_lines": pairs.tabulate_pairs(same),
    }


def _describe_choices(run: Run) -> list[str]:
    found = ablation.find_choices(run)
    parts = [f"### {c.title}\n\n{ablation.markdown(c)}" for c in found]
    return parts + [f"{line}\n" for line in ablation.describe_missing(run)]


def _predict(run: Run) -> dict[str, str]:
    found = prediction.collect_points(run.judged)
    if not prediction.has_enough(found):
        return {}
    table, text = prediction.tabulate_predictions(found)
    rows = prediction.describe_rows(run.judged, found)
    return {"rows": rows, "table": table, "text": text}


def _origin(run: Run) -> dict[str, Any]:
    """Return all that it takes to repeat the run."""
    # Each row's own: a run may resume after an upgrade.
    seen: dict[str, dict[str, None]] = {}
    own = [row["versions"] for row in run.rows if "versions" in row]
    for versions in own or [run.info.get("versions", {})]:
        for package, version in versions.items():
            seen.setdefault(package, {})[version] = None
    starts = run.info.get("starts", [])
    lines = [
        {
            "start": str(n),
            "rows": str(start["rows"]),
            "time": format_duration(start["seconds"]),
            "CPU time": format_duration(start["cpu_seconds"])
            if "cpu_seconds" in start
            else "-",
            "devices": str(start.get("devices", "-")),
            "commit": start.get("commit") or "-",
        }
        for n, start in enumerate(starts, 1)
    ]
    return {
        "command": study_command(run.info["config"]),
        "starts": lines,
        "total_time": format_duration(run.seconds),
        "num_rows": len(run.rows),
        "repeated": sum(start["rows"] for start in starts) - len(run.rows),
        "versions": ", ".join(f"{name} {' and '.join(v)}" for name, v in seen.items()),
        "config_hash": run.info["config_hash"],
        "options": [
            {"option": key, "value": plain(value)}
            for key, value in run.info["config"].items()
        ],
    }
