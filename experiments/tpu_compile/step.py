"""Compile the training step for absent chips, and parse XLA's reports on it."""

import dataclasses
import importlib.util
import math
import os
import re
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.study.config import CLASSES
from snnjax import data, models, train
from snnjax.data import Dataset

GB = 2**30
_UNITS = {"G": GB, "T": 1024 * GB}

# A collective's result is that of its line, or of the line where it is done.
_COLLECTIVE = re.compile(
    r" = (?P<shape>.*?) (?P<kind>all-reduce|all-gather|all-to-all|reduce-scatter|"
    r"collective-permute|collective-broadcast)(-done)?\("
)
_ARRAY = re.compile(r"[a-z]+(?P<bits>\d+)?[a-z\d]*\[(?P<sizes>[\d,]*)\]")
# Reported before scheduling, and after it.
_TOO_LARGE = (
    re.compile(r"\(([\d.]+)([GT])\) exceeds available HBM \(([\d.]+)([GT])\)"),
    re.compile(r"Used ([\d.]+)([GT]) of ([\d.]+)([GT]) hbm"),
)


def count_collectives(program: str) -> dict[str, dict[str, int]]:
    """Count the collectives in a compiled program's text: number and bytes by kind.

    Bytes are those of the results, on one device.

    >>> count_collectives("%x = (f32[3,8]{1,0}, bf16[2]) all-reduce(%a, %b), x=1")
    {'all-reduce': {'number': 1, 'bytes': 100}}
    """
    found: dict[str, dict[str, int]] = {}
    for line in _COLLECTIVE.finditer(program):
        kind = found.setdefault(line["kind"], {"number": 0, "bytes": 0})
        kind["number"] += 1
        for array in _ARRAY.finditer(line["shape"]):
            size = math.prod(int(n) for n in array["sizes"].split(",") if n)
            kind["bytes"] += size * max(int(array["bits"] or 8), 8) // 8
    return found


def read_collectives(program: jax.stages.Compiled) -> dict[str, dict[str, int]] | None:
    """Return a program's collectives; None where it cannot be printed."""
    # JAX 0.10 cannot print programs of libtpu 0.0.52 with asynchronous operations.
    try:
        return count_collectives(program.as_text() or "")
    except jax.errors.JaxRuntimeError as error:
        if "async-update" not in str(error):
            raise
        return None


def parse_out_of_memory(error: Exception) -> tuple[float, float]:
    """Return the bytes that a program needs and a chip has; raise other errors."""
    for pattern in _TOO_LARGE:
        if found := pattern.search(str(error)):
            needed, unit, has, unit_of_has = found.groups()
            return float(needed) * _UNITS[unit], float(has) * _UNITS[unit_of_has]
    raise error


Numbers = dict[str, Any]

# Without these libtpu asks a metadata server for its machine, for minutes, and lets
# only one process use it at a time.
_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
IMAGES = {
    "digits": (1438, 8, 8, 1),
    "cifar10": (50_000, 32, 32, 3),
    "cifar100": (50_000, 32, 32, 3),
}
# Of a register: XLA puts an image in each lane, and pads the last register.
LANES = 128


