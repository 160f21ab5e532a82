"""The algorithm that `conv2d` takes on a CPU for each shape, and why.

The rules are what was fastest where it was measured (docs/performance.md). XLA's own
algorithm is always among the candidates. Where another machine differs, `plan` measures
there, and `conv2d` follows.
"""

import statistics
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import _checks
from snnjax.conv import algorithms, neighbours, winograd
from snnjax.conv.form import Form, Shape, make_form, output_shape, turn

_RUNS = 5


class Choice(NamedTuple):
    """The algorithm of one part of a convolution on a CPU.

    Attributes:
        path: its name; "xla" is XLA's own.
        reason: for it.
        candidates: names of the algorithms that can compute it.
        seconds: how long each candidate took; empty where none was measured.
    """

    path: str
    reason: str
    candidates: tuple[str, ...]
    seconds: tuple[float, ...] = ()


class Plan(NamedTuple):
    """The algorithms of a convolution and of its two gradients."""

    forward: Choice
    input_gradient: Choice
    kernel_gradient: Choice


_MEASURED: dict[tuple, Choice] = {}


def plan(
    x: Any,
    w: Any,
    *,
    strides: int | tuple[int, int] = 1,
    padding: Any = 0,
    groups: int = 1,
    dilation: int | tuple[int, int] = 1,
    measure: bool = False,
) -> Plan:
    """Show which algorithms `conv2d` takes on a CPU for these shapes, and why.

    Elsewhere it is always XLA's.

    Args:
        x: an array ``[N, H, W, C]``, or its shape.
        w: an array ``[k, m, C / groups, K]``, or its shape.
        strides: as of `conv2d`, and so all that follow.
        padding: zeros on each side.
        groups: of channels.
        dilation: distance of the kernel's entries.
        measure: time every candidate on this machine, in float32. `conv2d` takes the
            fastest for this shape in whatever is compiled from then on.

    Returns:
        The choice of each part.

    Raises:
        ValueError: as `conv2d`; measuring where JAX runs on no CPU.

    >>> plan((128, 32, 32, 64), (3, 3, 64, 64), padding=1).forward.path
    'winograd'
    >>> plan((128, 32, 32, 16), (3, 3, 16, 16), padding=1).forward.candidates
    ('xla', 'winograd', 'neighbours')
    """
    shapes = (_shape_of("x", x), _shape_of("w", w))
    form = make_form(*shapes, strides, padding, groups, dilation)
    if measure:
        _measure_all(*shapes, form)
    return Plan(
        choose_forward(*shapes, form),
        choose_input_gradient(*shapes, form),
        choose_kernel_gradient(*shapes, form),
    )


def _shape_of(name: str, x: Any) -> Shape:
    shape = tuple(x) if isinstance(x, tuple | list) else getattr(x, "shape", None)
    if shape is None or not all(_checks.is_whole(n) and n >= 0 for n in shape):
        raise ValueError(
            f"{name} must be an array or its shape, got {_checks.format_value(x)}"
        )
    return tuple(map(int, shape))


def choose_forward(x: Shape, w: Shape, form: Form) -> Choice:
    """Choose how to convolve ``[N, H, W, C]`` with ``[k, m, C, K]``."""
    if choice := _MEASURED.get(("forward", x, w, _key(form))):
        return choice
    if not form.is_plain or form.strides != (1, 1):
        return Choice("xla", "strides, groups or dilation", ("xla",))
    candidates = ("xla",)
    n, height, width, outputs = output_shape(x, w, form)
    if w[:2] == (3, 3) and width >= winograd.TILE:
        candidates = (*candidates, "winograd")
    if 1 < neighbours.count_neighbours(w[2], outputs) <= min(4, width):
        candidates = (*candidates, "neighbours")
    if n * height * width < 1024:
        return Choice("xla", "fewer than 1,024 positions", candidates)
    if "winograd" in candidates and min(w[2:]) >= 64:
        return Choice("winograd", "3x3 with 64 channels or more", candidates)
    if "neighbours" in candidates:
        return Choice("neighbours", "16 channels or fewer", candidates)
    return Choice("xla", "neither many channels nor few", candidates)


