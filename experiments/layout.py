"""Which rows are computed side by side, and on which devices."""

from collections.abc import Sequence
from typing import TypeVar

import jax
from jax.sharding import Mesh

from experiments.common import Row, StudyConfig
from experiments.rows import structure
from snnjax import train

Item = TypeVar("Item")


def devices_of(config: StudyConfig) -> int:
    """How many devices a study takes: those asked for, or all that JAX sees.

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


def side_by_side(rows: int, devices: int) -> int:
    """How many of so many rows run at the same time: a divisor of the devices.

    >>> [side_by_side(rows, 8) for rows in (1, 3, 4, 6, 20)]
    [1, 2, 4, 4, 8]
    """
    return max(n for n in range(1, min(rows, devices) + 1) if devices % n == 0)


def mesh_for(rows: int, devices: int) -> Mesh | None:
    """A mesh for rows side by side, which share what devices are left over."""
    return None if devices == 1 else train.make_mesh(devices, configs=rows)


def chunks(items: Sequence[Item], devices: int) -> list[list[Item]]:
    """Items in lists that are computed side by side, in order."""
    found, rest = [], list(items)
    while rest:
        number = side_by_side(len(rest), devices)
        found.append(rest[:number])
        rest = rest[number:]
    return found


def groups(parts: Sequence[Row], devices: int) -> list[list[Row]]:
    """The rows of a study, those of one program together as far as devices go.

    Rows without quantization share all devices, one after the other. With one device
    the order is that of ``parts``.
    """
    if devices == 1:
        return [[part] for part in parts]
    alike: dict[object, list[Row]] = {}
    for i, part in enumerate(parts):
        alone = part["target"] == "none"
        # Rows side by side have one baseline, and one order of batches.
        key = i if alone else (structure(part), part["mode"], part["seed"])
        alike.setdefault(key, []).append(part)
    return [chunk for rows in alike.values() for chunk in chunks(rows, devices)]
