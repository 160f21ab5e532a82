"""Recorder of spike counts in PyTorch networks of any library.

It needs no import of torch: hooks and tensors are used as they are.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from snnjax import _checks, firing
from snnjax.firing import FiringCounts

# Base classes of neurons, by library.
NEURONS = {
    "spikingjelly": {"BaseNode"},
    "snntorch": {"SpikingNeuron"},
    "norse": {"SNN", "SNNCell", "SNNRecurrent", "SNNRecurrentCell"},
}


class Recording:
    """Spike counts of the batches that a network has seen while it was recorded."""

    def __init__(self, groups: int, timesteps: int | None, inputs_id: str | None):
        self._groups, self._timesteps, self._inputs_id = groups, timesteps, inputs_id
        self._counts: dict[str, np.ndarray] = {}
        self._sizes = np.zeros(groups, np.int64)
        self._outputs: dict[str, list[np.ndarray]] = {}
        self._sequences: set[str] = set()
        self._steps: set[str] = set()
        self._calls = self._inputs = 0

    @property
    def counts(self) -> FiringCounts:
        """Counts so far: neurons ``[C, H, W]`` as ``[H, W, C]``, in groups of inputs.

        Raises:
            ValueError: nothing was recorded, or a batch is not complete.
        """
        if self._outputs or self._calls:
            raise ValueError(
                "the last batch is not complete: call the recorded module itself, and "
                f"for each batch timesteps={self._timesteps} times"
            )
        if not self._counts:
            raise ValueError("nothing was recorded: call the module inside the block")
        used = self._sizes > 0
        groups = {name: each[used] for name, each in self._counts.items()}
        return FiringCounts(
            {name: each.sum(0) for name, each in groups.items()},
            int(self._sizes.sum()),
            groups,
            self._sizes[used],
            self._inputs_id,
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write the counts to a ``.npz`` file, see `firing.save_counts`."""
        firing.save_counts(self.counts, path)

    def _add_output(self, name: str, output: Any) -> None:
        if isinstance(output, (tuple, list)):  # snnTorch and Norse: spikes come first
            output = output[0]
        if not hasattr(output, "detach"):
            got = _checks.format_value(output)
            raise ValueError(f"{name} must give a tensor of spikes, got {got}")
        spikes = np.asarray(output.detach().cpu().float().numpy())
        if not np.all(np.isfinite(spikes)) or np.any(
            (spikes < 0) | (spikes != np.floor(spikes))
        ):
            raise ValueError(
                f"{name} must give spikes, whole numbers from 0, got "
                f"{spikes.min()} to {spikes.max()}; name layers that spike"
            )
        self._outputs.setdefault(name, []).append(spikes.astype(np.int32))

    def _end_call(self) -> None:
        self._calls += 1
        if self._calls < (self._timesteps or 1):
            return
        # An error must not leave half a batch behind.
        outputs, self._outputs, self._calls = self._outputs, {}, 0
        trains = {name: self._join_steps(name, each) for name, each in outputs.items()}
        sizes = {train.shape[:2] for train in trains.values()}
        if len(sizes) != 1 or (self._counts and set(trains) != set(self._counts)):
            raise ValueError(
                "all layers must spike in all time steps of every batch, got [T, B] of "
                f"{ {name: train.shape[:2] for name, train in trains.items()} }"
            )
        steps, inputs = sizes.pop()
        group = (self._inputs + np.arange(inputs)) % self._groups
        self._inputs += inputs
        np.add.at(self._sizes, group, steps)
        for name, train in trains.items():
            each = train.sum(axis=0)
            if each.ndim == 4:
                each = np.moveaxis(each, 1, -1)
            shape = (self._groups, *each.shape[1:])
            total = self._counts.setdefault(name, np.zeros(shape, np.int64))
            if total.shape != shape:
                raise ValueError(
                    f"{name} must have the same neurons in every batch, got "
                    f"{total.shape[1:]} and {shape[1:]}"
                )
            np.add.at(total, group, each)

    def _join_steps(self, name: str, outputs: list[np.ndarray]) -> np.ndarray:
        """Return spikes ``[T, B, ...]`` of a batch."""
        if name in self._sequences or (len(outputs) == 1 and name not in self._steps):
            train = np.concatenate(outputs)
        elif len(outputs) == 1 and self._timesteps is None:
            raise ValueError(
                f"{name} gave one time step in a call of the module: where you call it "
                "once for each time step, give timesteps=T, the calls for a batch"
            )
        else:
            train = np.stack(outputs)
        if train.ndim < 3:
            raise ValueError(
                f"spikes of {name} must be [T, B, neurons...], got shape "
                f"{train.shape}; where you call the module once for each time step, "
                "give timesteps=T, the calls for a batch"
            )
        return train


