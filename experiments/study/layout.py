"""The layout of a study on devices: runs side by side, and their meshes."""

from collections.abc import Sequence
from typing import TypeVar

import jax
from jax.sharding import Mesh

from experiments.study.config import StudyConfig
from experiments.study.grid import RunSpec, count_together
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
    configs = min(rows, devices)
    return None if devices == 1 else train.make_mesh(devices, configs=configs)


def chunks(items: Sequence[Item], devices: int, each: int = 1) -> list[list[Item]]:
    """Split items into lists that are computed side by side.

    Their lengths are divisors of ``devices`` or, up to ``each`` a device, multiples.

    >>> [len(chunk) for chunk in chunks(range(15), 8)]
    [8, 4, 2, 1]
    """
    found, rest = [], list(items)
    while rest:
        fit = min(len(rest), devices * each)
        fitting = (n for n in range(1, fit + 1) if devices % n == 0)
        number = fit // devices * devices or max(fitting)
        found.append(rest[:number])
        rest = rest[number:]
    return found


def groups(specs: Sequence[RunSpec], devices: int, images: int) -> list[list[RunSpec]]:
    """Group the runs of one program, as many as the devices allow.

    Runs without quantization share all devices, one after the other. Those that are not
    trained may be more than devices, see `count_together`; where they are not, one
    device keeps the order of ``specs``.

    Args:
        specs: the runs.
        devices: number of devices.
        images: number of test images.
    """
    if devices == 1 and not any(count_together(s.mode, images) > 1 for s in specs):
        return [[spec] for spec in specs]
    alike: dict[object, list[RunSpec]] = {}
    for i, spec in enumerate(specs):
        alone = spec.target == "none"
        # Runs side by side have one baseline, and one order of batches.
        key = i if alone else (spec.compile_key, spec.mode, spec.seed)
        alike.setdefault(key, []).append(spec)
    found = []
    for same in alike.values():
        each = max(1, count_together(same[0].mode, images) // devices)
        found += chunks(same, devices, each)
    return found
