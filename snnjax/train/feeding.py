"""Batches of training and evaluation: of a data set on the device, or read one by one.

Everything that differs between the two is here; steps and loops see one kind.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snnjax.data import (
    Batch,
    Batches,
    Dataset,
    epoch_order,
    eval_batches,
    on_device,
    train_batches,
)
from snnjax.data.batches import as_device_batch
from snnjax.train import checks, sharding


class Fed(NamedTuple):
    """Arguments of a training step that hold its batch.

    Attributes:
        arrays: a `data.on_device.DeviceDataset` or a `data.batches.DeviceBatch`.
        indices: of the batch in it ``[B]``.
        ends_epoch: True for the last batch of a pass.
        position: of the batches that are read, see `BatchesFeed.run`; else None.
    """

    arrays: Any
    indices: Any
    ends_epoch: bool
    position: Any = None


class DatasetFeed:
    """Batches of a data set in memory, in an order that is a function of the seed.

    Attributes:
        example: with the shapes, statistics and labels of a batch.
        has_lengths: True for sequences of different lengths.
        steps: of the run.
        outputs: of the network, for which `check_outputs` has seen all labels.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int,
        epochs: int | None,
        steps: int | None,
        mesh: Mesh | None,
    ):
        checks.check_batch(dataset, batch_size)
        sharding.check_share(batch_size, mesh)
        self.example, self.batch_size, self.seed = dataset, batch_size, seed
        self.has_lengths = dataset.lengths is not None
        self.outputs: int | None = None
        self.mesh = mesh
        self.per_epoch = len(dataset) // batch_size
        self.steps = steps if steps is not None else (epochs or 0) * self.per_epoch

    def run(self, done: int, position: Any) -> Iterator[Fed]:
        """Yield the batches behind the first ``done``."""
        if position is not None:
            raise ValueError(
                "position is of batches that are read; of a data.Dataset start alone "
                "tells where the run continues, leave position out"
            )
        return self._run(done)

    def _run(self, done: int) -> Iterator[Fed]:
        arrays = sharding.shard(on_device(self.example), self.mesh)
        batches = None
        for step in range(done, self.steps):
            epoch, place = divmod(step, self.per_epoch)
            if batches is None or place == 0:
                order = epoch_order(self.seed, epoch, len(self.example))
                batches = train_batches(order, self.batch_size)
            indices = sharding.shard(batches[place], self.mesh, P(sharding.DATA))
            yield Fed(arrays, indices, place == self.per_epoch - 1)


class BatchesFeed:
    """Batches that are read one by one, each process its share of every batch.

    The last one of a pass is left out where it is smaller. A loader reads ahead in
    threads or processes of its own.

    Attributes:
        example: the first batch.
        has_lengths: True for sequences of different lengths.
        steps: of the run; None where it ends with the passes over the batches.
        outputs: of the network, by which the labels of each batch are checked.
    """

    def __init__(
        self,
        batches: Batches,
        *,
        batch_size: int | None,
        epochs: int | None,
        steps: int | None,
        mesh: Mesh | None,
    ):
        self.source, self.epochs, self.steps, self.mesh = batches, epochs, steps, mesh
        # The first pass is begun here and continued in `run`: a loader starts once.
        self.begun = _Pass(batches)
        first = self.begun.first
        if first is None:
            raise ValueError("dataset must have at least one batch, got none")
        self.example = first
        self.has_lengths = first.lengths is not None
        processes = sharding.count_processes(mesh)
        self.batch_size = len(first) * processes
        if batch_size is not None and batch_size != self.batch_size:
            raise ValueError(
                f"batch_size must be that of the batches, {self.batch_size}"
                + f" of {processes} processes" * (processes > 1)
                + f", got {batch_size}; leave it out, or make other batches"
            )
        sharding.check_share(self.batch_size, mesh)
        self.outputs: int | None = None
        indices = np.arange(self.batch_size, dtype=np.int32)
        self.indices = sharding.shard(indices, mesh, P(sharding.DATA))

    def run(self, done: int, position: Any) -> Iterator[Fed]:
        """Yield the batches behind the first ``done``.

        Args:
            done: steps that were done.
            position: ``{"epoch": passes that ended, "iterator": state}`` of `Fed`,
                which an iterator with ``set_state`` resumes from; None reads the
                batches of the steps that were done, and leaves them out.
        """
        epoch, skip = 0, done
        if position is not None:
            if not isinstance(position, dict) or set(position) != {"epoch", "iterator"}:
                raise ValueError(
                    "position must be that of a train.Progress, got "
                    f"{type(position).__name__}"
                )
            epoch, skip = position["epoch"], 0
            self.begun.move(position["iterator"])
        return self._run(done, epoch, skip, moved=position is not None)

    def _run(self, step: int, epoch: int, skip: int, moved: bool) -> Iterator[Fed]:
        begun: _Pass | None = self.begun
        while self.epochs is None or epoch < self.epochs:
            number = 0
            for batch, state, is_last in begun or _Pass(self.source, self.example):
                number += 1
                if number <= skip:
                    continue
                if step == self.steps:
                    return
                step += 1
                if self.outputs is not None:
                    checks.check_labels(batch, self.outputs)
                position = None
                if state is not None:
                    position = {"epoch": epoch, "iterator": state}
                arrays = sharding.shard_batch(as_device_batch(batch), self.mesh)
                yield Fed(arrays, self.indices, is_last, position)
            if step == self.steps:
                return
            if not number and not moved:
                raise ValueError(
                    f"dataset gave no batches in pass {epoch + 1}; each iter(dataset) "
                    "must begin a new pass: give the loader, not what it returned"
                )
            skip, epoch, begun, moved = max(skip - number, 0), epoch + 1, None, False