@contextlib.contextmanager
def record(
    module: Any,
    layers: Iterable[str] | None = None,
    *,
    timesteps: int | None = None,
    groups: int = 32,
    inputs_id: str | None = None,
) -> Iterator[Recording]:
    """Record the spike counts of a PyTorch network while a block runs.

    Neurons of SpikingJelly (step by step or multi-step), snnTorch and Norse are found;
    others by their names. Input i goes to group i modulo ``groups``, in the order in
    which inputs come, over all batches.

    Args:
        module: the network; call it inside the block, in evaluation mode.
        layers: names as in ``module.named_modules()``; all known neurons by default.
        timesteps: how often the module is called for one batch where the loop over time
            is outside of it; None where one call is a batch.
        groups: sets of inputs that are counted apart, for `firing.verdict`.
        inputs_id: a name that two recordings share if they saw the same inputs in the
            same order.

    Yields:
        `Recording`: ``.counts`` is a `firing.FiringCounts`, ``.save(path)`` writes it.

    Raises:
        ValueError: a name that the module does not have, no neuron, outputs that are no
            spikes, one step in a call without ``timesteps``.
    """
    _checks.require_whole("groups", groups, 1)
    if timesteps is not None:
        _checks.require_whole("timesteps", timesteps, 1)
    modules = dict(module.named_modules())
    if layers is None:
        chosen = {name: m for name, m in modules.items() if is_neuron(m)}
    else:
        names = [layers] if isinstance(layers, str) else list(layers)
        if unknown := [name for name in names if name not in modules]:
            raise ValueError(
                f"layers must be names of the module's, got {unknown}; it has "
                f"{_checks.format_value(sorted(modules))}"
            )
        chosen = {name: modules[name] for name in names}
    if not chosen:
        raise ValueError(
            "no neurons of SpikingJelly, snnTorch or Norse were found; name the layers "
            "that spike: layers=[...]"
        )
    recording = Recording(groups, timesteps, inputs_id)
    hooks = []
    try:
        for path, neuron in chosen.items():
            name = path or type(neuron).__name__
            if (steps := gives_sequences(neuron)) is not None:
                (recording._sequences if steps else recording._steps).add(name)
            hooks.append(
                neuron.register_forward_hook(
                    lambda _module, _inputs, output, name=name: recording._add_output(
                        name, output
                    )
                )
            )
        hooks.append(module.register_forward_hook(lambda *_: recording._end_call()))
        yield recording
    finally:
        for hook in hooks:
            hook.remove()


def is_neuron(module: Any) -> bool:
    """Recognize a spiking neuron of SpikingJelly, snnTorch or Norse."""
    if _library(module) == "norse" and re.match("LI(?!F)", type(module).__name__):
        return False  # leaky integrators do not spike
    return any(
        base.__name__ in names and base.__module__.split(".")[0] == library
        for library, names in NEURONS.items()
        for base in type(module).__mro__
    )


def gives_sequences(module: Any) -> bool | None:
    """Return True for ``[T, B, ...]`` in a call, False for a step; None if unknown."""
    if hasattr(module, "step_mode"):
        return module.step_mode == "m"
    library = _library(module)
    if library == "norse":
        return not type(module).__name__.endswith("Cell")
    return False if library == "snntorch" else None


def _library(module: Any) -> str:
    bases = [base.__module__.split(".")[0] for base in type(module).__mro__]
    return next((name for name in bases if name in NEURONS), "")