@dataclasses.dataclass(frozen=True)
class CompileConfig:
    """Compile the training step for a TPU topology."""

    topology: str = "v5e:2x4"
    """Generation and arrangement of the chips: v5e:2x4, v6e:2x4, v5p:2x2x1, ..."""
    model: Literal["sew_resnet8", "sew_resnet18"] = "sew_resnet18"
    """The network."""
    dataset: Literal["digits", "cifar10", "cifar100"] = "cifar10"
    """Number and size of its images; they need not be there."""
    width: int = 64
    """Channels of the stem and of the first stage."""
    timesteps: int = 4
    """T."""
    batch: int = 1024
    """Images a step, over all chips."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of convolutions and activations; parameters and membranes stay float32."""
    precision: Literal["highest", "default"] = "highest"
    """Of float32 products: the study's, or rounded to bfloat16 first."""
    remat: Literal["none", "block", "full"] = "none"
    """Blocks whose activations the backward pass recomputes."""
    largest_batch: bool = False
    """Find the largest batch that fits, in steps of 128 images a chip."""
    out: Path | None = None
    """Append what was found to this file, a JSON object a line."""

    def __post_init__(self):
        for name in ("width", "timesteps", "batch"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def find_chips(topology: str) -> list[jax.Device]:
    """Return the chips of a topology, none of which need exist.

    Raises:
        ValueError: libtpu is not installed, or knows no such topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            "compiling for a TPU needs libtpu, which is not installed; in an "
            "environment of its own, run: pip install -e '.[tpu-compile]'"
        )
    os.environ.update(_NO_TPU)
    jax.config.update("jax_platforms", "cpu")  # else JAX waits for a TPU
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(topology, "tpu").devices)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(
            "topology must be a generation and whole hosts of its chips, such as "
            f"v5e:2x4, v6e:4x4 or v5p:2x2x1, got {topology!r}; libtpu says: "
            f"{str(error).splitlines()[0]}"
        ) from error


def lower_step(config: CompileConfig, chips: list[jax.Device]) -> jax.stages.Lowered:
    """Lower the study's training step, from shapes alone."""
    if config.batch % len(chips):
        raise ValueError(
            f"batch must be a multiple of {len(chips)}, the chips of "
            f"{config.topology}, got {config.batch}"
        )
    number, *image = IMAGES[config.dataset]
    optimizer = train.sgd(0.1, weight_decay=5e-4)
    mesh = train.make_mesh(chips)

    def model():
        return getattr(models, config.model)(
            CLASSES[config.dataset],
            width=config.width,
            in_channels=image[-1],
            remat=config.remat,
            dtype=None if config.dtype == "float32" else jnp.dtype(config.dtype),
            rngs=nnx.Rngs(0),
        )

    graphdef = train.split(nnx.eval_shape(model))[0]
    step = train.make_train_step(
        graphdef,
        optimizer,
        timesteps=config.timesteps,
        augment=data.augment if config.dataset != "digits" else None,
        dead=True,
        mesh=mesh,
    )

    def array(like, *axes):
        sharding = NamedSharding(mesh, P(*axes))
        return jax.ShapeDtypeStruct(like.shape, like.dtype, sharding=sharding)

    images, mean = np.zeros((number, *image), np.uint8), np.zeros(image[-1])
    labels, classes = np.zeros(number, np.int32), CLASSES[config.dataset]
    dataset = Dataset(images, labels, classes, config.dataset, mean, mean + 1)
    state, images, indices, key = jax.eval_shape(
        lambda: (
            train.init(model(), optimizer),
            data.on_device(dataset),
            jnp.zeros(config.batch, jnp.int32),
            jax.random.key(0),
        )
    )
    with jax.default_matmul_precision(config.precision):
        return step.lower(
            jax.tree.map(lambda x: array(x, "config"), state),
            jax.tree.map(array, images),
            array(indices, "data"),
            array(key),
        )


def chip_memory(chip: jax.Device) -> float:
    """Return the bytes that XLA may use on a chip, from its out-of-memory error."""
    sharding = NamedSharding(train.make_mesh([chip]), P())
    x = jax.ShapeDtypeStruct((2**18, 128), np.float32, sharding=sharding)
    try:
        jax.jit(lambda x: (x @ x.T) @ (x @ x.T)).lower(x).compile()
    except jax.errors.JaxRuntimeError as error:
        return parse_out_of_memory(error)[1]
    raise AssertionError("256 GiB fit on no chip")


def compile_step(config: CompileConfig, chips: list[jax.Device]) -> Numbers:
    """Return a step's needs on each chip; if it does not fit, only its memory."""
    start = time.monotonic()
    numbers: Numbers = {"batch": config.batch}
    program: Any = lower_step(config, chips)
    try:
        program = program.compile()
    except jax.errors.JaxRuntimeError as error:
        numbers |= {"fits": False, "peak": parse_out_of_memory(error)[0]}
    else:
        memory, cost = program.memory_analysis(), program.cost_analysis()
        numbers |= {
            "fits": True,
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
            "program": memory.generated_code_size_in_bytes,
            "peak": memory.peak_memory_in_bytes,
            "operations": cost["flops"],
            "bytes_accessed": cost["bytes accessed"],
            "collectives": read_collectives(program),
        }
    return numbers | {"seconds": time.monotonic() - start}


def find_largest_batch(
    config: CompileConfig, chips: list[jax.Device], first: Numbers, memory: float
) -> list[Numbers]:
    """Compile steps up to the largest batch that fits and the next, which does not.

    Memory is nearly linear in the batch: the next guess is a step above where it would
    be full, since what does not fit is mostly reported before it is compiled. XLA
    rematerializes where memory is short, so more may fit; the search ends where
    neighbours differ.
    """
    step, tried = LANES * len(chips), [first]
    below, above = 0, math.inf
    while True:
        last = tried[-1]
        if last["fits"]:
            below = last["batch"] // step * step
        else:
            above = -(-last["batch"] // step) * step
        if above - below <= step:
            return tried
        fixed = last.get("arguments", 0)
        guess = (memory - fixed) / (last["peak"] - fixed) * last["batch"]
        guess = int(min(max((guess // step + 1) * step, below + step), above - step))
        tried.append(compile_step(dataclasses.replace(config, batch=guess), chips))
