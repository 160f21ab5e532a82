"""Borders between floats and whole numbers: the input, and a last layer of floats."""

import dataclasses
from typing import Any

import numpy as np

from snnjax.integer import reference

INPUT = "input"


def check_input(x: Any, timesteps: int, rank: int) -> np.ndarray:
    """Return x as an array of inputs or a sequence; raise ValueError for others.

    Args:
        x: inputs.
        timesteps: T.
        rank: of one input: 3 of an image, 1 of a vector.
    """
    if isinstance(timesteps, bool) or not isinstance(timesteps, (int, np.integer)):
        raise ValueError(f"timesteps must be a whole number, got {timesteps!r}")
    if timesteps < 1:
        raise ValueError(f"timesteps must be at least 1, got {timesteps}")
    x = np.asarray(x)
    if x.ndim not in (rank + 1, rank + 2) or 0 in x.shape:
        each = "H, W, C" if rank == 3 else "C"
        raise ValueError(
            f"x must be [B, {each}] or [T, B, {each}], got shape {x.shape}"
        )
    if x.ndim == rank + 2 and x.shape[0] != timesteps:
        raise ValueError(
            f"x has {x.shape[0]} time steps (shape {x.shape}, time first), but "
            f"timesteps is {timesteps}"
        )
    if x.dtype.kind not in "iuf":
        raise ValueError(f"x must be floating point or integers, got {x.dtype}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise ValueError("x must be finite, got NaN or infinity")
    return x


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels, or counts of events, as the first layer's whole numbers.

    A pixel p is ``p * multiplier - offset``: 0 is then what the normalised image has
    where it is 0, in the padding too, and one unit is worth the same in all channels.

    Attributes:
        mean: [C], of the normalised image ``(p / full_scale - mean) / std``.
        std: [C].
        full_scale: the pixel that is 1: 255, or 1 for counts of events.
        multiplier: int32 [C].
        offset: int32 [C].
        pixel_range: least and greatest pixel: (0, 255), or more where the
            normalisation is unknown.
        name: ``"input"``.
    """

    mean: np.ndarray
    std: np.ndarray
    full_scale: float
    multiplier: np.ndarray
    offset: np.ndarray
    pixel_range: tuple[int, int] = (0, 255)
    name: str = INPUT

    @property
    def limits(self) -> tuple[int, int]:
        """Least and greatest value."""
        low, high = (
            int(end) * self.multiplier - self.offset for end in self.pixel_range
        )
        return int(low.min()), int(high.max())

    @property
    def scale(self) -> float:
        """Worth of one unit in the normalised image, the mean over channels."""
        return float(1 / np.mean(self.multiplier * self.full_scale * self.std))

    def encode(self, x: np.ndarray, timesteps: int) -> np.ndarray:
        """Return the whole numbers of pixels, or of normalised images."""
        if x.shape[-1] != len(self.offset):
            raise ValueError(
                f"x must have {len(self.offset)} channels, which come last, got shape "
                f"{x.shape}"
            )
        pixels = x.astype(np.float64)
        if x.dtype.kind == "f":
            pixels = (pixels * self.std + self.mean) * self.full_scale
        low, high = self.pixel_range
        if pixels.min() < low - 0.5 or pixels.max() > high + 0.5:
            raise ValueError(
                f"x has values that are pixels from {pixels.min():.4g} to "
                f"{pixels.max():.4g} by the network's mean, std and full_scale, and "
                f"they must be from {low} to {high}; give from_model the mean and std "
                "by which images are normalised"
            )
        whole = np.rint(np.clip(pixels, low, high) * self.multiplier)
        return whole.astype(np.int32) - self.offset

    def describe(self) -> str:
        """Print the values and their width."""
        low, high = self.limits
        return f"pixels, as whole numbers from {low} to {high}"


_SPREAD = 8  # normalised images of unknown mean: up to so many units from 0


def make_unknown_pixels(channels: int, full_scale: float, greatest: int) -> Pixels:
    """Return pixels of images whose normalisation is unknown: floats within 8 of 0.

    The multiplier is a power of 2, so that multiples of such are exact.
    """
    multiplier = 1 << max(0, (greatest // _SPREAD).bit_length() - 1)
    reach = _SPREAD * int(np.ceil(full_scale))
    return Pixels(
        np.zeros(channels),
        np.ones(channels),
        float(full_scale),
        np.full(channels, multiplier, np.int32),
        np.zeros(channels, np.int32),
        (-reach, max(reach, 255)),
    )


def fit_pixels(
    mean: np.ndarray, std: np.ndarray, full_scale: float, greatest: int
) -> Pixels:
    """Return pixels whose multipliers, up to ``greatest``, have the least error.

    Errors are those of a pixel of 255 by the channels' relative scale, and of the
    rounded offset, both in pixels.
    """
    first = np.arange(1, max(greatest, 1) + 1)[:, None]
    # Multipliers in the inverse proportion of the deviations, the least one as given.
    multipliers = np.rint(first * (std.max() / std))
    units = multipliers * std
    stretch = np.abs(units / units.mean(1, keepdims=True) - 1) * 255
    offsets = mean * full_scale * multipliers
    shift = np.abs(offsets - np.rint(offsets)) / multipliers
    error = np.maximum(stretch, shift).max(1)
    best = int(np.argmax(error <= error.min() + 1e-9))
    return Pixels(
        mean,
        std,
        float(full_scale),
        multipliers[best].astype(np.int32),
        np.rint(offsets[best]).astype(np.int32),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class FloatLayer:
    """First layer in full precision, in float64: its spikes are the border.

    Attributes:
        name: of its neurons.
        kernel: ``[k, m, C_in / groups, C]``.
        strides: (height, width).
        padding: (height, width).
        groups: of the convolution.
        factor: [C], of BatchNorm and the convolution's bias: the current is
            ``factor * sum + bias``.
        bias: [C].
        decay: [C], 1 / tau; 0 without leak.
        threshold: [C].
        reset: [C]; at rest where ``soft``.
        soft: reset by subtraction of the threshold.
        decay_input: the leak scales the input too.
        mean: [C_in], by which integer pixels are normalised.
        std: [C_in].
        full_scale: the pixel that is 1.
    """

    name: str
    kernel: np.ndarray
    strides: tuple[int, int]
    padding: tuple[int, int]
    groups: int
    factor: np.ndarray
    bias: np.ndarray
    decay: np.ndarray
    threshold: np.ndarray
    reset: np.ndarray
    soft: bool
    decay_input: bool
    mean: np.ndarray
    std: np.ndarray
    full_scale: float

    limits = (0, 1)

    def encode(self, x: np.ndarray, timesteps: int) -> np.ndarray:
        """Return the layer's spikes ``[T, B, H, W, C]``, int8."""
        channels = self.kernel.shape[2] * self.groups
        if x.shape[-1] != channels:
            raise ValueError(
                f"x must have {channels} channels, which come last, got shape {x.shape}"
            )
        if x.dtype.kind != "f":
            x = (x / self.full_scale - self.mean) / self.std
        x = x.astype(np.float64)
        images = x.reshape(-1, *x.shape[-3:])
        kernel = self.kernel.astype(np.float64)
        current = reference.convolve(
            images, kernel, self.strides, self.padding, self.groups
        )
        current = current * self.factor + self.bias
        current = current.reshape(*x.shape[:-3], *current.shape[1:])
        v = np.broadcast_to(self.reset, current.shape[-4:])
        spikes = []
        for t in range(timesteps):
            i = current if x.ndim == 4 else current[t]
            if self.decay_input:
                h = v + (i - (v - self.reset)) * self.decay
            else:
                h = v - (v - self.reset) * self.decay + i
            s = h >= self.threshold
            v = np.where(s, h - self.threshold if self.soft else self.reset, h)
            spikes.append(s.astype(np.int8))
        return np.stack(spikes)

    def describe(self) -> str:
        """Print where the floats end."""
        return f"a layer in float64 makes the spikes of {self.name}"


@dataclasses.dataclass(frozen=True, eq=False)
class FloatReadout:
    """Last layer in full precision: logits of whole numbers.

    Attributes:
        source: the node that it reads.
        kernel: ``[C_in, C]``.
        bias: [C].
        mean: it reads the mean over positions.
    """

    source: str
    kernel: np.ndarray
    bias: np.ndarray
    mean: bool

    def run(self, x: np.ndarray) -> np.ndarray:
        """Return float32 logits ``[T, B, classes]`` of ``[T, B, H, W, C]``."""
        x = x.astype(np.float64)
        x = x.mean((2, 3)) if self.mean else x.reshape(*x.shape[:2], -1)
        return (x @ self.kernel.astype(np.float64) + self.bias).astype(np.float32)
