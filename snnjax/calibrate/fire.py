"""Match the firing of each channel to the reference's, by its offset and its gain."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from snnjax import _arrays, _checks
from snnjax.calibrate.batchnorm import reestimate_batchnorm
from snnjax.calibrate.bias import Progress, check_arguments, ignore_progress
from snnjax.calibrate.inputs import Inputs, augment_batches
from snnjax.calibrate.layerwise import (
    Unit,
    can_scale,
    find_spiking,
    observe_batches,
    require_moved,
    require_rest,
    scale_and_shift,
    take_input,
)
from snnjax.layers.observe import stop_observing
from snnjax.neurons.step import UNROLLED

Model = TypeVar("Model", bound=nnx.Module)

# Gains around the best so far, in three rounds that narrow; each has its own offset.
_ROUNDS = ((0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4), (0.94, 0.97, 1.03, 1.06))
_ROUNDS += ((0.98, 0.99, 1.01, 1.02),)
_MOST_GAIN = 4.0
_HALVINGS = 18
_WIDEST = 6.0  # of the search for an offset, in deviations of the current
_NEAR = 0.05  # how far around it the same number of spikes is looked for


class Firing(NamedTuple):
    """Firing of a layer on the calibration set, and the currents that cause it.

    Attributes:
        counts: spikes of each neuron ``[..., C]``.
        mean: of each channel's current ``[C]``.
        std: its standard deviation ``[C]``.
    """

    counts: Array
    mean: Array
    std: Array


def fire_match(
    model: Model,
    reference: nnx.Module,
    dataset: Inputs,
    *,
    timesteps: int = 4,
    images: int = 512,
    batch_size: int = 128,
    batchnorm: bool = True,
    augment: Callable[..., Any] | None = None,
    on_layer: Progress = ignore_progress,
) -> Model:
    r"""Copy ``model`` with the firing of each channel matched to the reference's.

    Each channel's current I becomes :math:`g I + b`. For a gain g the offset b is the
    one at which the channel fires as many spikes as in the reference, found by
    bisection, since spikes grow with b; the gain is the one of least

    .. math:: \frac1n \sum_i |r_i - r^{ref}_i|
              + \frac1n \sum_i |r_{(i)} - r^{ref}_{(i)}|

    the paired shift and the W1 of the rates of the channel's n neurons, among the one
    that gives the current the reference's deviation, 1, and gains around the best.
    Layers are matched in the order in which they run, each on the spikes of the matched
    ones before it. A channel that no choice improves stays as it was, so the measure
    above never grows in a layer for the inputs that the layer sees.

    Of the offsets that give the same number of spikes it is the middle one, up to a
    twentieth of the current's deviation away, so that no potential is left at the
    threshold, where rounding decides. A channel that is silent in the reference gets
    an offset at which it just falls silent, and a current without deviation the gain 1;
    gains stay within 1/4 to 4.

    Args:
        model: a quantized network of `layers`.
        reference: the network in full precision.
        dataset: the calibration set, labels unused, as of `reestimate_batchnorm`.
        timesteps: T.
        images: how many images of labelled data are taken, in full batches.
        batch_size: images of each batch of a `data.Dataset`.
        batchnorm: re-estimate BatchNorm first, on the same images.
        augment: for that, as of `reestimate_batchnorm`.
        on_layer: ``on_layer(name, done, layers)``, called after each layer.

    Returns:
        The copy, in evaluation mode: gains and offsets are in BatchNorm's scale and
        bias. Without BatchNorm they are in the bias and in a threshold for each
        channel, where potentials rest at 0 and are not quantized, else the gain is 1.

    Raises:
        ValueError: as `correct_bias`; neurons that begin elsewhere than at rest.

    Source: ours. The offset alone, by means of currents, is `correct_bias`.
    """
    if not isinstance(batchnorm, bool):
        raise ValueError(
            f"batchnorm must be True or False, got {_checks.format_value(batchnorm)}"
        )
    batches, units = check_arguments(
        model, reference, dataset, timesteps, images, batch_size, on_layer
    )
    require_rest((model, reference), batches[0], timesteps)
    seen = augment_batches(batches, dataset, images, batch_size, augment, batchnorm)
    copy = nnx.clone(model)
    copy.eval()
    norms = [unit.norm for unit in units if unit.norm]
    if batchnorm and norms:
        copy = reestimate_batchnorm(copy, seen, timesteps=timesteps)
    units = [unit for unit in units if unit.spiking]
    wanted = count_firing(reference, units, batches, timesteps)
    for done, unit in enumerate(units, start=1):
        name = unit.spiking or ""
        found = observe_batches(copy, batches, {name: take_input}, timesteps)
        currents = jnp.concatenate([each.pop(name) for each in found], axis=1)
        graphdef, state = nnx.split(find_spiking(copy, unit))
        scales = can_scale(copy, unit)
        gain, offset = _match(graphdef, state, currents, wanted[done - 1], scales)
        if bool(jnp.any((gain != 1) | (offset != 0))):
            scale_and_shift(copy, unit, gain, offset)
            [again] = observe_batches(copy, batches[:1], {name: take_input}, timesteps)
            before = currents[:, : again[name].shape[1]].astype(gain.dtype)
            # Without BatchNorm the threshold has the gain.
            moved = gain * before + offset if unit.norm else before + offset / gain
            size = jnp.mean(jnp.abs(before))
            require_moved(unit, before, again[name], moved, size)
        on_layer(name, done, len(units))
    return copy


def count_firing(
    model: nnx.Module, units: list[Unit], batches: list[Array], timesteps: int
) -> list[Firing]:
    """Return the firing of each unit's neurons on all batches."""
    observers = {unit.spiking or "": _observe_firing for unit in units}
    found = observe_batches(model, batches, observers, timesteps)
    firing = []
    for unit in units:
        counts, means, squares = zip(
            *(each[unit.spiking or ""] for each in found), strict=True
        )
        mean, square = (jnp.mean(jnp.stack(x), 0) for x in (means, squares))
        std = jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0))
        total = jnp.sum(jnp.stack(counts), 0, dtype=jnp.int32)
        firing.append(Firing(total, mean, std))
    return firing


