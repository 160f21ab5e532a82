"""The results pages as markdown: a study's findings against the paper's.

They follow from rows and config alone, of which copies are published with it.
"""

import math
import re
from typing import Any

from experiments import tables
from experiments.console import format_duration
from experiments.report import pairs, table
from experiments.report.claims import judge_claims
from experiments.report.effects import CLIPS_APART, EQUAL_APART
from experiments.report.findings import findings
from experiments.report.judged import FEWEST, SETTING, group_settings
from experiments.report.run import Run, describe_unfinished
from experiments.report.words import CAPTIONS, CLAIMS, DEFINITIONS, render
from experiments.study.command import make_command
from experiments.study.names import DATASET_NAMES, MODE_NAMES, MODEL_NAMES

# In their training and test splits.
_IMAGES = {"digits": (1438, 359), "cifar10": (50_000, 10_000)}
_IMAGES["cifar100"] = _IMAGES["cifar10"]


def summarize(run: Run, figures: str = "figures", details: str = "details.md") -> str:
    """Return the page of results: findings, a table, figures, verdicts on the claims.

    Args:
        run: what was run, finished or not.
        figures: the folder of its figures, as the page links to it.
        details: the page of `detail`, as this one links to it.
    """
    return render(
        "results.md",
        **_collect_common(run),
        images=tuple(run.info.get("images", ())),
        usual_images=_IMAGES[run.config.dataset],
        unfinished=describe_unfinished(run),
        findings=findings(run.judged_main),
        glance=None if run.judged_main["full"].all() else table.tabulate_glance(run),
        list_seeds=tables.list_seeds,
        figures=figures,
        captions=CAPTIONS,
        alt=_describe_figure,
        details=details,
    )


def detail(run: Run, name: str | None = None) -> str:
    """Return the page of all rows, claims, definitions and the run's origin.

    Args:
        run: what was run, finished or not.
        name: the published page's; None: the page of a run folder.
    """
    full = run.judged[run.judged["full"]]
    body = render(
        "details.md",
        **_collect_common(run),
        summary="results.md" if name is None else f"{name}.md",
        name=name or run.config.dataset,
        baselines=table.markdown(full).partition("\n\n")[2] if len(full) else "",
        full=full,
        modes=MODE_NAMES,
        show=tables,
        seed_distance=full["floor_seed"].mean(),
        errors=_standard_errors(run),
        paper=table.tabulate_paper(run),
        measures=table.markdown(group_settings(run.judged)),
        apart=(EQUAL_APART, CLIPS_APART),
        settings=pairs,
        equal=pairs.tabulate_equal_pairs(run.judged_main),
        choices=pairs.tabulate_choices(run),
        **_origin(run),
    )
    used = {k: v for k, v in DEFINITIONS.items() if k.partition(",")[0] in body}
    lines = "\n".join(f"- {k}: {v}" for k, v in used.items())
    return f"{body}\n## Definitions\n\n{lines}\n"


def _collect_common(run: Run) -> dict[str, Any]:
    """Return the values that both pages take."""
    quantized = run.judged_main[~run.judged_main["full"]]
    seeds = quantized.groupby(SETTING).size().max()
    return {
        "config": run.config,
        "dataset": DATASET_NAMES[run.config.dataset],
        "model": MODEL_NAMES[run.config.model],
        "several": seeds > 1,
        "many": seeds >= FEWEST,
        "fewest": FEWEST,
        "claims": list(zip(CLAIMS.values(), judge_claims(run), strict=True)),
    }


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


def _origin(run: Run) -> dict[str, Any]:
    """Return all that it takes to repeat the run."""
    # Each row's own: a run may resume after an upgrade.
    seen: dict[str, dict[str, None]] = {}
    own = [row["versions"] for row in run.rows if "versions" in row]
    for versions in own or [run.info.get("versions", {})]:
        for package, version in versions.items():
            seen.setdefault(package, {})[version] = None
    starts = run.info.get("starts", [])
    options = [
        {"option": key, "value": tables.plain(value)}
        for key, value in run.info["config"].items()
    ]
    return {
        "command": make_command(run.info["config"]),
        "starts": len(starts),
        "total_time": format_duration(run.seconds),
        "commits": list(dict.fromkeys(str(start.get("commit")) for start in starts)),
        "num_rows": len(run.rows),
        "repeated": sum(start["rows"] for start in starts) - len(run.rows),
        "versions": ", ".join(f"{name} {' and '.join(v)}" for name, v in seen.items()),
        "config_hash": run.info["config_hash"],
        "options": tables.markdown_table(options, ("option", "value")),
    }
