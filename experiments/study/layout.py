"""The layout of a study on devices: runs side by side, and their meshes."""

from collections.abc import Sequence
from typing import TypeVar

import jax
from jax.sharding import Mesh

from experiments.study.config import StudyConfig
from experiments.study.grid import RunSpec
from snnjax import train

Item = TypeVar("Item")


def count_devices(config: StudyConfig) -> int:
    """Return the number of devices of a study: those asked for, or all that JAX sees.

    Raises:
        ValueError: more than there are, fewer with several processes, or a batch that
            they cannot share.
    """
    there = jax.device_count()
    number = config.devices or there
    if number != there and jax.process_count() > 1:
        raise ValueError(
            f"the {jax.process_count()} processes have {there} devices and use all of "
            f"them, got --devices {number}; leave it out"
        )
    train.make_mesh(number)
    if config.batch_size % number:
        raise ValueError(
            f"batch_size must be a multiple of the {number} devices that share it, got "
            f"{config.batch_size}; give another, or fewer with --devices"
        )
    return number


def mesh_for(rows: int, devices: int) -> Mesh | None:
    """Return a mesh for runs side by side, which share the devices left over."""
    return None if devices == 1 else train.make_mesh(devices, configs=rows)


def chunks(items: Sequence[Item], devices: int) -> list[list[Item]]:
    """Split items into lists that are computed side by side: divisors of ``devices``.

    >>> [len(chunk) for chunk in chunks(range(15), 8)]
    [8, 4, 2, 1]
    """
    found, rest = [], list(items)
    while rest:
        fit = min(len(rest), devices)
        number = max(n for n in range(1, fit + 1) if devices % n == 0)
        found.append(rest[:number])
        rest = rest[number:]
    return found


def groups(specs: Sequence[RunSpec], devices: int) -> list[list[RunSpec]]:
    """Group the runs of one program, as many as the devices allow.

    Runs without quantization share all devices, one after the other. With one device
    the order is that of ``specs``.
    """
    if devices == 1:
        return [[spec] for spec in specs]
    alike: dict[object, list[RunSpec]] = {}
    for i, spec in enumerate(specs):
        alone = spec.target == "none"
        # Runs side by side have one baseline, and one order of batches.
        key = i if alone else (spec.compile_key, spec.mode, spec.seed)
        alike.setdefault(key, []).append(spec)
    return [chunk for same in alike.values() for chunk in chunks(same, devices)]
