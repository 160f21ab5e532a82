"""Print results as tables: on the screen and in Markdown, with the same cells."""

from typing import Any

from rich.table import Table

Result = dict[str, Any]


def format_cells(
    medians: dict[str, dict[str, float]],
) -> tuple[list[str], list[list[str]]]:
    """Return headings and lines: each measure, and its ratio to the first row's.

    >>> format_cells({"seconds": {"a": 0.5, "b": 1.0}})[1]
    [['a', '500.0', '1.00'], ['b', '1000.0', '2.00']]
    """
    headings, columns = [""], []
    for name, of_rows in medians.items():
        unit, factor = ("MB", 1e-6) if name.endswith("bytes") else ("ms", 1e3)
        what = name.removesuffix("bytes").removesuffix("seconds")
        headings += [f"{what}{unit}", "times the first"]
        first = next(iter(of_rows.values()), 0.0)
        columns.append([f"{factor * value:.1f}" for value in of_rows.values()])
        ratios = [value / first if first > 0 else None for value in of_rows.values()]
        columns.append(["-" if r is None else f"{r:.2f}" for r in ratios])
    rows = list(next(iter(medians.values())))
    return headings, [list(line) for line in zip(rows, *columns, strict=True)]


def to_table(result: Result) -> Table:
    """Return a table for a terminal."""
    headings, lines = format_cells(result["median"])
    shown = Table(*headings)
    for column in shown.columns[1:]:
        column.justify = "right"
    for line in lines:
        shown.add_row(*line)
    return shown


def to_markdown(
    machine: dict[str, Any], results: list[Result], about: dict[str, str]
) -> str:
    """Return the tables, with the machine's and each part's description."""
    options = machine["options"]
    text = (
        f"{machine['cores']} cores ({machine['processor']}), {machine['platform']}; "
        f"{_join_versions(machine['versions'])}. Medians of {options['runs']} runs, in "
        "turn; each number is divided by the first of its column.\n"
    )
    for name, value in machine["environment"].items():
        text += f"{name}={value} for all.\n"
    for peer, versions in machine["peers"].items():
        text += f"\n- {peer}: {_join_versions(versions)}"
    text += "\n" * bool(machine["peers"])
    for sentence in machine["notes"]:
        text += f"\n{sentence}\n"
    part = None
    for result in results:
        if result["part"] != part:
            part = result["part"]
            text += f"\n## {part}\n\n{about[part]}\n"
        text += f"\n### {result['title']}\n\n{to_table(result['median'])}"
        for sentence in result["died"]:
            text += f"\n{sentence}\n"
    return text


def _join_versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
