"""Print results as tables, the same on the screen and in Markdown."""

from typing import Any

from experiments.tables import markdown_table

Result = dict[str, Any]


def to_table(medians: dict[str, dict[str, float]]) -> str:
    """Return a table of each measure, and its ratio to the first row's.

    >>> print(to_table({"seconds": {"a": 0.5, "b": 1.0}}), end="")
    |     |     ms | ms, times the first |
    | --- | -----: | ------------------: |
    | a   |  500.0 |                1.00 |
    | b   | 1000.0 |                2.00 |
    """
    lines = {row: {"   ": row} for row in next(iter(medians.values()))}
    for name, values in medians.items():
        unit, factor = ("MB", 1e-6) if name.endswith("bytes") else ("ms", 1e3)
        title = name.removesuffix("bytes").removesuffix("seconds") + unit
        first = next(iter(values.values()), 0.0)
        for row, value in values.items():
            ratio = f"{value / first:.2f}" if first > 0 else "-"
            lines[row] |= {
                title: f"{factor * value:.1f}",
                f"{title}, times the first": ratio,
            }
    return markdown_table(list(lines.values()), ("   ",)) if lines else ""


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
