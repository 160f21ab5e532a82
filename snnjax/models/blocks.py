"""The blocks of SEW-ResNets: a branch of spiking convolutions and a shortcut."""

from collections.abc import Callable
from typing import Any, cast

from flax import nnx
from jax import Array

from snnjax.layers import BatchNorm
from snnjax.models.connections import Synapse
from snnjax.models.parts import LayerFactory, conv_synapse, norm_and_spike

# How a block joins the spikes of its shortcut with those of its branch. A basic block
# gives the shortcut first, a bottleneck the branch, as in SpikingJelly: IAND is
# shortcut and not branch in the one, branch and not shortcut in the other.
CONNECT: dict[str, Callable[[Array, Array], Array]] = {
    "add": lambda first, second: first + second,
    "and": lambda first, second: first * second,
    "iand": lambda first, second: first * (1 - second),
}


class Block(nnx.Module):
    """Convolutions, each with BatchNorm and neurons, joined with a shortcut.

    The shortcut is the input, or a spiking 1x1 convolution where shapes change. There
    is no neuron behind the junction.
    """

    expansion = 1

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        strides: int,
        connect: str,
        zero_init_residual: bool,
        factory: LayerFactory,
    ):
        branch = self.branch(in_features, features, strides)
        self.depth = len(branch)
        for i, (c_in, c_out, kernel, stride) in enumerate(branch, start=1):
            conv = factory.conv(
                c_in, c_out, kernel_size=kernel, strides=stride, padding=kernel // 2
            )
            silent = zero_init_residual and i == self.depth
            setattr(self, f"conv{i}", conv)
            setattr(
                self, f"bn{i}", factory.norm(c_out, scale_init=0.0 if silent else 1.0)
            )
            setattr(self, f"sn{i}", factory.spiking(c_out))
        self.connect = connect
        out = features * self.expansion
        if strides == 1 and in_features == out:
            self.downsample = None
        else:
            conv = factory.conv(in_features, out, kernel_size=1, strides=strides)
            self.downsample = nnx.List([conv, factory.norm(out)])
            self.downsample_sn = factory.spiking(out)

    @staticmethod
    def branch(
        in_features: int, features: int, strides: int
    ) -> tuple[tuple[int, int, int, int], ...]:
        """(C_in, C_out, kernel size, stride) of each convolution."""
        raise NotImplementedError

    @staticmethod
    def order(shortcut: Any, branch: Any) -> tuple[Any, Any]:
        """Order of the two at the junction, which IAND distinguishes."""
        return shortcut, branch

    def join(self, shortcut: Array, branch: Array) -> Array:
        """The block's output."""
        return CONNECT[self.connect](*self.order(shortcut, branch))

    def __call__(
        self, x: Array, *, train: bool | None
    ) -> tuple[Array, dict[str, Array]]:
        """Spikes ``[T, B, H, W, C]`` to the block's output and each layer's spikes."""
        spikes, s = {}, x
        for i in range(1, self.depth + 1):
            conv, norm = getattr(self, f"conv{i}"), getattr(self, f"bn{i}")
            s = norm_and_spike(
                norm, getattr(self, f"sn{i}"), conv(s, train=train), train=train
            )
            spikes[f"sn{i}"] = s
        shortcut = x
        if self.downsample is not None:
            conv, norm = self.downsample
            h = conv(x, train=train)
            shortcut = norm_and_spike(
                cast(BatchNorm, norm), self.downsample_sn, h, train=train
            )
            spikes["downsample_sn"] = shortcut
        return self.join(shortcut, s), spikes

    def synapses(
        self, name: str, sources: tuple[str, ...], connect: str, size: tuple[int, ...]
    ) -> tuple[list[Synapse], tuple[str, ...]]:
        """Its rows of the connection table, and what feeds the layers behind it."""
        table, fed = [], (sources, connect, size)
        for i in range(1, self.depth + 1):
            conv = getattr(self, f"conv{i}")
            table.append(conv_synapse(f"{name}.conv{i}", conv, *fed))
            fed = ((f"{name}.sn{i}",), self.connect, table[-1].out_shape[:2])
        if self.downsample is not None:
            conv: Any = self.downsample[0]
            row = conv_synapse(f"{name}.downsample.0", conv, sources, connect, size)
            table.append(row)
            sources = (f"{name}.downsample_sn",)
        return table, (*sources, f"{name}.sn{self.depth}")


class BasicBlock(Block):
    """Two 3x3 convolutions, the first with the stride."""

    @staticmethod
    def branch(in_features, features, strides):
        """(C_in, C_out, kernel size, stride) of each convolution."""
        return (in_features, features, 3, strides), (features, features, 3, 1)


class Bottleneck(Block):
    """1x1, 3x3 with the stride, and 1x1 to four times the channels.

    Differs from the paper in: IAND is branch and not shortcut, A(1 - S), as
    SpikingJelly computes it in bottlenecks; the paper and basic blocks have S(1 - A).
    """

    expansion = 4

    @staticmethod
    def branch(in_features, features, strides):
        """(C_in, C_out, kernel size, stride) of each convolution."""
        return (
            (in_features, features, 1, 1),
            (features, features, 3, strides),
            (features, features * 4, 1, 1),
        )

    @staticmethod
    def order(shortcut, branch):
        """Order of the two at the junction, which IAND distinguishes."""
        return branch, shortcut
