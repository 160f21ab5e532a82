"""Observe the inputs of layers, such as the currents of neurons, as a network runs.

What an observer makes of an input leaves the network as a variable, so that it works
under ``jax.jit``, gradients, rematerialization and NNX's transformations alike.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from flax import errors, nnx

from snnjax import _checks

Observer = Callable[..., Any]  # of a layer and its input


_UNSEEN = ()  # the value of an observation before the layer runs


class Observation(nnx.Variable):
    """Result of a layer's observer, while `observe` is in force."""


class Observable(nnx.Module):
    """A layer whose input can be observed.

    Attributes:
        _observer: function of the layer and its input, or None.
        _sees_start: whether it takes the state that the layer begins with, too.
        _observation: `Observation` that takes its result, or None.
    """

    _observer: Any = None
    _sees_start: bool = False
    _observation: Any = None

    @property
    def is_observed(self) -> bool:
        """Return True while an observer sees the input of this layer."""
        return self._observer is not None

    @property
    def is_seen(self) -> bool:
        """Return True once an observer has seen the input of this layer in a pass.

        Of the variable, since a rematerialized layer is traced several times.
        """
        if self._observation is None:
            return False
        value = self._observation.get_value()
        return not (isinstance(value, tuple) and value == _UNSEEN)

    def _show(self, x: Any, start: Any = None) -> None:
        """Give the layer's input to its observer, if it has one.

        ``start`` is the state that neurons begin with, None at rest.
        """
        if self._observer is None or self._observation is None:
            return
        seen = (x, start) if self._sees_start else (x,)
        found = self._observer(self, *seen)
        try:
            self._observation.set_value(found)
        except errors.TraceContextError:
            raise ValueError(
                f"a {type(self).__name__} is called in a loop of JAX's own "
                "(jax.lax.scan, jax.vmap), where its input cannot be observed; call "
                "it on the whole sequence [T, B, ...] at once, or, for neurons that "
                "receive their own spikes, use layers.Recurrent"
            ) from None


@contextlib.contextmanager
def observe(
    model: nnx.Module, observers: Mapping[str, Observer], *, starts: bool = False
) -> Iterator[dict[str, Any]]:
    """Observe the inputs of layers of ``model`` until the block ends.

    Args:
        model: any NNX model of `layers`; after the block it is as it was.
        observers: ``{layer: function of its input}``, of the current ``[T, B, ...]`` of
            a `Spiking` (in a `Recurrent`, with what comes back), and of what a
            `QuantConv`, `QuantLinear` or `BatchNorm` takes. A layer that runs several
            times shows its last input.
        starts: give the functions a third argument, the state that neurons begin with
            before that current: None at rest, and of layers without neurons.

    Yields:
        A dict that holds ``{layer: result}`` when the block has ended.

    Raises:
        ValueError: a name that is no such layer's; as the network runs, a layer that
            is called inside ``jax.lax.scan`` or ``jax.vmap``.

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
            modules[name]._sees_start = starts
            modules[name]._observation = nnx.data(Observation(_UNSEEN))
        yield found
        for name in observers:
            observation = modules[name]._observation
            assert observation is not None
            shown = modules[name].is_seen
            found[name] = observation.get_value() if shown else jnp.zeros(())
    finally:
        for name in observers:
            stop_observing(modules[name])


def stop_observing(layer: Observable) -> None:
    """Take the observer off a layer, in place."""
    for attribute in ("_observer", "_observation", "_sees_start"):
        # The class's own None is left: the structure is what it was.
        if attribute in vars(layer):
            delattr(layer, attribute)


def observable_layers(model: nnx.Module) -> dict[str, Observable]:
    """Collect the layers that can be observed, each once, by dotted name."""
    return {
        ".".join(map(str, path)): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, Observable)
    }
