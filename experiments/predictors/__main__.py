"""Write the page on what EMD predicts, and what a simpler measure predicts as well."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.command_line import run_as_command
from experiments.predictors.measures import (
    ACCURACY,
    COST,
    MEASURES,
    OUTCOMES,
    collect,
    explain,
    predict,
)
from experiments.rank_correlation import bootstrap, condition, draw_weights, estimate
from experiments.tables import markdown_table

PAIRS = [
    ("EMD", "mean shift"),
    ("EMD", "paired shift"),
    ("mean shift", "EMD"),
    ("paired shift", "EMD"),
]
_TOGETHER = (
    ("mean shift", "EMD"),
    ("paired shift", "EMD"),
    ("mean shift", "paired shift"),
)
SETS = {name: [name] for name in MEASURES}
SETS |= {" + ".join(names): list(names) for names in _TOGETHER}
SETS["all seven"] = list(MEASURES)
FEWEST = 12  # networks
RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class PredictorsConfig:
    """Find the measure of firing that predicts what quantization costs."""

    rows: tuple[str, ...] = (
        "digits=docs/results/digits/results.jsonl",
        "CIFAR-10 w8=docs/results/cifar10_w8/results.jsonl",
        "CIFAR-10=docs/results/cifar10/results.jsonl",
        "CIFAR-100=docs/results/cifar100/results.jsonl",
    )
    """Studies, NAME=PATH; predictors learn of each and are tested on the others."""
    out: Path = Path("docs/results/predictors.md")
    """The page; beside it go NAME_details.md and its numbers, as .json."""


def read(source: str) -> tuple[str, pd.DataFrame]:
    """Return a study's name and networks."""
    name, _, path = source.partition("=")
    if not path:
        raise ValueError(f"rows must be NAME=PATH, got {source!r}")
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return name, collect([json.loads(line) for line in lines])


def correlate(
    table: pd.DataFrame, measure: str, outcome: str, given: str | None = None
) -> list[float]:
    """Return a (partial) rank correlation and its interval; [] where rows are few."""
    keys = [MEASURES[measure], OUTCOMES[outcome]]
    keys += [MEASURES[given]] if given else []
    some = table.dropna(subset=keys)
    if len(some) < FEWEST:
        return []
    columns = some[keys].to_numpy(float)
    found = bootstrap(columns, columns, some["setting"], resamples=RESAMPLES)
    found = condition(found, 2) if given else found
    return estimate(found)[:, 0, 1].tolist()


def hold_out(
    known: pd.DataFrame, new: pd.DataFrame, names: Sequence[str], outcome: str
) -> list[float]:
    """Return how much of other networks' outcomes is explained, see `explain`."""
    keys = [*(MEASURES[name] for name in names), OUTCOMES[outcome]]
    known, new = (table.dropna(subset=keys) for table in (known, new))
    if min(len(known), len(new)) < FEWEST:
        return []
    predicted = predict(known, new, keys[-1], keys[:-1])
    weights = draw_weights(new["setting"], RESAMPLES)
    return estimate(explain(new[keys[-1]].to_numpy(float), predicted, weights)).tolist()


def measure(studies: dict[str, pd.DataFrame]) -> dict[str, list[dict]]:
    """Return the lines of the three tables, each cell ``[value, low, high]`` or []."""
    alone = [
        {"study": study, "measure": m} | {o: correlate(table, m, o) for o in OUTCOMES}
        for study, table in studies.items()
        for m in MEASURES
    ]
    given = [
        {"study": study, "measure": m, "given": g}
        | {o: correlate(table, m, o, g) for o in OUTCOMES}
        for study, table in studies.items()
        for m, g in PAIRS
    ]
    held_out = [
        {"learnt on": one, "tested on": other, "measures": title}
        | {o: hold_out(studies[one], studies[other], names, o) for o in OUTCOMES}
        for one in studies
        for other in studies
        if one != other
        for title, names in SETS.items()
    ]
    counted = [
        {"study": study}
        | {o: int(table[key].notna().sum()) for o, key in OUTCOMES.items()}
        for study, table in studies.items()
    ]
    return {"alone": alone, "given": given, "held_out": held_out, "counted": counted}


def conclude(tables: dict[str, list[dict]]) -> list[dict]:
    """Return a line an outcome: the best measures, and the signs given another."""
    studies = list(dict.fromkeys(line["study"] for line in tables["alone"]))
    lines = []
    for outcome in OUTCOMES:
        line = {"outcome": outcome}
        for title, table, key, of_all in (
            ("closest alone", "alone", "measure", np.mean),
            ("best held out", "held_out", "measures", np.median),
        ):
            found: dict[str, list[float]] = {}
            for cell in tables[table]:
                if cell[outcome]:
                    found.setdefault(cell[key], []).append(cell[outcome][0])
            scores = {name: float(of_all(values)) for name, values in found.items()}
            best = max(scores, key=lambda name: scores[name], default="")
            told = (
                f"{best} {scores[best]:.2f}; EMD {scores['EMD']:.2f}" if best else "-"
            )
            line[title] = told
        for m, g in PAIRS:
            cells = {
                cell["study"]: cell[outcome]
                for cell in tables["given"]
                if (cell["measure"], cell["given"]) == (m, g)
            }
            line[f"{m} given {g}"] = " ".join(_sign(cells[study]) for study in studies)
        lines.append(line)
    return lines


def _sign(cell: list[float]) -> str:
    if not cell:
        return "·"
    _, low, high = cell
    return "+" if low > 0 else "−" if high < 0 else "0"


def format_tables(lines: list[dict]) -> str:
    """Return Markdown tables of the outcomes of cost, and of those of accuracy."""

    def show(cell: object) -> str:
        if isinstance(cell, list):
            return "{:.2f} [{:.2f}, {:.2f}]".format(*cell) if cell else "-"
        return str(cell)

    keys = [key for key in lines[0] if key not in OUTCOMES]
    text = [
        markdown_table(
            [{key: show(line[key]) for key in (*keys, *outcomes)} for line in lines],
            keys,
        )
        for outcomes in (COST, ACCURACY)
    ]
    return "\n".join(text)


def run(config: PredictorsConfig) -> None:
    studies = dict(map(read, config.rows))
    tables = measure(studies)
    first, second = list(studies)[:2]
    learnt = {"learnt on": first, "tested on": second}
    shown = [line for line in tables["held_out"] if learnt.items() <= line.items()]
    found, answer = conclude(tables), _read("answer.md")
    details = config.out.with_name(f"{config.out.stem}_details.md")
    numbers = {
        "names": ", ".join(studies),
        "numbers": ", ".join(str(len(table)) for table in studies.values()),
        "conclusions": markdown_table(found, ("outcome", *list(found[0])[1:])),
        "answer": answer if config.rows == PredictorsConfig.rows else "",
        "learnt_on": first,
        "tested_on": second,
        "shown": format_tables(
            [{k: v for k, v in line.items() if k not in learnt} for line in shown]
        ),
        "details": details.name,
        "page": config.out.name,
        **{name: format_tables(lines) for name, lines in tables.items()},
    }
    config.out.with_suffix(".json").write_text(json.dumps(tables) + "\n")
    for path, template in ((config.out, "page.md"), (details, "details.md")):
        path.write_text(_read(template).format(**numbers), encoding="utf-8")
    print(numbers["conclusions"])


def _read(template: str) -> str:
    return Path(__file__).with_name(template).read_text(encoding="utf-8")


if __name__ == "__main__":
    run_as_command(run, PredictorsConfig, program="python -m experiments.predictors")
