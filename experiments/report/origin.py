"""How a run was made: command, time, versions, and what decides its numbers."""

from experiments.console import format_duration
from experiments.report.names import plain
from experiments.report.run import Run, command
from experiments.report.table import aligned


def markdown(run: Run) -> str:
    """All that it takes to make the run again."""
    name = run.config.dataset
    # Each row's own: a run may go on after an upgrade.
    seen: dict[str, dict[str, None]] = {}
    own = [row["versions"] for row in run.rows if "versions" in row]
    for versions in own or [run.info.get("versions", {})]:
        for package, version in versions.items():
            seen.setdefault(package, {})[version] = None
    versions = ", ".join(f"{name} {' and '.join(v)}" for name, v in seen.items())
    config = [
        {"option": key, "value": plain(value)}
        for key, value in run.info["config"].items()
    ]
    return (
        f"```\n{command(run.info['config'])}\n"
        "python -m experiments.report RUN --publish docs/results\n```\n\n"
        "The first with --data-dir where prepared data lie elsewhere; the second, with "
        "the folder that the first names in place of RUN, made this page, and makes it "
        f"again from docs/results/{name}. {_time(run)}\n"
        f"Versions: {versions}. Config {run.info['config_hash']}:\n\n"
        f"{aligned(config, ('option', 'value'))}"
    )


def _time(run: Run) -> str:
    """Each start of the study; a row that was resumed knows its last alone."""
    starts = run.info.get("starts", [])
    if not starts:
        return "The study has not stopped yet, so its run time is not known.\n"
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
    total = format_duration(run.seconds)
    times = "once" if len(starts) == 1 else f"{len(starts)} times"
    return (
        f"The study was started {times} and ran for {total} in all, by the clock: "
        f"what else the machine did meanwhile is in it.{_again(run)} CPU time is that "
        "of all its threads (- is not known; a + is a commit with changes):\n\n"
        f"{aligned(lines, ('time', 'CPU time', 'commit'))}"
    )


def _again(run: Run) -> str:
    """How many rows were made more than once, the last of which counts."""
    made = sum(start["rows"] for start in run.info["starts"])
    again = made - len(run.rows)
    return f" Of its {made} rows {again} were made again." if again > 0 else ""
