"""Order of the images in training, as pure functions of seed and epoch.

So a run that was stopped resumes exactly where it was, on any machine.
"""

import numpy as np
from jaxtyping import Bool, Int32

from snnjax import _checks


def permutation(n: int, seed: np.random.SeedSequence) -> Int32[np.ndarray, " n"]:
    """Return a random order of 0 to ``n - 1``, the same for a seed in every NumPy."""
    _checks.require_whole("n", n, 0)
    # PCG64's raw bits are stable. What Generator.permutation makes of them may change
    # (NEP 19), and a resumed run with it.
    bits = np.random.PCG64(seed).random_raw(n)
    return np.argsort(bits, kind="stable").astype(np.int32)


def epoch_order(seed: int, epoch: int, n: int) -> Int32[np.ndarray, " n"]:
    """Return the order of an epoch's images, a permutation of 0 to ``n - 1``.

    A pure function of its arguments, on every machine; ValueError if one is negative.
    """
    if not all(map(_checks.is_whole, (seed, epoch, n))) or min(seed, epoch, n - 1) < 0:
        raise ValueError(
            "expected seed and epoch from 0 and n from 1, got "
            f"{seed!r}, {epoch!r} and {n!r}; count epochs from 0"
        )
    return permutation(n, np.random.SeedSequence(seed, spawn_key=(epoch,)))


def train_batches(
    order: np.ndarray, batch_size: int
) -> Int32[np.ndarray, "steps batch"]:
    """Return an epoch's batches, a row each; an incomplete one is left out.

    Raises:
        ValueError: if there is not one full batch.

    >>> train_batches(np.arange(5, dtype=np.int32), 2).tolist()
    [[0, 1], [2, 3]]
    """
    if not _checks.is_whole(batch_size) or not 1 <= batch_size <= len(order):
        raise ValueError(
            f"batch_size: expected 1 to {len(order)}, the number of training images, "
            f"got {batch_size!r}; take a smaller batch"
        )
    steps = len(order) // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def eval_batches(
    n: int, batch_size: int
) -> list[tuple[Int32[np.ndarray, " batch"], Bool[np.ndarray, " batch"]]]:
    """Index and mask of equal batches that together take every image once, in order.

    Where the mask is False the index is 0, and that image must not count.

    Raises:
        ValueError: if n or batch_size is below 1.

    >>> [(index.tolist(), mask.tolist()) for index, mask in eval_batches(3, 2)]
    [([0, 1], [True, True]), ([2, 0], [True, False])]
    """
    if not all(map(_checks.is_whole, (n, batch_size))) or min(n, batch_size) < 1:
        raise ValueError(
            f"expected n and batch_size from 1, got {n!r} and {batch_size!r}"
        )
    steps = -(-n // batch_size)
    index = np.arange(steps * batch_size, dtype=np.int32).reshape(steps, batch_size)
    mask = index < n
    return list(zip(np.where(mask, index, 0), mask, strict=True))