def choose_input_gradient(x: Shape, w: Shape, form: Form) -> Choice:
    """Choose how to compute ``[N, H, W, C]`` from dy and ``[k, m, C, K]``."""
    if choice := _MEASURED.get(("input_gradient", x, w, _key(form))):
        return choice
    if not form.is_plain:
        return Choice("xla", "groups or dilation", ("xla",))
    outputs = output_shape(x, w, form)
    if form.strides == (1, 1):
        return choose_forward(*_turn_shapes(x, w, form))
    candidates = ("xla", "phases")
    if w[:2] == (1, 1):
        return Choice("phases", "1x1: a product, and zeros between", candidates)
    if max(w[2:]) <= 32 and np.prod(outputs[:3]) >= 2**14:
        return Choice("phases", "32 channels or fewer, many positions", candidates)
    return Choice("xla", "many channels, or few positions", candidates)


def choose_kernel_gradient(x: Shape, w: Shape, form: Form) -> Choice:
    """Choose how to compute ``[k, m, C, K]`` from x and dy."""
    if choice := _MEASURED.get(("kernel_gradient", x, w, _key(form))):
        return choice
    if not form.is_plain:
        return Choice("xla", "groups or dilation", ("xla",))
    n, height, width, _ = output_shape(x, w, form)
    candidates = ("xla", "columns")
    if w[:2] == (3, 3) and form.strides == (1, 1) and width >= winograd.TILE:
        candidates = (*candidates, "winograd")
    channels, positions = min(w[2:]), n * height * width
    if channels < 16 or positions < 128 or (channels < 32 and positions < 2**15):
        return Choice("xla", "few channels, or few positions", candidates)
    return Choice(candidates[-1], "products of large matrices", candidates)


def _turn_shapes(x: Shape, w: Shape, form: Form) -> tuple[Shape, Shape, Form]:
    """Return what the input gradient convolves, with what, and how, at stride 1."""
    return output_shape(x, w, form), (*w[:2], w[3], w[2]), turn(w, form)


def _key(form: Form) -> Form:
    """Return the form without what changes nothing on a CPU."""
    return form._replace(spikes=False)


def _measure_all(x: Shape, w: Shape, form: Form) -> None:
    if jax.default_backend() != "cpu":
        raise ValueError(
            f"measure must be False on a {jax.default_backend()}, where conv2d is "
            "XLA's convolution"
        )
    _measure("forward", x, w, form)
    _measure("kernel_gradient", x, w, form)
    if form.is_plain and form.strides == (1, 1):
        _measure("forward", *_turn_shapes(x, w, form))
    else:
        _measure("input_gradient", x, w, form)


def _measure(part: str, x: Shape, w: Shape, form: Form) -> None:
    """Time the candidates for a part, and remember the fastest."""
    choose, algorithm, shapes, size = {
        "forward": (choose_forward, algorithms.FORWARD, "xw", {}),
        "input_gradient": (
            choose_input_gradient,
            algorithms.INPUT_GRADIENT,
            "yw",
            {"size": x[1:3]},
        ),
        "kernel_gradient": (
            choose_kernel_gradient,
            algorithms.KERNEL_GRADIENT,
            "xy",
            {"size": w[:2]},
        ),
    }[part]
    rng, sizes = np.random.default_rng(0), dict(x=x, w=w, y=output_shape(x, w, form))
    arrays = [jnp.asarray(rng.normal(size=sizes[k]), jnp.float32) for k in shapes]
    key = (part, x, w, _key(form))
    _MEASURED.pop(key, None)
    names = choose(x, w, form).candidates
    run = [jax.jit(partial(algorithm[n], form=form, **size)) for n in names]
    seconds = _time_in_turn(run, arrays)
    best = names[int(np.argmin(seconds))]
    _MEASURED[key] = Choice(best, "the fastest here", names, seconds)


def _time_in_turn(functions: list, arrays: list) -> tuple[float, ...]:
    """Return the median time of each, in turn, behind two runs that warm up."""
    samples: list[list[float]] = [[] for _ in functions]
    for turn_number in range(_RUNS + 2):
        for function, times in zip(functions, samples, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(function(*arrays))
            if turn_number >= 2:
                times.append(time.perf_counter() - start)
    return tuple(map(statistics.median, samples))