def check_like(batch: Batch, first: Batch) -> None:
    """Raise ValueError unless a batch has the shapes and dtype of the first one."""
    kinds = [
        (x.images.shape[1:], x.images.dtype.name, x.lengths is None)
        for x in (first, batch)
    ]
    kinds_differ = kinds[0][2] != kinds[1][2]
    if kinds[0] != kinds[1]:
        raise ValueError(
            "batches must all be of one shape and dtype, got images of "
            f"{list(kinds[0][0])}, {kinds[0][1]}, and then {list(kinds[1][0])}, "
            f"{kinds[1][1]}" + "; some have lengths and some not" * kinds_differ
        )


class _Pass:
    """One pass over the batches, read one batch ahead.

    Yields (batch, position of the iterator behind it, is it the last).
    """

    def __init__(self, batches: Batches, first: Batch | None = None):
        self.batches, self.iterator, self.first = batches, iter(batches.source), first
        self.ahead = self._read()

    def _read(self) -> tuple[Batch, Any] | None:
        """Return the next batch; None at the end, or at a smaller one, the last."""
        end: Any = object()
        found = next(self.iterator, end)
        if found is end:
            return None
        # Taken now, before the batch ahead of it is read.
        get_state = getattr(self.iterator, "get_state", None)
        state = None if get_state is None else get_state()
        batch = self.batches.make(found)
        self.first = batch if self.first is None else self.first
        check_like(batch, self.first)
        if len(batch) == len(self.first):
            return batch, state
        if len(batch) > len(self.first) or next(self.iterator, end) is not end:
            raise ValueError(
                f"batches must all have one size, got {len(self.first)} and then "
                f"{len(batch)}; only the last of a pass may be smaller, and is left out"
            )
        return None

    def move(self, state: Any) -> None:
        """Continue behind the batch that the state was of."""
        set_state = getattr(self.iterator, "set_state", None)
        if set_state is None:
            raise ValueError(
                "position is of an iterator that has set_state, and that of these "
                f"batches, a {type(self.iterator).__name__}, has none; leave position "
                "out: batches of the steps that were done are then read and left out"
            )
        set_state(state)
        self.ahead = self._read()

    def __iter__(self) -> Iterator[tuple[Batch, Any, bool]]:
        while self.ahead is not None:
            batch, state = self.ahead
            self.ahead = self._read()
            yield batch, state, self.ahead is None


def make_feed(
    dataset: Dataset | Batches,
    *,
    batch_size: int | None,
    seed: int,
    epochs: int | None,
    steps: int | None,
    mesh: Mesh | None,
) -> DatasetFeed | BatchesFeed:
    """Return the feed of a run."""
    common: dict[str, Any] = dict(epochs=epochs, steps=steps, mesh=mesh)
    if isinstance(dataset, Batches):
        return BatchesFeed(dataset, batch_size=batch_size, **common)
    if batch_size is None:
        raise ValueError("batch_size must be given for a data.Dataset, got None")
    return DatasetFeed(dataset, batch_size=batch_size, seed=seed, **common)


