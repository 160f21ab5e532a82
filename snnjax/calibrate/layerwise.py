"""A network layer by layer: what feeds each layer of neurons, and its currents.

Works on any network of `layers`: the order of its layers is that in which they run.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from snnjax import _pytree
from snnjax.layers import (
    BatchNorm,
    Hyperparameters,
    QuantConv,
    QuantLinear,
    Readout,
    Recurrent,
    Spiking,
    observe,
)
from snnjax.layers.inspect import layer_bits
from snnjax.layers.observe import observable_layers
from snnjax.models.protocol import check_result
from snnjax.neurons import IF, LIF, PLIF, CubaLIF


class Unit(NamedTuple):
    """Layers that run one behind the other, by name.

    Attributes:
        weights: the convolution or linear layer.
        norm: the BatchNorm behind it, or None.
        spiking: the neurons behind them, or None where the network ends without.
    """

    weights: str
    norm: str | None
    spiking: str | None

    @property
    def affine(self) -> str:
        """The layer that has the last say on the current: its bias shifts it."""
        return self.norm or self.weights


def list_calls(
    model: nnx.Module, images: ArrayLike, timesteps: int, **options: Any
) -> list[str]:
    """Return the names of a network's layers in the order in which they run."""
    return [name for name, _ in _trace_calls(model, images, timesteps, **options)]


def require_rest(
    models: Sequence[nnx.Module], images: ArrayLike, timesteps: int
) -> None:
    """Raise ValueError unless all neurons begin at rest, from where they are run."""
    calls = [call for x in models for call in _trace_calls(x, images, timesteps)]
    if moved := sorted({name for name, start in calls if start is not None}):
        raise ValueError(
            f"model starts {', '.join(moved)} from a state of its own (v_init), and "
            "its firing is matched from rest; calibrate.correct_bias matches the mean "
            "currents, and train.fit(model, dataset, teacher=reference, ...) the firing"
        )


def _trace_calls(
    model: nnx.Module,
    images: ArrayLike,
    timesteps: int,
    *,
    check: Callable[..., Any] | None = None,
    **options: Any,
) -> list[tuple[str, Any]]:
    """Return name and first state of each layer's calls, in their order.

    ``check(result, images, timesteps)`` sees what the network returns.
    """
    calls: list[tuple[str, Any]] = []
    names = {
        name: functools.partial(_add_call, calls, name)
        for name in observable_layers(model)
    }
    graphdef, state = nnx.split(model)

    def trace(state, images):
        copy = nnx.merge(graphdef, state, copy=True)
        copy.eval()
        with observe(copy, names, starts=True):
            result = copy(images, timesteps=timesteps, **options)
        if check is not None:
            check(result, images, timesteps)

    jax.eval_shape(trace, state, images)
    return calls


def find_units(
    model: nnx.Module,
    images: ArrayLike,
    timesteps: int,
    check: Callable[..., Any] | None = None,
) -> list[Unit]:
    """Return the layers of a network in the order in which they run.

    ``check(result, images, timesteps)`` sees what the network returns.

    Raises:
        ValueError: a layer that runs twice, or neurons that no layer with weights
            feeds: such a network cannot be calibrated layer by layer.
    """
    found = _trace_calls(model, images, timesteps, check=check)
    calls = [name for name, _ in found]
    twice = sorted({name for name in calls if calls.count(name) > 1})
    if twice:
        raise ValueError(
            f"model runs {', '.join(twice)} more than once; layer by layer it can be "
            "calibrated where each layer runs once"
        )
    layers = observable_layers(model)
    units: list[Unit] = []
    for name in calls:
        layer = layers[name]
        last = units[-1] if units else None
        if isinstance(layer, (QuantConv, QuantLinear)):
            units.append(Unit(name, None, None))
        elif isinstance(layer, Readout):
            continue  # it never fires; the layer in front of it is the last
        elif last is None or last.spiking is not None:
            raise ValueError(
                f"model runs {name} without a QuantConv or QuantLinear right before "
                "it; there is nothing whose bias could be calibrated"
            )
        elif isinstance(layer, BatchNorm):
            units[-1] = last._replace(norm=name)
        else:
            units[-1] = last._replace(spiking=name)
    return units


def find_quantized_units(
    model: nnx.Module, images: ArrayLike, timesteps: int
) -> list[Unit]:
    """Return the units of `find_units` whose kernel has a quantizer."""
    layers: dict[str, Any] = dict(observable_layers(model))
    units = find_units(model, images, timesteps)
    return [unit for unit in units if layers[unit.weights].quant is not None]


def check_feed_forward(model: nnx.Module) -> None:
    """Raise ValueError for recurrent layers, whose currents depend on their spikes."""
    names = [
        ".".join(map(str, path))
        for path, module in nnx.iter_modules(model)
        if isinstance(module, Recurrent)
    ]
    if names:
        raise ValueError(
            f"model must be feed-forward to be matched layer by layer, and "
            f"{', '.join(names)} sees its own spikes: another current changes them, "
            "and they the current; train.fit(model, dataset, teacher=reference, ...) "
            "restores the firing of a recurrent network"
        )


