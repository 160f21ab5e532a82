"""The time and memory that a study would take."""

import time
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import PartitionSpec as P
from rich.console import Console

from experiments.console import format_duration
from experiments.study import layout
from experiments.study.config import StudyConfig
from experiments.study.grid import RunSpec
from experiments.study.recipe import make_model, optimizer, training_options
from snnjax import data, train
from snnjax.data import Dataset
from snnjax.train import sharding


def print_estimate(
    config: StudyConfig,
    sets: tuple[Dataset, Dataset],
    specs: Sequence[RunSpec],
    num_devices: int,
    console: Console,
) -> None:
    """Print the time and memory that runs will take, from a few real steps."""
    train_set, test_set = sets
    model = make_model(config, train_set, config.seeds[0])
    mesh = layout.mesh_for(1, num_devices)
    tx = optimizer(config, train.cosine(config.epochs, 0.01))
    step = train.make_train_step(
        train.split(model)[0],
        tx,
        dead=config.silent_above is not None,
        mesh=mesh,
        timesteps=config.timesteps,
        **training_options(config),
    )
    indices = np.arange(config.batch_size, dtype=np.int32)
    arguments = (
        sharding.shard(data.on_device(train_set), mesh),
        sharding.shard(indices, mesh, P("data")),
        sharding.shard(jax.random.key(0), mesh),
    )
    state = sharding.shard(train.init(model, tx), mesh, P("config"))
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
    running = each * sum(spec.cost_in_images(config, *sizes) for spec in specs)
    # A compile key has a training, an evaluation and a BatchNorm step.
    compiling = 1.7 * compile_seconds * len({spec.compile_key for spec in specs})
    used = compiled.memory_analysis()
    memory = "memory that this backend does not report"
    if used is not None:
        memory = (
            f"{used.temp_size_in_bytes / 1e6:.0f} MB in addition to "
            f"{used.argument_size_in_bytes / 1e6:.0f} MB of data and parameters"
        )
    console.print(
        f"{len(specs)} rows; a training step of {config.batch_size} images on "
        f"{num_devices} {'device' if num_devices == 1 else 'devices'} takes "
        f"{min(seconds):.2f} s and {memory}.\n"
        f"Expected time: {format_duration(running)}, and "
        f"{format_duration(compiling)} of compiling.",
        highlight=False,
    )
