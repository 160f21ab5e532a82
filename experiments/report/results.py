"""The results page: what a study found, against the paper, as markdown.

It follows from the rows and the config alone, so that it can be made again, byte for
byte, from the copies of them that are published beside it.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence

from experiments.common import MODES, Row
from experiments.report import ablation, origin, pairs, pictures, prediction
from experiments.report.claim import RULES
from experiments.report.claims import claims
from experiments.report.judge import verdicts
from experiments.report.names import (
    DEFINITIONS,
    FLOORS,
    MODE_NAMES,
    emd_text,
    is_full,
    method_name,
)
from experiments.report.run import Run, unfinished
from experiments.report.settings import Setting, settings
from experiments.report.table import aligned, over_layers

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
        "Baselines": _baselines(run),
        "Accuracy and EMD": _paper(run, figures),
        "All measures": _measures(run),
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
    if left := unfinished(run):
        text += f"\n**{left}** The page is of the rows that are there.\n"
    return text


def _spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    """The mean, and the sample standard deviation where there are several."""
    text = show(statistics.fmean(values))
    if len(values) == 1:
        return text
    # To as many digits as the mean, unless that is told by its power of ten.
    form = ".2g" if "e" in text else f".{len(text.partition('.')[2])}f"
    scale = 100 if show is _points else 1
    return f"{text} ± {scale * statistics.stdev(values):{form}}"


def _mean(values: Sequence[float], show: Callable[[float], str]) -> str:
    return show(statistics.fmean(values))


def _points(share: float) -> str:
    return f"{100 * share:.2f}"


def _baselines(run: Run) -> str:
    rows = {(row["mode"], row["seed"]): row for row in run.rows if is_full(row)}
    bases = [row for (mode, _), row in rows.items() if mode == "fp32"]
    if not bases:
        return "No baseline is finished yet.\n"
    controls = [rows.get(("control", row["seed"]), {}) for row in bases]
    shown: dict[str, tuple[Iterable[Row], str, Callable[[float], str]]] = {
        "accuracy %": (bases, "accuracy", _points),
        "mean rate": (bases, "mean_rate", lambda rate: f"{rate:.4f}"),
        "dead %": (bases, "dead_fraction", _points),
        "saturated %": (bases, "saturated_fraction", _points),
        "control's accuracy %": (controls, "accuracy", _points),
        "floor: control": (controls, "emd_mean", emd_text),
        "floor: seed": (controls, "floor_seed", emd_text),
        "floor: sampling": (bases, "floor_sampling", emd_text),
    }
    columns = {
        title: [row.get(key) for row in some] for title, (some, key, _) in shown.items()
    }
    lines: list[dict[str, str]] = []
    for i, row in enumerate(bases):
        line = {"seed": str(row["seed"])}
        for title, (_, _, show) in shown.items():
            value = columns[title][i]
            line[title] = "-" if value is None else show(value)
        lines.append(line)
    if len(bases) > 1:
        line = {"seed": "mean"}
        for title, (_, _, show) in shown.items():
            known = [value for value in columns[title] if value is not None]
            # Of two seeds the floor is one distance, of more none is its own.
            spread = _mean if title == "floor: seed" else _spread
            line[title] = spread(known, show) if known else "-"
        lines.append(line)
    floors = ", ".join(f"{k.removeprefix('floor_')}: {v}" for k, v in FLOORS.items())
    text = f"{aligned(lines)}\nThe noise floors are EMDs without quantization ({floors}"
    text += "). A row is judged by the largest of its seed, a setting by the mean of "
    text += "its seeds' largest.\n"
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


def _some(run: Run) -> dict[str, list[Setting]]:
    """Settings of each mode, of the run's own site and scope."""
    found: dict[str, list[Setting]] = {mode: [] for mode in MODES}
    for setting in settings(verdicts(run.main)):
        found[setting.row["mode"]].append(setting)
    return {mode: some for mode, some in found.items() if some}


def _paper(run: Run, figures: str) -> str:
    """The paper's table, one a mode, and the figure of it."""
    found = _some(run)
    if not found:
        return "No quantized network is finished yet.\n"
    seeds = sorted({len(s.judged) for some in found.values() for s in some} - {1})
    spread = ""
    if seeds:
        number = " to ".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))
        spread = (
            f"Mean ± sample standard deviation over {number} seeds; without ± there "
        )
        spread += "is one. "
    text = (
        "Accuracy in % / mean EMD over layers. "
        f"{spread}**Bold**: accuracy within a point of the baseline's and EMD above "
        "the noise floor, a drift that accuracy hides. *Italic*: collapsed.\n"
    )
    for mode, some in found.items():
        cells: dict[str, dict[int, str]] = {}
        for setting in some:
            line = cells.setdefault(method_name(setting.row), {})
            line[setting.row["bits"]] = _cell(setting)
        bits = sorted({b for line in cells.values() for b in line})
        lines = [
            {"method": name} | {f"{b} bit": line.get(b, "-") for b in bits}
            for name, line in cells.items()
        ]
        text += f"\n### {MODE_NAMES[mode]}\n\n{aligned(lines)}"
    text += f"\n{_picture('over_bits', figures, pictures.OVER_BITS)}"
    return f"{text}\n{_picture('layers', figures, pictures.LAYER_MAP)}"


def _cell(setting: Setting) -> str:
    accuracy = _spread(
        setting.values(lambda row: 100 * row["accuracy"]), "{:.1f}".format
    )
    text = f"{accuracy} / {_spread(setting.values(lambda r: r['emd_mean']), emd_text)}"
    if setting.collapsed:
        return f"*{text}*"
    hidden = setting.kept and setting.floor is not None and not setting.within
    return f"**{text}**" if hidden else text


def _picture(name: str, folder: str, caption: str) -> str:
    alt = caption.partition(":")[0].partition(" (")[0]
    return f"![{alt}]({folder}/{name}.png)\n\n{caption}\n"


def _measures(run: Run) -> str:
    found = _some(run)
    text = "Of several seeds the means, of the noise floor too.\n"
    for mode, some in found.items():
        lines = [_all_measures(setting) for setting in some]
        table = aligned(lines, ("method", "drift"))
        text += f"\n### {MODE_NAMES[mode]}, all measures\n\n{table}"
    return text if found else ""


def _all_measures(setting: Setting) -> dict[str, str]:
    def mean(key: str) -> str:
        values = setting.values(lambda row: over_layers(row, key))
        return emd_text(statistics.fmean(values)) if values else "-"

    return {
        "method": method_name(setting.row),
        "bits": str(setting.row["bits"]),
        "seeds": str(len(setting.judged)),
        "accuracy %": _points(setting.mean("accuracy")),
        "EMD": emd_text(setting.mean("emd_mean")),
        "noise floor": "-" if setting.floor is None else emd_text(setting.floor),
        "drift": setting.drift,
        "mean rate": f"{setting.mean('mean_rate'):.4f}",
        "dead %": f"{100 * setting.mean('dead_fraction'):.1f}",
        "saturated %": f"{100 * setting.mean('saturated_fraction'):.2f}",
        "paired shift": mean("paired_shift"),
        "time-W1": mean("time_w1"),
    }


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
