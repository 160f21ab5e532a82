"""The results page as markdown: a study's findings against the paper's.

It follows from rows and config alone, of which copies are published with it.
"""

import math
import re
from typing import Any

from experiments.console import format_duration
from experiments.report import pairs, prediction, table
from experiments.report.claims import CLIPS_APART, EQUAL_APART, judge_claims
from experiments.report.formats import (
    CAPTIONS,
    CLAIMS,
    DEFINITIONS,
    markdown_table,
    plain,
    render,
)
from experiments.report.judged import group_settings
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
    full = run.judged[run.judged["full"]]
    body = render(
        "results.md",
        config=config,
        dataset=_DATASETS[config.dataset],
        model=_MODELS[config.model],
        images=tuple(run.info.get("images", ())),
        usual_images=_IMAGES[config.dataset],
        unfinished=describe_unfinished(run),
        baselines=table.markdown(full).partition("\n\n")[2] if len(full) else "",
        means=table.describe_baselines(full),
        full=full.to_dict("records"),
        seed_distance=full["floor_seed"].max(),
        errors=_standard_errors(run),
        tables=table.tabulate_paper(run),
        measures=table.markdown(group_settings(run.judged)),
        several=run.judged_main.groupby(["mode", "setting"]).size().max() > 1,
        figures=figures,
        captions=CAPTIONS,
        alt=_describe_figure,
        claims=list(zip(CLAIMS.values(), judge_claims(run), strict=True)),
        apart=(EQUAL_APART, CLIPS_APART),
        settings=pairs,
        equal=pairs.tabulate_equal_pairs(run.judged_main),
        choices=pairs.tabulate_choices(run),
        correlations=prediction,
        prediction=_predict(run),
        **_origin(run),
    )
    used = {k: v for k, v in DEFINITIONS.items() if k.partition(",")[0] in body}
    lines = "\n".join(f"- {k}: {v}" for k, v in used.items())
    return f"{body}\n## Definitions\n\n{lines}\n"


def _describe_figure(key: str) -> str:
    """Return a figure's text for those who cannot see it: its caption's beginning."""
    caption = re.sub(r" \([^)]*\)", "", CAPTIONS[key])
    return caption.partition(":")[0].partition(".")[0]


def _standard_errors(run: Run) -> list[str]:
    """Return standard errors, of an accuracy and of differences of two networks."""
    bases = run.judged[run.judged["mode"] == "fp32"]
    if not (images := run.info.get("images")) or not len(bases):
        return []
    p = bases["accuracy"].mean()
    return [
        f"{100 * math.sqrt(v / images[1]):.2f}" for v in (p * (1 - p), 0.05, 0.1, 0.2)
    ]


def _predict(run: Run) -> dict[str, str]:
    found = prediction.collect_points(run.judged)
    if not prediction.has_enough(found):
        return {}
    lines, text = prediction.tabulate_predictions(found)
    rows = prediction.describe_rows(run.judged, found)
    return {"rows": rows, "table": lines, "text": text}


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
    options = [
        {"option": key, "value": plain(value)}
        for key, value in run.info["config"].items()
    ]
    return {
        "command": study_command(run.info["config"]),
        "starts": markdown_table(lines, ("time", "CPU time", "commit"))
        if lines
        else "",
        "number": len(starts),
        "total_time": format_duration(run.seconds),
        "num_rows": len(run.rows),
        "repeated": sum(start["rows"] for start in starts) - len(run.rows),
        "versions": ", ".join(f"{name} {' and '.join(v)}" for name, v in seen.items()),
        "config_hash": run.info["config_hash"],
        "options": markdown_table(options, ("option", "value")),
    }