def _observe_firing(layer, x):
    """Count the spikes that a layer's currents cause, with the currents' moments."""
    graphdef, state = nnx.split(_without_observer(layer))
    counts = _count(graphdef, state, x)
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(jnp.float32)
    return counts, jnp.mean(wide, axes), jnp.mean(jnp.square(wide), axes)


def _without_observer(layer):
    copy = nnx.clone(layer)
    stop_observing(copy)
    return copy


def _count(graphdef, state, x):
    """Count the spikes of each neuron, of currents ``[T, B, ...]``.

    Step by step, so that no spike train is written: 20 times as fast on a CPU.
    """
    layer = nnx.merge(graphdef, state, copy=True)

    def step(carry, current):
        state, total = carry
        spikes, state = layer(current[None], v_init=state)
        return (state, total + spikes[0].astype(jnp.int32)), None

    (state, total), _ = step((None, jnp.zeros(x.shape[1:], jnp.int32)), x[0])
    (_, total), _ = jax.lax.scan(step, (state, total), x[1:], unroll=UNROLLED)
    # Sums over neurons that follow would be made one with this one, on a single core.
    return jax.lax.optimization_barrier(jnp.sum(total, axis=0, dtype=jnp.int32))


@functools.partial(jax.jit, static_argnums=(0, 4))
def _match(graphdef, state, currents, wanted: Firing, scales: bool):
    """Find gain and offset of each channel: currents are [T, images, ..., C]."""
    axes = tuple(range(currents.ndim - 1))
    wide = _arrays.widen(currents)
    mean = jnp.mean(wide, axes)
    std = jnp.std(wide, axes)
    goal = _as_columns(wanted.counts)
    spikes = jnp.sum(goal, axis=0)

    def count(gain, offset):
        moved = (gain * wide + offset).astype(currents.dtype)
        return _as_columns(_count(graphdef, state, moved))

    cost = lambda counts: measure_firing(counts, goal)  # noqa: E731

    def solve(gain):
        """Bisect for the offset at which the channel fires as often."""
        middle = wanted.mean - gain * mean
        width = _WIDEST * jnp.maximum(gain * std, wanted.std) + jnp.abs(middle) + 1e-3

        def halve(_, bounds):
            low, high = bounds
            at = (low + high) / 2
            few = jnp.sum(count(gain, at), axis=0) <= spikes
            return jnp.where(few, at, low), jnp.where(few, high, at)

        bounds = middle - width, middle + width
        return jax.lax.fori_loop(0, _HALVINGS, halve, bounds)

    def centre(gain, offset):
        """Go to the middle of the offsets nearby that give the same number of spikes.

        At an end of them a potential lies at the threshold, and rounding decides.
        """
        same_spikes = jnp.sum(count(gain, offset), axis=0)

        def find_end(reach):
            def halve(_, bounds):
                inner, outer = bounds
                at = (inner + outer) / 2
                same = jnp.sum(count(gain, at), axis=0) == same_spikes
                return jnp.where(same, at, inner), jnp.where(same, outer, at)

            bounds = offset, offset + reach * (gain * std + 1e-3)
            return jax.lax.fori_loop(0, _HALVINGS // 2, halve, bounds)[0]

        return (find_end(-_NEAR) + find_end(_NEAR)) / 2

    def better(best, gain, offset):
        new = cost(count(gain, offset))
        wins = new < best[2]
        new = (gain, offset, new)
        return tuple(jnp.where(wins, n, b) for n, b in zip(new, best, strict=True))

    one, zero = jnp.ones_like(mean), jnp.zeros_like(mean)
    best = (one, zero, cost(count(one, zero)))
    moved = (std > 1e-6) & (wanted.std > 1e-6)
    first = jnp.where(moved, wanted.std / jnp.where(moved, std, 1), 1)
    first = jnp.clip(first, 1 / _MOST_GAIN, _MOST_GAIN) if scales else one
    best = better(best, first, wanted.mean - first * mean)

    def attempt(carry, step):
        factor, is_first = step
        best, centre = carry
        centre = jnp.where(is_first, best[0], centre)
        gain = jnp.clip(centre * factor, 1 / _MOST_GAIN, _MOST_GAIN)
        gain = jnp.where(moved, gain, 1)
        # Both ends: of two numbers of spikes the nearer one wins.
        compare = lambda best, offset: (better(best, gain, offset), None)  # noqa: E731
        best, _ = jax.lax.scan(compare, best, jnp.stack(solve(gain)))
        return (best, centre), None

    rounds = _ROUNDS if scales else ((1.0,),)
    factors = jnp.asarray([factor for each in rounds for factor in each], mean.dtype)
    # The first round is around the gain of the moments, the others around the best.
    firsts = [
        i > 0 and j == 0 for i, each in enumerate(rounds) for j in range(len(each))
    ]
    (best, _), _ = jax.lax.scan(attempt, (best, first), (factors, jnp.asarray(firsts)))
    gain, offset, least = best
    inside = centre(gain, offset)
    kept = (gain != 1) | (offset != 0)
    kept = kept & (cost(count(gain, inside)) <= least)
    return gain, jnp.where(kept, inside, offset)


def measure_firing(counts: Array, goal: Array) -> Array:
    """Sum paired shift and W1 of each channel, ``[C]`` in spikes, of counts [n, C]."""
    paired = jnp.sum(jnp.abs(counts - goal), axis=0)
    ordered = jnp.sort(counts, axis=0) - jnp.sort(goal, axis=0)
    return paired + jnp.sum(jnp.abs(ordered), axis=0)


def _as_columns(counts: Array) -> Array:
    return counts.reshape(-1, counts.shape[-1])
