"""Observe the inputs of layers, such as the currents of neurons, as a network runs.

What an observer makes of an input leaves the network as a variable, so that it works
under ``jax.jit``, gradients, rematerialization and NNX's transformations alike.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from snnjax import _checks

Observer = Callable[[Any, Array], Any]  # of a layer and its input


class Observation(nnx.Variable):
    """Result of a layer's observer, while `observe` is in force."""


class Observable(nnx.Module):
    """A layer whose input can be observed.

    Attributes:
        _observer: function of the layer and its input, or None.
        _observation: `Observation` that takes its result, or None.
    """

    _observer: Any = None
    _observation: Any = None

    @property
    def is_observed(self) -> bool:
        """Return True while an observer sees the input of this layer."""
        return self._observer is not None

    def _show(self, x: Any) -> None:
        """Give the layer's input to its observer, if it has one."""
        if self._observer is not None and self._observation is not None:
            self._observation.set_value(self._observer(self, x))


@contextlib.contextmanager
def observe(
    model: nnx.Module, observers: Mapping[str, Observer]
) -> Iterator[dict[str, Any]]:
    """Observe the inputs of layers of ``model`` until the block ends.

    Args:
        model: any NNX model of `layers`; after the block it is as it was.
        observers: ``{layer: function of its input}``, of the current ``[T, B, ...]`` of
            a `Spiking` (in a `Recurrent`, with what comes back), and of what a
            `QuantConv`, `QuantLinear` or `BatchNorm` takes. A layer that runs several
            times shows its last input.

    Yields:
        A dict that holds ``{layer: result}`` when the block has ended.

    Raises:
        ValueError: a name that is no such layer's.

    >>> from snnjax import layers, neurons
    >>> layer = layers.Spiking(neurons.LIF())
    >>> with observe(layer, {"": lambda layer, x: x.max()}) as found:
    ...     spikes = layer(jnp.ones((4, 1, 3)))
    >>> float(found[""])
    1.0
    """
    modules = observable_layers(model)
    for name, observer in observers.items():
        _checks.require_callable("observers", observer)
        if name not in modules:
            raise ValueError(
                f"observers has {name!r}, which is no layer of the model; it has "
                f"{', '.join(modules)}"
            )
    found: dict[str, Any] = {}
    try:
        for name, observer in observers.items():
            modules[name]._observer = observer
            modules[name]._observation = nnx.data(Observation(jnp.zeros(())))
        yield found
        for name in observers:
            observation = modules[name]._observation
            assert observation is not None
            found[name] = observation.get_value()
    finally:
        for name in observers:
            # The class's own None is left: the structure is what it was.
            for attribute in ("_observer", "_observation"):
                if attribute in vars(modules[name]):
                    delattr(modules[name], attribute)


def observable_layers(model: nnx.Module) -> dict[str, Observable]:
    """Collect the layers that can be observed, each once, by dotted name."""
    return {
        ".".join(map(str, path)): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, Observable)
    }
