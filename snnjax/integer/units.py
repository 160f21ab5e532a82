"""Units of a layer's membranes: BatchNorm, threshold and leak in whole numbers.

The current of a channel is ``gain * accumulator + bias``. Its membranes are whole
numbers of a unit that is the gain divided by a power of 2: the accumulator enters by a
shift, exactly, and bias, threshold and reset are rounded once, when the network is
made. No product with a scale is left, whatever the scales are.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from snnjax.integer.network import LEAK_BITS, Neurons

# Of a membrane's range, for the rounding of what is added to it.
_MARGIN = 0.98


class MembraneLevels(NamedTuple):
    """Levels of a quantized membrane: multiples of a step.

    Attributes:
        step: distance of two levels, a real number.
        low: least code.
        high: greatest code.
        half: levels are ``(code + 1/2) * step``.
        site: ``"post_reset"`` or ``"pre_fire"``.
        top: the greatest level, which is exactly the clip.
    """

    step: float
    low: int
    high: int
    half: bool
    site: str
    top: float

    def values(self) -> np.ndarray:
        """Return all levels, ascending, in float64."""
        codes = np.arange(self.low, self.high + 1)
        levels = (codes + 0.5 * self.half) * self.step
        return np.where(codes == self.high, self.top, levels)


class Dynamics(NamedTuple):
    """Numbers of a neuron, float64 [C], as they are before they become whole.

    Attributes:
        decay: 1 / tau; 0 without leak.
        threshold: of a spike.
        reset: the potential after a spike; 0 where ``soft``.
        soft: reset by subtraction of the threshold.
        levels: of a quantized membrane, or None.
    """

    decay: np.ndarray
    threshold: np.ndarray
    reset: np.ndarray
    soft: bool
    levels: MembraneLevels | None


class Folded(NamedTuple):
    """Whole numbers of a layer: see `network.Layer`."""

    silent: np.ndarray
    shift: np.ndarray
    bias: np.ndarray
    unit: np.ndarray
    neurons: Neurons


def fold_neurons(
    name: str,
    gain: np.ndarray,
    bias: np.ndarray,
    sums: tuple[np.ndarray, np.ndarray],
    dynamics: Dynamics,
    *,
    timesteps: int,
    membrane_bits: int,
) -> Folded:
    """Return a layer's whole numbers, as fine as membranes of that width allow.

    Args:
        name: of the layer, for errors.
        gain: [C], at least 0: what one of the accumulator adds to a membrane.
        bias: [C]: what every step adds to it.
        sums: least and greatest accumulator, [C] each.
        dynamics: of the neurons.
        timesteps: for how many steps no membrane saturates.
        membrane_bits: width of a membrane.

    Raises:
        ValueError: membranes too narrow for the threshold or the levels.
    """
    limit = 2 ** (membrane_bits - 1) * _MARGIN
    finest = _find_reach(gain, bias, sums, dynamics, timesteps) / limit
    # Channels whose sums are nothing beside their bias: what is left of them is 0.
    silent = gain < finest * 2.0**-30
    safe = np.where(silent, finest, gain)
    shift = np.where(silent, 0, np.floor(np.log2(safe / finest))).astype(np.int32)
    shift = np.minimum(shift, 30)
    unit = safe * 2.0 ** -shift.astype(np.float64)
    neurons = _make_neurons(name, unit, bias, dynamics, timesteps)
    return Folded(silent, shift, _round(bias / unit), unit, neurons)


def _find_reach(gain, bias, sums, dynamics, timesteps):
    """Return the greatest magnitude that must fit into a membrane, [C]."""
    decay, levels = dynamics.decay, dynamics.levels
    least, greatest = (gain * each + bias for each in sums)
    # A potential decays towards rest, so what reaches it is a geometric sum.
    left = 1 - decay
    horizon = np.where(
        decay > 0, (1 - left**timesteps) / np.where(decay > 0, decay, 1), timesteps
    )
    down = np.maximum(-least, 0) * horizon
    up = np.maximum(greatest, 0) * (horizon if dynamics.soft else 1)
    parts = [down + np.abs(dynamics.reset), up, dynamics.threshold]
    parts += [np.abs(bias), *(np.abs(gain * each) for each in sums)]
    if levels is not None:
        most = np.abs(levels.values()).max() + levels.step
        parts.append(np.full_like(gain, most))
        # Each step starts from a level, not from what came before.
        parts[0] = np.maximum(-least, 0) + most
        parts[1] = np.maximum(greatest, 0) + (most if dynamics.soft else 0)
    return np.max(np.broadcast_arrays(*parts), axis=0)


def _round_threshold(
    dynamics: Dynamics, bias: np.ndarray, unit: np.ndarray, timesteps: int
) -> np.ndarray:
    """Return the threshold, at which a potential that is exactly there fires.

    Where the bias is no whole number it is lower by what the rounded biases of all
    steps can lack, 2 units at tau = 2, so that ties fire.
    """
    exact, added = dynamics.threshold / unit, bias / unit
    is_whole = np.abs(added - np.rint(added)) <= 1e-12 * np.abs(added)
    decay = dynamics.decay
    horizon = np.where(decay > 0, 1 / np.where(decay > 0, decay, 1), timesteps)
    # A power of 2 but for the rounding of a root in BatchNorm counts as one.
    upper, lower = np.ceil(exact * (1 - 1e-12)), np.floor(exact - horizon / 2)
    return np.maximum(np.where(is_whole, upper, lower), 1)


def _make_neurons(
    name: str,
    unit: np.ndarray,
    bias: np.ndarray,
    dynamics: Dynamics,
    timesteps: int,
) -> Neurons:
    leak = _round(dynamics.decay * 2**LEAK_BITS + 0 * unit)
    threshold = _round_threshold(dynamics, bias, unit, timesteps)
    reset = dynamics.threshold if dynamics.soft else dynamics.reset
    neurons = Neurons(
        threshold=threshold.astype(np.int32),
        reset=_round(reset / unit),
        leak=np.minimum(leak, 2**LEAK_BITS - 1),
        soft=dynamics.soft,
    )
    levels = dynamics.levels
    if levels is None:
        return neurons
    # Even, so that half of one is whole and a tie a tie.
    step = 2 * _round(levels.step / (2 * unit))
    if (step == 0).any() or (threshold < 1).any():
        raise ValueError(
            f"membrane_bits are too few for the levels of {name}; take more"
        )
    if levels.site == "pre_fire":
        # The level decides, not the sum: the least code whose level fires.
        values = levels.values()
        code = np.searchsorted(values, dynamics.threshold + 0 * unit) + levels.low
        code = code.astype(np.int32)
        threshold = code * step + (step // 2 if levels.half else 0)
        never = code > levels.high
        top = levels.high * step + (step // 2 if levels.half else 0)
        threshold = np.where(never, top + 1, threshold).astype(np.int32)
        neurons = dataclasses.replace(neurons, threshold=threshold)
    return dataclasses.replace(
        neurons,
        site=levels.site,
        step=step,
        low=levels.low,
        high=levels.high,
        half=levels.half,
    )


def _round(x: np.ndarray) -> np.ndarray:
    return np.rint(x).astype(np.int32)
