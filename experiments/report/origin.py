"""The origin of a run: command, time, versions, config."""

from experiments.console import format_duration
from experiments.report.formats import plain
from experiments.report.prose import PAGE
from experiments.report.run import Run, study_command
from experiments.report.table import markdown_table


def markdown(run: Run) -> str:
    """Return all that it takes to repeat the run."""
    name = run.config.dataset
    # Each row's own: a run may resume after an upgrade.
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
    command = study_command(run.info["config"])
    about = PAGE["origin"].format(name=name, time=_time(run))
    return (
        f"```\n{command}\npython -m experiments.report RUN --publish docs/results\n```"
        f"\n\n{about}\nVersions: {versions}. Config {run.info['config_hash']}:\n\n"
        f"{markdown_table(config, ('option', 'value'))}"
    )


def _time(run: Run) -> str:
    """Tabulate the starts of the study."""
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
    about = PAGE["time"].format(times=times, total=total, repeated=_count_repeated(run))
    return f"{about}\n\n{markdown_table(lines, ('time', 'CPU time', 'commit'))}"


def _count_repeated(run: Run) -> str:
    """Count the rows that were computed more than once; the last one counts."""
    total = sum(start["rows"] for start in run.info["starts"])
    more = total - len(run.rows)
    return f" Of its {total} rows {more} were computed twice." if more > 0 else ""
