"""The connection table of a network: its layers and what feeds each."""

import re
from typing import NamedTuple

INPUT = "input"
_OUTPUT = re.compile(r"out|maxpool|pool\d+")


class Synapse(NamedTuple):
    """One convolution or linear layer, and where its input comes from.

    Attributes:
        name: the layer's name in its model, ``"layer1.0.conv1"``.
        sources: the spiking layers that feed it, the shortcut's first and then the
            branches of each block in turn; ``("input",)`` for the image.
        connect: how they are joined: ``"add"``, ``"and"``, ``"iand"``.
        kernel_size: (height, width), or (length,) of one axis; () for a linear layer.
        strides: likewise.
        padding: ((top, bottom), (left, right)), likewise.
        in_shape: (height, width, channels) of the input; (channels,) for linear.
        out_shape: the same of the output.
        dilation: distance of the kernel's entries, along each axis; () is 1.
        groups: in_shape's channels reach only the output channels of their group.
        macs: multiplications of a dense pass through the layer itself, where pooling
            is folded into the windows above; None is those of the windows.
        neurons: how many it feeds, where they are not ``out_shape``: behind pooling,
            or 0 of a feedback, whose neurons another row has.
    """

    name: str
    sources: tuple[str, ...]
    connect: str
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    dilation: tuple[int, ...] = ()
    groups: int = 1
    macs: int | None = None
    neurons: int | None = None

    @property
    def reads_input(self) -> bool:
        """True for the layer that sees the image."""
        return self.sources == (INPUT,)

    @property
    def summed(self) -> tuple[str, ...]:
        """Names of the recordings whose sum is the layer's input."""
        if self.connect == "add" or len(self.sources) == 1:
            return self.sources
        return (self.sources[-1].rpartition(".")[0] + ".out",)

    @property
    def reads_outputs(self) -> bool:
        """True where one of `summed` is recorded only with ``outputs=True``."""
        return any(map(is_output, self.summed))


def is_output(name: str) -> bool:
    """Recognize a recording of what is not a neuron's: a block's output, a pooling."""
    return _OUTPUT.fullmatch(name.rpartition(".")[2]) is not None
