"""Compile for a TPU topology, print the numbers, and append them to a file."""

import dataclasses
import json

from rich.console import Console

from experiments.command_line import run_as_command
from experiments.tpu_compile import step
from experiments.tpu_compile.step import CompileConfig, Numbers
from experiments.tpu_compile.table import to_table

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
