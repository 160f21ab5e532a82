"""The static choices of a convolution, checked."""

from typing import Any, NamedTuple

import numpy as np

from snnjax import _checks
from snnjax.conv.chunks import Padding

Shape = tuple[int, ...]


class Form(NamedTuple):
    """Static choices of a convolution."""

    strides: tuple[int, int]
    padding: Padding
    groups: int = 1
    dilation: tuple[int, int] = (1, 1)
    spikes: bool = False

    @property
    def is_plain(self) -> bool:
        """True where the algorithms of this package apply."""
        return self.groups == 1 and self.dilation == (1, 1)


def make_form(
    x: Shape, w: Shape, strides: Any, padding: Any, groups: Any, dilation: Any
) -> Form:
    """Return the form of a convolution of these shapes; ValueError where none fits."""
    _checks.require_whole("groups", groups, 1)
    _check_shapes(x, w, groups)
    pair, apart = _as_pair("strides", strides), _as_pair("dilation", dilation)
    pads: Any = padding
    if isinstance(padding, int | np.integer):
        pads = ((padding,) * 2,) * 2
    if not (
        isinstance(pads, tuple) and len(pads) == 2 and all(map(_is_whole_pair, pads))
    ):
        raise ValueError(
            "padding must be at least 0 on each side, a whole number or ((top, "
            f"bottom), (left, right)), got {padding!r}"
        )
    image = x[1:3]
    kernel = tuple((k - 1) * d + 1 for k, d in zip(w[:2], apart, strict=True))
    if any(n + sum(p) < k for n, p, k in zip(image, pads, kernel, strict=True)):
        raise ValueError(
            f"the kernel {kernel} is larger than the image {image} with its padding "
            f"{pads}"
        )
    return Form(pair, pads, groups, apart)


def _as_pair(name: str, value: Any) -> Any:
    """Return a number for each axis; ValueError unless they are whole, from 1."""
    pair = (value, value) if isinstance(value, int | np.integer) else value
    if not _is_whole_pair(pair, 1):
        raise ValueError(
            f"{name} must be at least 1, got {value!r}; give a whole number or two"
        )
    return pair


def _is_whole_pair(pair, least: int = 0) -> bool:
    return (
        isinstance(pair, tuple)
        and len(pair) == 2
        and all(isinstance(n, int | np.integer) and n >= least for n in pair)
    )


def _check_shapes(x: Shape, w: Shape, groups: int) -> None:
    if len(x) != 4 or len(w) != 4 or x[-1] != w[2] * groups:
        raise ValueError(
            "x must be [N, H, W, C] and w [k, m, C / groups, K] with the same C, got "
            f"shapes {x} and {w}, groups {groups}"
        )
    if w[3] % groups:
        raise ValueError(f"groups must divide {w[3]} outputs, got {groups}")
    if 0 in w:
        raise ValueError(f"w must have sizes of at least 1, got shape {w}")


def output_shape(x: Shape, w: Shape, form: Form) -> Shape:
    """Return ``[N, H', W', K]``."""
    sizes = zip(x[1:3], w[:2], form.padding, form.strides, form.dilation, strict=True)
    image = (
        (n + sum(pad) - (k - 1) * apart - 1) // stride + 1
        for n, k, pad, stride, apart in sizes
    )
    return (x[0], *image, w[3])


def turn(w: Shape, form: Form) -> Form:
    """Return the form of the convolution that is the input gradient, at stride 1."""
    sizes = zip(w[:2], form.padding, strict=True)
    pads: Any = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in sizes)
    return Form((1, 1), pads)
