"""What a study would do, and how long that would take."""

import time
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import PartitionSpec as P
from rich.console import Console

from experiments import layout
from experiments.common import Row, StudyConfig
from experiments.console import duration
from experiments.rows import images_of, planned, row_name, structure
from experiments.training import augments, optimizer
from snnjax import data, train
from snnjax.data import Dataset
from snnjax.models import SEWResNet


def dry_run(
    config: StudyConfig,
    sets: tuple[Dataset, Dataset],
    model: SEWResNet,
    console: Console,
) -> None:
    """Print the rows, and the time and memory they will take."""
    parts = planned(config)
    for part in parts:
        console.print(row_name(part))
    expect(config, sets, model, parts, console)
    console.print(
        f"Nothing was written; results would go to {config.out}.", highlight=False
    )


def expect(
    config: StudyConfig,
    sets: tuple[Dataset, Dataset],
    model: SEWResNet,
    parts: Sequence[Row],
    console: Console,
) -> None:
    """Print the time and memory that these rows will take, from a few real steps."""
    train_set, test_set = sets
    devices = layout.devices_of(config)
    mesh = layout.mesh_for(1, devices)
    tx = optimizer(config)
    step = train.make_train_step(
        train.split(model)[0],
        tx,
        timesteps=config.timesteps,
        augment=augments(config),
        label_smoothing=config.label_smoothing,
        on_nonfinite=config.on_nonfinite,
        dead=config.silent_above is not None,
        mesh=mesh,
    )
    indices = np.arange(config.batch_size, dtype=np.int32)
    arguments = (
        *train.put(data.on_device(train_set), mesh),
        train.put(indices, mesh, P("data")),
        np.float32(0),
        train.put(jax.random.key(0), mesh),
        None,  # of a penalty; on a mesh no argument is left out
    )
    state = train.put(train.init(model, tx), mesh)
    with (
        console.status("compiling and timing a training step"),
        jax.default_matmul_precision(config.precision),
    ):
        start = time.monotonic()
        compiled = step.lower(state, *arguments).compile()
        compile_seconds = time.monotonic() - start
        seconds = []
        for _ in range(4):
            start = time.monotonic()
            state, metrics = compiled(state, *arguments)
            metrics.loss.block_until_ready()
            seconds.append(time.monotonic() - start)
    each = min(seconds) / config.batch_size
    sizes = (len(train_set), len(test_set))
    running = each * sum(images_of(part, config, *sizes) for part in parts)
    # A structure compiles a training, an evaluation and a BatchNorm step.
    compiling = 1.7 * compile_seconds * len({structure(part) for part in parts})
    used = compiled.memory_analysis()
    memory = "memory this backend does not tell"
    if used is not None:
        memory = (
            f"{used.temp_size_in_bytes / 1e6:.0f} MB beside "
            f"{used.argument_size_in_bytes / 1e6:.0f} MB of data and parameters"
        )
    console.print(
        f"{len(parts)} rows; a training step of {config.batch_size} images on "
        f"{devices} {'device' if devices == 1 else 'devices'} takes "
        f"{min(seconds):.2f} s and {memory}.\n"
        f"Expected time: {duration(running)}, and {duration(compiling)} of compiling.",
        highlight=False,
    )