class EvaluationFeed:
    """All images once, in their order, and what is counted of them on the host.

    Attributes:
        images: number of images so far.
        observations: time steps of the images at each place modulo ``groups``, int64.
        outputs: of the network, by which the labels of each batch are checked.
    """

    def __init__(
        self,
        dataset: Dataset | Batches,
        *,
        batch_size: int,
        timesteps: int,
        groups: int,
        mesh: Mesh | None,
    ):
        self.dataset, self.mesh, self.timesteps = dataset, mesh, timesteps
        self.batch_size, self.share = batch_size, sharding.data_devices(mesh)
        self.images, self.observations = 0, np.zeros(groups, np.int64)
        self.digest = hashlib.blake2b(digest_size=8)
        self.kind: tuple = ()
        self.outputs: int | None = None
        if isinstance(dataset, Dataset):
            self.example: Dataset | Batch = dataset
        else:
            self.processes = sharding.count_processes(mesh)
            self.begun = iter(dataset)
            first = next(self.begun, None)
            if first is None:
                raise ValueError("dataset must have at least one batch, got none")
            self.example = first

    def __iter__(self) -> Iterator[tuple[Any, Any, Any]]:
        """Yield arrays, indices and mask, as `make_eval_step` takes them."""
        if isinstance(self.dataset, Batches):
            return self._read()
        return self._take(self.dataset)

    def _take(self, dataset: Dataset) -> Iterator[tuple[Any, Any, Any]]:
        arrays = sharding.shard(on_device(dataset), self.mesh)
        self._count(np.arange(len(dataset)), dataset.images, dataset.lengths)
        size = min(self.batch_size, len(dataset))
        for batch in eval_batches(len(dataset), -(-size // self.share) * self.share):
            indices, mask = sharding.shard(batch, self.mesh, P(sharding.DATA))
            yield arrays, indices, mask

    def _read(self) -> Iterator[tuple[Any, Any, Any]]:
        batch: Batch | None = self.example  # pyrefly: ignore[bad-assignment]
        first = batch
        assert first is not None, "read in the constructor"
        share = max(self.share // self.processes, 1)
        size = -(-len(first) // share) * share
        start = jax.process_index() * len(first) if self.processes > 1 else 0
        smaller = False
        while batch is not None:
            check_like(batch, first)
            if smaller or len(batch) > len(first):
                raise ValueError(
                    f"batches must all have one size, got {len(first)} and then "
                    f"another; only the last may be smaller"
                )
            smaller = len(batch) < len(first)
            if self.outputs is not None:
                checks.check_labels(batch, self.outputs)
            places = np.arange(start, start + size, dtype=np.int32)
            self._count(places[: len(batch)], batch.images, batch.lengths)
            arrays = sharding.shard_batch(as_device_batch(batch.fill(size)), self.mesh)
            mask = np.arange(size) < len(batch)
            yield arrays, *sharding.shard_parts((places, mask), self.mesh)
            start += len(first) * self.processes
            batch = next(self.begun, None)

    def _count(self, places: Any, images: np.ndarray, lengths: Any) -> None:
        steps = np.full(len(images), self.timesteps) if lengths is None else lengths
        self.images += len(images)
        np.add.at(self.observations, places % len(self.observations), steps)
        self.digest.update(np.ascontiguousarray(images).data)
        self.kind = images.shape[1:], images.dtype.str

    def inputs_id(self) -> str:
        """Return a name that two evaluations share that saw the same images."""
        digest, (shape, dtype) = self.digest.copy(), self.kind
        digest.update(repr(((self.images, *shape), dtype)).encode())
        return digest.hexdigest()

    def finish(self) -> tuple[int, np.ndarray, str]:
        """Return images, observations and name, those of all processes."""
        found = self.images, self.observations, self.inputs_id()
        if isinstance(self.dataset, Dataset) or self.processes == 1:
            return found
        mine = np.array([self.images, *self.observations, int(found[2], 16) % 2**31])
        every = sharding.gather(mine.astype(np.int32))
        names = hashlib.blake2b(every[:, -1].tobytes(), digest_size=8).hexdigest()
        total = every[:, :-1].astype(np.int64).sum(0)
        return int(total[0]), total[1:], names
