"""A feed-forward network of named layers, which does all that the ready ones do."""

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax.layers import (
    AvgPool,
    BatchNorm,
    Dropout,
    MaxPool,
    QuantConv,
    Readout,
    Recurrent,
    Spiking,
)
from snnjax.layers.shapes import Pool
from snnjax.layers.state import Stateful
from snnjax.models.architecture import build_layers, describe_layers
from snnjax.models.connections import Synapse
from snnjax.models.parts import Record, norm_and_spike
from snnjax.models.wiring import trace_synapses


class Sequential(nnx.Module):
    """Layers one after another, each under a name of its own.

    It trains, records, calibrates, counts synapses, is described and rebuilt from its
    file as the ready-made networks are. A still image is seen by the layers in front of
    the first neurons once; only layers with a state see time.

    Args:
        layers: ``{name: layer}``, of `snnjax.layers` or any module that maps ``[T, B,
            ...]`` to ``[T, B, ...]``; the names are attributes, and the names of the
            layers elsewhere. At least one has neurons, and the last returns logits
            ``[T, B, classes]``. They become this network's own.
        in_shape: of an input without time and batch: ``(H, W, C)``, ``(L, C)`` or
            ``(C,)``.

    Raises:
        ValueError: a name that cannot be an attribute, no neurons, layers that do not
            fit one another or ``in_shape`` (the layer is named), a convolution made
            with ``spikes=True`` behind something else, or no logits at the end.

    >>> from snnjax import layers, models, neurons
    >>> rngs = nnx.Rngs(0)
    >>> net = models.Sequential(
    ...     {
    ...         "conv1": layers.QuantConv(1, 4, kernel_size=3, rngs=rngs),
    ...         "norm1": layers.BatchNorm(4),
    ...         "sn1": layers.Spiking(neurons.LIF()),
    ...         "pool1": layers.AvgPool(2),
    ...         "flatten": layers.Flatten(),
    ...         "fc": layers.QuantLinear(36, 10, rngs=rngs),
    ...     },
    ...     in_shape=(8, 8, 1),
    ... )
    >>> logits, spikes = net(jnp.ones((2, 8, 8, 1)), timesteps=4)
    >>> logits.shape, spikes["sn1"].shape
    ((4, 2, 10), (4, 2, 6, 6, 4))
    """

    def __init__(self, layers: Mapping[str, nnx.Module], *, in_shape: tuple[int, ...]):
        _check_layers(layers)
        if not isinstance(in_shape, tuple | list) or not in_shape:
            raise ValueError(
                "in_shape must be (H, W, C), (L, C) or (C,), an input without time and "
                f"batch, got {in_shape!r}"
            )
        for size in in_shape:
            _checks.require_whole("in_shape", size, 1)
        self.in_shape = tuple(map(int, in_shape))
        self.names = tuple(layers)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.use_running_average = True
        described = describe_layers(layers)
        self.architecture = None
        if described is not None:
            arguments = {"layers": described, "in_shape": self.in_shape}
            self.architecture = json.dumps(arguments)
        _check_sources(layers)
        self.eval()  # as the ready-made networks: a loop that trains sets the mode
        self.shapes()

    @classmethod
    def from_architecture(
        cls, *, layers: Sequence, in_shape: Sequence[int], rngs: nnx.Rngs
    ) -> "Sequential":
        """Build the network that an ``architecture`` describes."""
        return cls(build_layers(layers, rngs), in_shape=tuple(in_shape))

    def layers(self) -> dict[str, Any]:
        """Return the layers by name, in order."""
        return {name: getattr(self, name) for name in self.names}

    def __call__(
        self,
        x: ArrayLike,
        *,
        timesteps: int = 4,
        train: bool | None = None,
        record: Record | None = None,
        outputs: bool = False,
    ) -> tuple[Array, dict[str, Any]]:
        """Run the network for ``timesteps`` steps.

        Args:
            x: a still image ``[B, ...]`` or a sequence ``[T, B, ...]`` of ``in_shape``.
            timesteps: T.
            train: normalise by the batch and update running statistics; None follows
                ``model.train()`` and ``model.eval()``; a new network is in evaluation
                mode.
            record: applied to each layer's spikes ``[T, B, ...]`` where they arise.
            outputs: record the spikes behind each `layers.MaxPool` too, as
                ``"pool1.out"``.

        Returns:
            Logits ``[T, B, classes]`` and ``{layer: record(spikes)}``; a recurrent
            layer's are under the name of its neurons, ``"rec1.sn"``.

        Raises:
            ValueError: timesteps below 1, x of another shape, a sequence of another
                length, or integer x.
        """
        h, is_still = self._prepare(x, timesteps, record)
        recorded = {}

        def keep(name, spikes):
            recorded[name] = spikes if record is None else record(spikes)

        layers = list(self.layers().items())
        norm = None
        for i, (name, layer) in enumerate(layers):
            after = layers[i + 1][1] if i + 1 < len(layers) else None
            if isinstance(layer, BatchNorm) and _fires(after):
                norm = layer  # with the neurons, in one pass over memory
                continue
            if norm is not None:
                still = timesteps if is_still else None
                h = h[0] if is_still else h
                h = norm_and_spike(norm, layer, h, train=train, timesteps=still)
                norm, is_still = None, False
            else:
                if isinstance(layer, Stateful) and is_still:
                    h = jnp.concatenate([h] * timesteps)
                    is_still = False
                repeats = timesteps if is_still else 1
                h = _call_layer(layer, h, train, repeats)
            if isinstance(layer, Recurrent):
                keep(f"{name}.sn", h)
            elif _fires(layer):
                keep(name, h)
            elif outputs and isinstance(layer, MaxPool):
                keep(f"{name}.out", h)
        return h, recorded

    def _prepare(self, x, timesteps, record) -> tuple[Array, bool]:
        """Return x with time in front, of length 1 for a still image."""
        x = _checks.require_floating(
            "x", x, "data.normalize prepares uint8 images; counts: .astype(jnp.float32)"
        )
        if record is not None:
            _checks.require_callable("record", record, "such as firing.total")
        _checks.require_whole("timesteps", timesteps, 1)
        rank = len(self.in_shape)
        if x.ndim not in (rank + 1, rank + 2) or x.shape[-rank:] != self.in_shape:
            raise ValueError(
                f"x must be [B, ...] or [T, B, ...] of inputs {self.in_shape}, got "
                f"shape {x.shape}"
            )
        if 0 in x.shape:
            raise ValueError(f"x must have at least one input, got shape {x.shape}")
        if x.ndim == rank + 1:
            return x[None], True
        if x.shape[0] != timesteps:
            raise ValueError(
                f"x has {x.shape[0]} time steps (shape {x.shape}, time first), but "
                f"timesteps is {timesteps}"
            )
        return x, False

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape behind each layer, without time and batch.

        Raises:
            ValueError: layers that do not fit one another, or no logits at the end.
        """
        shape, found = self.in_shape, {}
        for name, layer in self.layers().items():
            if _count_axes(layer) >= len(shape):  # it would run over time and batch
                raise ValueError(
                    f"{name}, {type(layer).__name__}, runs along {_count_axes(layer)} "
                    f"axes in front of the channels, and its input {shape} has "
                    f"{len(shape) - 1}: (length,) as kernel_size or window is of one "
                    "axis, and channels are the last axis of in_shape"
                )
            x = jax.ShapeDtypeStruct((2, 1, *shape), np.float32)

            def run(layer, x):
                return _call_layer(layer, x, False, 1)

            try:
                y = nnx.eval_shape(run, layer, x)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{name}, {type(layer).__name__}, does not fit its input of shape "
                    f"{shape}: {error}"
                ) from None
            if y.shape[:2] != (2, 1):
                raise ValueError(
                    f"{name}, {type(layer).__name__}, must map [T, B, ...] to [T, B, "
                    f"...], got {y.shape} for (2, 1, {shape})"
                )
            shape = found[name] = y.shape[2:]
        if len(shape) != 1:
            raise ValueError(
                f"the last layer must return logits [T, B, classes], got {shape} "
                "behind time and batch; layers.Flatten and layers.QuantLinear make them"
            )
        return found

    def synapses(
        self, image_size: tuple[int, int] | None = None
    ) -> tuple[Synapse, ...]:
        """Every layer with weights, with what feeds it, in order.

        Sums and means of windows are folded into the weights behind them: a
        convolution behind `layers.AvgPool` is one of larger windows.

        Args:
            image_size: (height, width), as the network was made for, or None.

        Raises:
            ValueError: another image size; a layer whose synapses are not known.
        """
        if image_size is not None:
            _checks.require_image_size(image_size)
            if tuple(image_size) != self.in_shape[:-1]:
                raise ValueError(
                    f"the network was made for inputs of {self.in_shape}, got "
                    f"image_size {image_size}"
                )
        return trace_synapses(self.layers(), self.in_shape, self.shapes())


def _fires(layer: Any) -> bool:
    return isinstance(layer, Spiking) and not isinstance(layer, Readout)


def _count_axes(layer: Any) -> int:
    """Return along how many axes a layer slides a window."""
    if isinstance(layer, Pool):
        return 2 if layer.window is None else len(layer.window)
    if isinstance(layer, QuantConv):
        return len(layer.strides)
    return np.size(layer.kernel_size) if isinstance(layer, nnx.Conv) else 0


def _call_layer(layer: Any, h: Array, train: bool | None, repeats: int) -> Array:
    """Call a layer with the options that it takes."""
    options: dict[str, Any] = {}
    if isinstance(layer, BatchNorm):
        options["repeats"] = repeats
    if "train" in inspect.signature(layer.__call__).parameters:
        options["train"] = train
    return layer(h, **options)


def _check_layers(layers: Any) -> None:
    if not isinstance(layers, Mapping) or not layers:
        raise ValueError(
            "layers must be {name: layer}, at least one, got "
            f"{_checks.format_value(layers)}"
        )
    for name, layer in layers.items():
        if not isinstance(layer, nnx.Module) or not callable(layer):
            raise ValueError(
                f"layers[{name!r}] must be a layer, a flax.nnx.Module that is called, "
                f"got {_checks.format_value(layer)}"
            )
        is_free = isinstance(name, str) and name.isidentifier()
        if not is_free or hasattr(Sequential, name) or name in _RESERVED:
            raise ValueError(
                f"the name {name!r} cannot be an attribute of the network; take another"
            )
    if len({id(layer) for layer in layers.values()}) < len(layers):
        raise ValueError("layers must be different objects; make each its own layer")
    if not any(_fires(x) or isinstance(x, Recurrent) for x in layers.values()):
        raise ValueError(
            "layers must have neurons among them, layers.Spiking or layers.Recurrent"
        )


_RESERVED = {"names", "in_shape", "architecture", "use_running_average"}


def _check_sources(layers: Mapping[str, Any]) -> None:
    """Refuse a convolution that keeps its input as spikes where it is not spikes."""
    are_spikes, source = False, "the input"
    for name, layer in layers.items():
        if isinstance(layer, QuantConv) and layer.keep is not None and not are_spikes:
            raise ValueError(
                f"{name} was made with spikes=True, and {source} gives other numbers: "
                "its gradients would be wrong; make it with spikes=False"
            )
        if _fires(layer) or isinstance(layer, Recurrent):
            are_spikes = True
        elif isinstance(layer, AvgPool | Dropout | BatchNorm | Readout) or hasattr(
            layer, "kernel"
        ):
            are_spikes, source = False, name
