"""Compile for a TPU topology, print the numbers, and append them to a file."""

import dataclasses
import json

from rich.console import Console
from rich.table import Table

from experiments.command_line import run_as_command
from experiments.tpu_compile import step
from experiments.tpu_compile.step import GB, CompileConfig, Numbers


def to_table(memory: float, tried: list[Numbers]) -> Table:
    """Return a table for a terminal, a column for each batch."""
    shown = Table("on each chip")
    for _ in tried:
        shown.add_column(justify="right")

    def row(name, text):
        shown.add_row(name, *(text(n) if n["fits"] else "" for n in tried))

    shown.add_row("images on all chips", *(str(n["batch"]) for n in tried))
    for key in ("arguments", "temporaries", "outputs", "program"):
        row(f"{key}, GiB", lambda n, key=key: f"{n[key] / GB:.3f}")
    peaks = (f"{n['peak'] / GB:.2f}{' do not fit' * (not n['fits'])}" for n in tried)
    shown.add_row(f"peak, of {memory / GB:.2f} GiB", *peaks)
    row("operations a step, 10^9", lambda n: f"{n['operations'] / 1e9:.1f}")
    row("accessed a step, 10^9 bytes", lambda n: f"{n['bytes_accessed'] / 1e9:.2f}")
    known = [n["collectives"] for n in tried if n.get("collectives") is not None]
    for kind in sorted({kind for collectives in known for kind in collectives}):

        def text(n, kind=kind):
            if n["collectives"] is None:
                return "unknown"
            found = n["collectives"].get(kind, {"number": 0, "bytes": 0})
            return f"{found['number']}: {found['bytes'] / 1e6:.2f}"

        row(f"{kind}, number: 10^6 bytes", text)
    shown.add_row("seconds to compile", *(f"{n['seconds']:.0f}" for n in tried))
    return shown


_ABOUT = (
    "Compile the training step for a TPU topology, without a TPU, and print what it "
    "needs of each chip: memory, operations, collectives. Nothing runs."
)


def run(config: CompileConfig, console: Console | None = None) -> list[Numbers]:
    """Compile, print the table, and append to ``out`` if given.

    Raises:
        ValueError: no libtpu, no such topology, or a batch that its chips cannot share.
    """
    console = console or Console()
    chips = step.find_chips(config.topology)
    with console.status("compiling, which takes minutes"):
        tried, memory = [step.compile_step(config, chips)], step.chip_memory(chips[0])
        if config.largest_batch:
            tried = step.find_largest_batch(config, chips, tried[0], memory)
    kind = chips[0].device_kind
    what = f"{config.model}, width {config.width}, T = {config.timesteps}, "
    what += f"{config.dtype}, {len(chips)} x {kind}"
    console.print(what, highlight=False, soft_wrap=True)
    console.print(to_table(memory, tried))
    if config.largest_batch:
        fit = max((n["batch"] for n in tried if n["fits"]), default="none")
        console.print(f"largest batch that fits: {fit}", highlight=False)
    if config.out is not None:
        about = dataclasses.asdict(config)
        about |= {"devices": len(chips), "device_kind": kind, "memory": memory}
        with config.out.open("a", encoding="utf-8") as file:
            for numbers in tried:
                file.write(json.dumps(about | numbers, default=str) + "\n")
    return tried


def main() -> None:
    run_as_command(
        run,
        CompileConfig,
        program="python -m experiments.tpu_compile",
        description=_ABOUT,
        stopped="nothing was written",
        resumes=False,
    )


if __name__ == "__main__":
    main()
