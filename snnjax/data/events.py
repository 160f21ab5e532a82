"""Event recordings as frames: counts of events by place, polarity and time step."""

from typing import Any

import numpy as np

from snnjax import _checks

# The names that readers of recordings give the fields of their arrays: tonic,
# dv-processing, evlib, Metavision, SpikingJelly.
_NAMES = {
    "x": ("x",),
    "y": ("y",),
    "t": ("t", "timestamp", "timestamps", "ts"),
    "p": ("p", "polarity", "polarities", "on"),
}
SPLITS_BY = ("time", "count")


def frames_from_events(
    events: Any,
    *,
    size: tuple[int, int],
    timesteps: int | None = None,
    window: float | None = None,
    split_by: str = "time",
) -> np.ndarray:
    """Count the events of a recording in each time step: frames ``[T, H, W, 2]``.

    Args:
        events: the recording as any reader gives it: a structured array, or ``{name:
            array}``, with the fields x, y, t (timestamp, ts) and p (polarity, on).
            Polarities are 0 and 1, -1 and 1, or booleans: off is channel 0. Sorted by
            time here, where they are not.
        size: (height, width) of the sensor.
        timesteps: T, frames that divide the whole recording; or
        window: duration of a frame, in the unit of t, from the first event on: T is
            that of the recording, see `pad_sequences`. One of the two.
        split_by: with ``timesteps``, ``"time"`` makes frames of one duration,
            ``"count"`` frames of one number of events; the last takes the rest.

    Returns:
        Whole numbers, uint8 where they are below 256, else int32.

    Raises:
        ValueError: fields that are missing, no events, events outside of the sensor,
            other polarities, both timesteps and window or none, more frames by count
            than events.

    Source: SpikingJelly's ``integrate_events_by_fixed_frames_number`` and
    ``..._by_fixed_duration``. Differs from SpikingJelly in: windows follow each other
    without gaps, so that a pause is frames without events; there a frame begins at the
    next event.

    >>> events = dict(x=[0, 1, 1], y=[0, 0, 1], t=[5, 7, 15], p=[1, 0, 1])
    >>> frames = frames_from_events(events, size=(2, 2), timesteps=2)
    >>> frames.shape, frames.sum((1, 2)).tolist()
    ((2, 2, 2, 2), [[1, 1], [0, 1]])
    """
    _checks.require_image_size(size)
    _checks.require_one_of("split_by", split_by, SPLITS_BY)
    if (timesteps is None) == (window is None):
        raise ValueError(
            "give timesteps or window, one of the two, got "
            f"timesteps={timesteps} and window={window}"
        )
    if window is not None and split_by == "count":
        raise ValueError('split_by="count" needs timesteps; window is a duration')
    x, y, t, p = (_field(events, name) for name in _NAMES)
    if not len(t) or not len(x) == len(y) == len(t) == len(p):
        raise ValueError(
            f"events must have at least one event, and all fields one length, got "
            f"{len(x)}, {len(y)}, {len(t)} and {len(p)} of x, y, t and p"
        )
    x, y = (
        _as_places(name, v, n) for name, v, n in (("x", x, size[1]), ("y", y, size[0]))
    )
    on = _as_channels(p)
    order = np.argsort(t, kind="stable")
    x, y, on, t = x[order], y[order], on[order], t[order]
    if timesteps is not None:
        _checks.require_whole("timesteps", timesteps, 1)
        number, index = timesteps, _split(t, timesteps, split_by)
    else:
        _checks.require_positive_number("window", window)
        assert window is not None, "one of the two is given"
        index = np.floor_divide(t - t[0], window).astype(np.int64)
        number = int(index[-1]) + 1
    height, width = size
    shape = (number, height, width, 2)
    flat = np.ravel_multi_index((index, y, x, on), shape)
    frames = np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)
    return frames.astype(np.uint8 if frames.max() < 256 else np.int32)


def _split(t: np.ndarray, number: int, split_by: str) -> np.ndarray:
    """Return the frame of each event; the last takes what is left."""
    if split_by == "count":
        if number > len(t):
            raise ValueError(
                f"timesteps must be at most the {len(t)} events, got {number}; split "
                'by time, split_by="time", for frames without events'
            )
        return np.minimum(np.arange(len(t)) // (len(t) // number), number - 1)
    span = t[-1] - t[0]
    whole = np.issubdtype(t.dtype, np.integer)
    each = max(span // number, 1) if whole else (span / number or 1.0)
    return np.minimum((t - t[0]) // each, number - 1).astype(np.int64)


def _field(events: Any, name: str) -> np.ndarray:
    names = getattr(getattr(events, "dtype", None), "names", None)
    names = names or (tuple(events) if isinstance(events, dict) else ())
    for known in _NAMES[name]:
        if known in names:
            field = np.asarray(_checks.require_real(known, events[known]))
            if field.dtype.kind != "f":  # differences of narrow times would wrap around
                return field.astype(np.int64)
            _checks.require_finite(known, field)
            return field
    raise ValueError(
        f"events must be a structured array, or {{name: array}}, with a field "
        f"{' or '.join(_NAMES[name])}, got the fields {sorted(map(str, names))}"
    )


def _as_places(name: str, values: np.ndarray, size: int) -> np.ndarray:
    if (values != np.floor(values)).any() or values.min() < 0 or values.max() >= size:
        raise ValueError(
            f"{name} must be whole numbers from 0 to {size - 1}, of a sensor of the "
            f"size that was given, got {values.min()} to {values.max()}"
        )
    return values.astype(np.int64)


def _as_channels(p: np.ndarray) -> np.ndarray:
    found = set(np.unique(p).tolist())
    if not (found <= {0, 1} or found <= {-1, 1}):
        raise ValueError(
            f"polarities must be 0 and 1, or -1 and 1, got {sorted(found)[:5]}"
        )
    return (p > 0).astype(np.int64)


def pad_sequences(sequences: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pad sequences of different lengths with zeros behind their ends.

    ``from_arrays(padded, labels, lengths=lengths)`` makes a data set of them, in which
    the padding counts nowhere: not in means over time, BatchNorm, rates and losses.

    Args:
        sequences: arrays ``[T_i, ...]``, equal but for their lengths.

    Returns:
        One array ``[N, T, ...]`` with the largest T, and the lengths ``[N]``.

    Raises:
        ValueError: no sequences, an empty one, or other shapes behind the length.

    >>> padded, lengths = pad_sequences([np.ones((2, 3)), np.ones((4, 3))])
    >>> padded.shape, lengths.tolist()
    ((2, 4, 3), [2, 4])
    """
    each = [np.asarray(_checks.require_real("sequences", x)) for x in sequences]
    shapes = {x.shape[1:] for x in each if x.ndim}
    if not each or len(shapes) != 1 or any(not x.ndim or not len(x) for x in each):
        raise ValueError(
            "sequences must be arrays [T, ...] of one shape but for T, at least one "
            f"step each, got {sorted({x.shape for x in each})[:5]}"
        )
    lengths = np.array([len(x) for x in each], np.int32)
    shape = (len(each), lengths.max(), *shapes.pop())
    padded = np.zeros(shape, np.result_type(*each))
    for i, x in enumerate(each):
        padded[i, : len(x)] = x
    return padded, lengths
