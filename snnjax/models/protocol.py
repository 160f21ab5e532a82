"""The call of a network, so that it trains and is measured; and the check of it."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


class SpikingModel(Protocol):
    """A network as `train`, `calibrate` and `distill` call it.

    Any ``flax.nnx.Module`` that is called so: those of `snnjax.models`, a
    `models.Sequential`, or one of your own.

    - ``x`` is still images ``[B, ...]``, which the network sees at every step, or a
      sequence ``[T, B, ...]``.
    - ``record`` is applied to the spikes ``[T, B, neurons...]`` of each layer, whole
      numbers from 0, where they arise, and its result takes their place: ``{layer:
      record(spikes)}``, or the spikes themselves where it is None. So no spike train is
      kept where only counts are wanted. Graded values (membranes, pooled spikes) are no
      spikes: leave them out.
    - ``train=None`` follows ``model.train()`` and ``model.eval()``; hand it to the
      layers as it is.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from snnjax import encoding, layers, neurons
    >>> class Net(nnx.Module):
    ...     def __init__(self, rngs):
    ...         self.sn = layers.Spiking(neurons.LIF())
    ...         self.fc = layers.QuantLinear(4, 2, rngs=rngs)
    ...
    ...     def __call__(self, x, *, timesteps=4, train=None, record=None):
    ...         if x.ndim == 2:
    ...             x = encoding.direct(x, timesteps=timesteps)
    ...         spikes = self.sn(x)
    ...         kept = spikes if record is None else record(spikes)
    ...         return self.fc(spikes, train=train), {"sn": kept}
    >>> check_model_call(Net(nnx.Rngs(0)), jnp.ones((3, 4)), timesteps=5).shape
    (5, 3, 2)
    """

    def __call__(
        self,
        x: ArrayLike,
        *,
        timesteps: int,
        train: bool | None,
        record: Callable[[Array], Any] | None,
    ) -> tuple[Array, Mapping[str, Any]]:
        """Return logits ``[T, B, classes]`` and ``{layer: record(spikes)}``."""
        ...


_CALL = (
    "model(x, *, timesteps=4, train=None, record=None) -> (logits [T, B, classes], "
    "{layer: record(spikes)}), see models.SpikingModel"
)


def check_model_call(
    model: Any, x: Any, *, timesteps: int, train: bool | None = None
) -> jax.ShapeDtypeStruct:
    """Return shape and dtype of the logits; the network is traced and not computed.

    Args:
        model: a network.
        x: a batch as the network takes it, or its shape and dtype.
        timesteps: T.
        train: as of the call.

    Raises:
        ValueError: the network is called otherwise than `SpikingModel`: other
            arguments, other results, or ``record`` that it does not apply, or applies
            to something without time and batch.
    """
    call = functools.partial(call_checked, model, timesteps=timesteps, train=train)
    return jax.eval_shape(call, x)


def call_checked(
    model: Any, x: Any, *, timesteps: int, train: bool | None = None
) -> Array:
    """Return the logits; ValueError as `check_model_call`. For use inside a trace."""
    check_arguments(model)
    shapes = []

    def record(spikes):
        shapes.append(jnp.shape(spikes))
        return ()

    found = model(x, timesteps=timesteps, train=train, record=record)
    logits, recorded = check_result(found, x, timesteps)
    _check_recorded(recorded, shapes, jnp.shape(logits))
    return logits


def check_arguments(model: Any) -> None:
    """Raise ValueError unless the network can be called as `SpikingModel` is."""
    if not callable(model):
        raise ValueError(f"a {type(model).__name__} cannot be called; give it {_CALL}")
    try:
        options = dict(timesteps=4, train=None, record=None)
        inspect.signature(model).bind(None, **options)
    except TypeError as error:
        raise ValueError(
            f"a {type(model).__name__} must be called as {_CALL}; {error}"
        ) from None


def check_result(found: Any, x: Any, timesteps: int) -> tuple[Array, Any]:
    """Return logits and record of a call; ValueError unless these are its results.

    Args:
        found: by the network.
        x: that it was given.
        timesteps: T.
    """
    if not isinstance(found, tuple) or len(found) != 2:
        got = type(found).__name__
        got += f" of {len(found)}" if isinstance(found, tuple) else ""
        raise ValueError(f"the network must return two things, {_CALL}, got {got}")
    logits, recorded = found
    if isinstance(logits, tuple | list | Mapping):
        raise ValueError(
            "the network must return one array of logits [T, B, classes], got a "
            f"{type(logits).__name__} of {len(logits)} outputs; return one of them "
            "beside {layer: record(spikes)}, or all of them along the last axis"
        )
    shape = jnp.shape(logits)
    if len(shape) != 3 or shape[0] != timesteps:
        remedy = "logits of the mean over time are jnp.stack([y] * T)"
        if len(shape) == 3 and shape[0] == jnp.shape(x)[0]:
            remedy = f"of sequences of {shape[0]} steps give timesteps={shape[0]}"
        raise ValueError(
            f"the network must return logits [T, B, classes] with T = {timesteps}, got "
            f"{list(shape)}; {remedy}"
        )
    return logits, recorded


def _check_recorded(recorded: Any, shapes: list[tuple], shape: tuple) -> None:
    if not isinstance(recorded, Mapping):
        raise ValueError(
            "the network must return {layer: record(spikes)} beside its logits, got "
            f"{type(recorded).__name__}; {{}} records nothing"
        )
    ignored = [name for name, kept in recorded.items() if jax.tree.leaves(kept)]
    if ignored:
        raise ValueError(
            f"the network does not apply record to {', '.join(map(str, ignored))}: "
            "rates and counts of it would be those of single spikes; return {layer: "
            "spikes if record is None else record(spikes)}"
        )
    for each in shapes:
        if each[:2] != shape[:2]:
            raise ValueError(
                f"record must be applied to spikes [T, B, ...] with T and B of the "
                f"logits, {list(shape[:2])}, got shape {list(each)}"
            )