def _add_call(calls: list, name: str, layer: Any, x: Array, start: Any) -> Array:
    calls.append((name, start))
    return jnp.zeros(())


def observe_batches(
    model: nnx.Module,
    batches: Sequence[Array],
    observers: Mapping[str, Callable[[Any, Array], Any]],
    timesteps: int,
) -> list[dict[str, Any]]:
    """Run a network on every batch; return ``{layer: observed}`` of each."""
    graphdef, state = nnx.split(model)
    chosen = tuple(observers.items())
    return [_observed(graphdef, state, x, chosen, timesteps) for x in batches]


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _observed(graphdef, state, images, observers, timesteps):
    model = nnx.merge(graphdef, state, copy=True)
    model.eval()
    with observe(model, dict(observers)) as found:
        model(images, timesteps=timesteps)
    return found


def take_input(layer: Any, x: Array) -> Array:
    """Return the input as it is: an observer."""
    return x


def can_scale(model: nnx.Module, unit: Unit) -> bool:
    """Return True if a channel's current can be scaled without touching its weights."""
    if unit.norm is not None or unit.spiking is None:
        return unit.norm is not None
    spiking: Any = observable_layers(model)[unit.spiking]
    neuron = spiking.learned_neuron()
    # Of one's own dynamics it is not known whether they scale with the threshold.
    if not isinstance(neuron, LIF | IF | PLIF | CubaLIF):
        return False
    if "v_threshold" in spiking.learned_numbers():
        return False
    # Numbers in units of the potential, which do not scale with the threshold.
    fixed = [x for x in (neuron.v_reset, neuron.v_min) if x is not None]
    return spiking.quant is None and not any(np.any(np.asarray(x)) for x in fixed)


def scale_and_shift(model: nnx.Module, unit: Unit, gain: Array, offset: Array) -> None:
    """Replace each channel's current I by ``gain * I + offset``, in place.

    By BatchNorm's scale and bias; without BatchNorm by the bias, and by the threshold,
    which is divided by the gain: the same where `can_scale` is True.

    Raises:
        ValueError: no layer there has a bias.
    """
    layers: dict[str, Any] = dict(observable_layers(model))
    layer = layers[unit.affine]
    if layer.bias is None:
        raise ValueError(
            f"{unit.affine} has no bias to correct; make it with use_bias=True, or put "
            "a BatchNorm behind it"
        )
    bias = layer.bias.get_value()
    if unit.norm is not None:
        scale = layer.scale.get_value()
        layer.scale.set_value((scale * gain).astype(scale.dtype))
        layer.bias.set_value((bias * gain + offset).astype(bias.dtype))
        return
    layer.bias.set_value((bias + offset / gain).astype(bias.dtype))
    if not np.all(np.asarray(gain) == 1):
        spiking = layers[unit.spiking or ""]
        neuron = spiking.neuron.get_value()
        threshold = jnp.asarray(neuron.v_threshold) / gain
        neuron = _pytree.replace(neuron, v_threshold=threshold)
        spiking.neuron = Hyperparameters(neuron)


def require_moved(
    unit: Unit, before: Array, found: Array, wanted: Array, size: Array
) -> None:
    """Raise ValueError unless `scale_and_shift` moved the currents as wanted.

    Something between the layer and its neurons may sum windows or add a shortcut.
    ``size`` is the mean magnitude of the currents, of which rounding is a share.
    """
    error, move = (
        jnp.mean(jnp.abs(x.astype(wanted.dtype) - wanted)) for x in (found, before)
    )
    if error > 0.1 * move + 5e-3 * size:
        raise ValueError(
            f"{unit.spiking or unit.affine} must see what {unit.affine} returns and "
            "nothing else to be calibrated, and something in between sums windows, "
            "pads them or adds more"
        )


def find_spiking(model: nnx.Module, unit: Unit) -> Spiking:
    """Return the unit's layer of neurons."""
    layer = observable_layers(model)[unit.spiking or ""]
    assert isinstance(layer, Spiking)
    return layer


def prepare(
    model: nnx.Module,
    reference: nnx.Module,
    images: Array,
    timesteps: int,
) -> list[Unit]:
    """Return the units of a network; ValueError unless the reference has the same.

    And unless both return logits of ``timesteps`` steps.
    """
    check_feed_forward(model)
    ours, own = ([x for x in layer_bits(m) if x.spec] for m in (model, reference))
    if own and not ours:
        raise ValueError(
            "reference must be the network in full precision, and model the quantized "
            f"one: reference has a quantizer ({own[0].name}) and model has none"
        )
    units, theirs = (
        find_units(x, images, timesteps, check_result) for x in (model, reference)
    )
    if units != theirs:
        apart = sorted(set(map(str, units)) ^ set(map(str, theirs)))
        raise ValueError(
            "reference must be the same network in full precision, with the same "
            f"layers in the same order; only in one of the two: {', '.join(apart[:2])}"
        )
    layers: list[dict[str, Any]] = [observable_layers(m) for m in (model, reference)]
    for name in (unit.weights for unit in units):
        shapes = [each[name].kernel.shape for each in layers]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"reference must be the same network, got a {name} of shape "
                f"{shapes[1]}, and {shapes[0]} in model"
            )
    return units
