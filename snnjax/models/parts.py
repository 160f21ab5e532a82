"""Parts that all networks share: layer factory, input checks, pooling."""

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from snnjax import _checks
from snnjax._order import rematerialize, rematerialize_elementwise
from snnjax._time_chunks import divide, run_in_chunks
from snnjax.layers import BatchNorm, QuantConv, QuantLinear, Spiking, normalize
from snnjax.layers.observe import Observation
from snnjax.layers.variables import describe_value
from snnjax.models.connections import Synapse
from snnjax.neurons import Neuron
from snnjax.neurons.step import CHUNK, UNROLLED
from snnjax.quantize import QuantSpec

Parameters = ParamSpec("Parameters")
Network = TypeVar("Network")
Record = Callable[[Array], Any]
NeuronChoice = Neuron | Callable[[int], Neuron]
PRESET = ("self", "block", "blocks", "stages")


def with_options_of(
    network: Callable[Parameters, Network],
) -> Callable[[Callable[..., Network]], Callable[Parameters, Network]]:
    """Give a function that presets sizes of a network the other options' signature.

    The options are written once, in the class, and editors complete them in each.
    """

    def decorate(function: Callable[..., Network]) -> Callable[Parameters, Network]:
        own = inspect.signature(function)
        options = inspect.signature(network.__init__).parameters.values()
        merged = [
            own.parameters.get(p.name, p) for p in options if p.name not in PRESET
        ]
        setattr(function, "__signature__", own.replace(parameters=merged))  # noqa: B010
        return function

    return decorate


@dataclasses.dataclass(frozen=True)
class LayerFactory:
    """Makes the layers of one network.

    ``is_boundary`` marks the layers that see the image and make the logits: they stay
    in full precision unless ``quantize_all``.
    """

    neuron: NeuronChoice
    learn: Sequence[str]
    weight_quant: QuantSpec | None
    membrane_quant: QuantSpec | None
    membrane_site: str
    quantize_all: bool
    dtype: DTypeLike | None
    param_dtype: DTypeLike
    rngs: nnx.Rngs

    def conv(self, *sizes: int, is_boundary: bool = False, **options: Any) -> QuantConv:
        """Make a convolution."""
        # Only the stem sees anything but spikes and their sums.
        return QuantConv(
            *sizes, spikes=not is_boundary, **options, **self._weights(is_boundary)
        )

    def linear(self, *sizes: int, **options: Any) -> QuantLinear:
        """Make the layer of the logits."""
        return QuantLinear(*sizes, **options, **self._weights(is_boundary=True))

    def norm(self, features: int, **options: Any) -> BatchNorm:
        """Make a BatchNorm."""
        return BatchNorm(features, param_dtype=self.param_dtype, **options)

    def spiking(self, features: int, *, is_boundary: bool = False) -> Spiking:
        """Make a layer of neurons for so many channels."""
        quant = None if is_boundary and not self.quantize_all else self.membrane_quant
        neuron = self.neuron
        if not isinstance(neuron, Neuron) and callable(neuron):
            neuron = neuron(features)
        layer = Spiking(neuron, quant=quant, site=self.membrane_site, learn=self.learn)
        numbers = jax.tree.leaves(layer.learned_neuron())
        sizes = {np.shape(x)[-1] for x in numbers if np.ndim(x)}
        if sizes - {1, features}:
            raise ValueError(
                f"neuron has numbers of shape [{', '.join(map(str, sizes))}] for a "
                f"layer of {features} channels; give a function of the number of "
                "channels: neuron=lambda channels: neurons.LIF(v_threshold="
                "jnp.ones(channels))"
            )
        return layer

    def _weights(self, is_boundary: bool) -> dict[str, Any]:
        quant = None if is_boundary and not self.quantize_all else self.weight_quant
        names = ("dtype", "param_dtype", "rngs")
        return {name: getattr(self, name) for name in names} | {"quant": quant}


def describe_arguments(**arguments: Any) -> str:
    """Return the constructor's arguments that decide the structure, as JSON.

    A string, as it becomes a static attribute, which must have a hash.
    """
    return json.dumps({name: _argument(x) for name, x in arguments.items()})


def _argument(x: Any) -> Any:
    if isinstance(x, type) and issubclass(x, nnx.Module):
        return x.__name__
    if isinstance(x, np.integer):
        return int(x)
    if isinstance(x, Sequence) and not isinstance(x, str):
        return [_argument(part) for part in x]
    return describe_value(x)


def check_input(
    x: ArrayLike, timesteps: int, channels: int, record: Record | None
) -> Array:
    """Return x as an array; raise ValueError unless a network can be called so."""
    x = _checks.as_array("x", x)
    if record is not None:
        _checks.require_callable("record", record, "such as firing.total")
    _checks.require_whole("timesteps", timesteps, 1)
    if x.ndim not in (4, 5):
        raise ValueError(
            f"x must be [B, H, W, C] or [T, B, H, W, C], got shape {x.shape}"
        )
    if x.ndim == 5 and x.shape[0] != timesteps:
        raise ValueError(
            f"x has {x.shape[0]} time steps (shape {x.shape}, time first), but "
            f"timesteps is {timesteps}"
        )
    if x.shape[-1] != channels:
        raise ValueError(
            f"the network was made for {channels} channels, which come last; got "
            f"x of shape {x.shape}"
        )
    if 0 in x.shape:
        raise ValueError(f"x must have at least one image, got shape {x.shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"x must be floating point, got {x.dtype}; data.normalize prepares "
            "uint8 images"
        )
    return x


def norm_and_spike(
    norm: BatchNorm,
    neurons: Spiking,
    h: Array,
    *,
    train: bool | None,
    timesteps: int | None = None,
) -> Array:
    """Normalise a convolution's output and return its spikes ``[T, B, ...]``.

    The backward pass keeps ``h`` alone and recomputes currents and membranes: that is
    one pass over memory, where keeping them is two and three times the space.

    Args:
        norm: normalises.
        neurons: make spikes of the currents.
        h: ``[T, B, ...]``, or ``[B, ...]`` of a still image with ``timesteps``.
        train: normalise by the batch; None follows the mode of ``norm``.
        timesteps: for how long a still image is seen.
    """
    start = neurons.start_state()
    graphdef, state = nnx.split(neurons)
    still = timesteps is not None
    steps = timesteps if timesteps is not None else h.shape[0]
    h, *affine = norm.prepare(h, train=train, repeats=timesteps or 1)

    def make_currents(steps, h, affine):
        currents = normalize(h, *affine)
        # The gradient of a stack is a sum of its parts, which XLA fuses.
        return jnp.stack([currents] * steps) if still else currents

    def run(currents, state, start):
        layer = nnx.merge(graphdef, state, copy=True)
        spikes, end = layer.run(currents, start)
        return spikes, end, nnx.state(layer, Observation)

    def run_chunk(part, h, others, start):
        affine, state = others
        layer = nnx.merge(graphdef, state, copy=True)
        return layer.advance(make_currents(part, h, affine), start, steps=steps)

    if neurons.is_observed:

        def run_observed(h, affine, state, start):
            return run(make_currents(steps, h, affine), state, start)

        # Traced once, so that an observer is called once.
        spikes, end, observed = rematerialize(
            run_observed, None, h, affine, state, start
        )
        nnx.update(neurons, observed)
    elif steps > UNROLLED:
        chunks = divide(steps, CHUNK, still)
        spikes, end = run_in_chunks(run_chunk, chunks, h, (affine, state), start)
    else:
        make = functools.partial(make_currents, steps)
        spikes, end, _ = rematerialize_elementwise(run, make, h, affine, state, start)
    neurons.keep_state(end)
    return spikes


def remat_module(
    module: nnx.Module, call: Callable[[Any, Array], tuple[Array, Any]], h: Array
) -> tuple[Array, Any]:
    """Call the module; the backward pass keeps only h, as int8, and recomputes.

    Args:
        module: a block or several; its statistics are updated once.
        call: called as ``call(module, h)``; returns an array and what was recorded.
        h: spikes, or sums of up to 127.
    """
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)

    def run(h, params, rest):
        module = nnx.merge(graphdef, params, rest, copy=True)
        return *call(module, h), nnx.split(module, nnx.Param, ...)[2]

    h, recorded, rest = rematerialize(run, jnp.int8, h, params, rest)
    nnx.update(module, rest)
    return h, recorded


def max_pool(x: Array, *, window: int, strides: int, padding: int = 0) -> Array:
    """Max-pool ``[T, B, H, W, C]`` over H and W."""
    pads = ((0, 0), (0, 0), (padding, padding), (padding, padding), (0, 0))
    over, by = (1, 1, window, window, 1), (1, 1, strides, strides, 1)
    # A plain number: of an array JAX does not know that it is max's identity, and then
    # there is no gradient.
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, over, by, pads)


def conv_synapse(
    name: str,
    conv: QuantConv,
    sources: tuple[str, ...],
    connect: str,
    size: tuple[int, ...],
) -> Synapse:
    """Return a convolution's row in the connection table, for an input of this size."""
    axes = len(conv.strides)
    kernel, (c_in, c_out) = conv.kernel.shape[:axes], conv.kernel.shape[axes:]
    out = tuple(
        (n + sum(pad) - (k - 1) * apart - 1) // stride + 1
        for n, k, stride, pad, apart in zip(
            size, kernel, conv.strides, conv.padding, conv.dilation, strict=True
        )
    )
    return Synapse(
        name,
        sources,
        connect,
        kernel,
        conv.strides,
        conv.padding,
        (*size, c_in * conv.groups),
        (*out, c_out),
        conv.dilation,
        conv.groups,
    )
