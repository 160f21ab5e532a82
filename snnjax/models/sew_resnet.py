"""SEW-ResNet: residual networks whose shortcuts join spikes.

Source: Fang et al., `Deep Residual Learning in Spiking Neural Networks
<https://arxiv.org/abs/2102.04159>`_, 2021. Layer names are SpikingJelly's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from snnjax import neurons
from snnjax.cost import INPUT, Synapse
from snnjax.layers import BatchNorm, QuantConv, QuantLinear, Spiking
from snnjax.quantize import QuantSpec

Record = Callable[[Array], Any]

# How a block joins its shortcut's spikes with its branch's.
CONNECT: dict[str, Callable[[Array, Array], Array]] = {
    "add": lambda shortcut, branch: shortcut + branch,
    "and": lambda shortcut, branch: shortcut * branch,
    "iand": lambda shortcut, branch: shortcut * (1 - branch),
}
STEMS = ("cifar", "imagenet")


class BasicBlock(nnx.Module):
    """Two spiking 3x3 convolutions and a shortcut, which spikes where shapes change."""

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        strides: int,
        connect: str,
        zero_init_residual: bool,
        conv: Callable[..., QuantConv],
        norm: Callable[..., BatchNorm],
        spiking: Callable[[], Spiking],
    ):
        self.conv1 = conv(
            in_features, features, kernel_size=3, strides=strides, padding=1
        )
        self.bn1 = norm(features)
        self.sn1 = spiking()
        self.conv2 = conv(features, features, kernel_size=3, padding=1)
        self.bn2 = norm(features, scale_init=0.0 if zero_init_residual else 1.0)
        self.sn2 = spiking()
        self.connect = connect
        if strides == 1 and in_features == features:
            self.downsample = None
        else:
            self.downsample = nnx.List(
                [
                    conv(in_features, features, kernel_size=1, strides=strides),
                    norm(features),
                ]
            )
            self.downsample_sn = spiking()

    def __call__(self, x: Array, *, train: bool) -> tuple[Array, dict[str, Array]]:
        """Spikes ``[T, B, H, W, C]`` to the block's output and each layer's spikes."""
        s1 = self.sn1(self.bn1(self.conv1(x, train=train), train=train))
        s2 = self.sn2(self.bn2(self.conv2(s1, train=train), train=train))
        spikes = {"sn1": s1, "sn2": s2}
        shortcut = x
        if self.downsample is not None:
            conv, norm = self.downsample
            shortcut = self.downsample_sn(norm(conv(x, train=train), train=train))
            spikes["downsample_sn"] = shortcut
        return CONNECT[self.connect](shortcut, s2), spikes


class SEWResNet(nnx.Module):
    """SEW-ResNet of basic blocks; `sew_resnet18` and its like fill in the sizes.

    Args:
        num_classes: outputs.
        blocks: number of blocks of each stage; stage i has ``width * 2**i`` channels,
            and all stages but the first halve height and width.
        width: channels of the stem and the first stage.
        in_channels: of the image.
        stem: ``"cifar"`` (3x3, stride 1) or ``"imagenet"`` (7x7, stride 2, and 3x3
            max-pooling of stride 2).
        connect: ``"add"``, ``"and"`` or ``"iand"`` (shortcut and not branch).
        neuron: `neurons.LIF` or `neurons.IF`, one for all layers.
        weight_quant: quantizer of the blocks' kernels.
        membrane_quant: quantizer of the blocks' membranes.
        membrane_site: ``"post_reset"`` or ``"pre_fire"``.
        quantize_all: quantize the stem and the final linear layer as well.
        zero_init_residual: start the last BatchNorm of each branch at scale 0.
        dtype: of the computation; None is the input's. Membranes and statistics stay
            in float32 at least.
        param_dtype: of the parameters.
        rngs: for the parameters.

    Raises:
        ValueError: unknown stem or connect, sizes below 1.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        blocks: Sequence[int],
        width: int = 64,
        in_channels: int = 3,
        stem: str = "cifar",
        connect: str = "add",
        neuron: neurons.Neuron | None = None,
        weight_quant: QuantSpec | None = None,
        membrane_quant: QuantSpec | None = None,
        membrane_site: str = "post_reset",
        quantize_all: bool = False,
        zero_init_residual: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if stem not in STEMS:
            raise ValueError(f"stem must be one of {STEMS}, got {stem!r}")
        if connect not in CONNECT:
            raise ValueError(f"connect must be one of {(*CONNECT,)}, got {connect!r}")
        for name, value in dict(
            num_classes=num_classes, width=width, in_channels=in_channels
        ).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        neuron = neurons.LIF() if neuron is None else neuron

        def conv(*sizes, quant=weight_quant, **options):
            return QuantConv(
                *sizes,
                quant=quant,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
                **options,
            )

        def norm(features, **options):
            return BatchNorm(features, param_dtype=param_dtype, **options)

        def spiking(quant=membrane_quant):
            return Spiking(neuron, quant=quant, site=membrane_site)

        ends = dict(quant=weight_quant if quantize_all else None)
        small = stem == "cifar"
        self.conv1 = conv(
            in_channels,
            width,
            kernel_size=3 if small else 7,
            strides=1 if small else 2,
            padding=1 if small else 3,
            **ends,
        )
        self.bn1 = norm(width)
        self.sn1 = spiking(membrane_quant if quantize_all else None)
        self.stem = stem
        features = width
        self.stages = tuple(f"layer{i + 1}" for i in range(len(blocks)))
        for i, (name, number) in enumerate(zip(self.stages, blocks, strict=True)):
            stage = []
            for j in range(number):
                stage.append(
                    BasicBlock(
                        features,
                        width * 2**i,
                        strides=2 if i > 0 and j == 0 else 1,
                        connect=connect,
                        zero_init_residual=zero_init_residual,
                        conv=conv,
                        norm=norm,
                        spiking=spiking,
                    )
                )
                features = width * 2**i
            setattr(self, name, nnx.List(stage))
        self.fc = QuantLinear(
            features,
            num_classes,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
            **ends,
        )

    def blocks(self) -> dict[str, BasicBlock]:
        """The blocks by name, ``"layer1.0"`` and so on, in order."""
        return {
            f"{stage}.{i}": block
            for stage in self.stages
            for i, block in enumerate(getattr(self, stage))
        }

    def __call__(
        self,
        x: ArrayLike,
        *,
        timesteps: int = 4,
        train: bool = False,
        record: Record | None = None,
        outputs: bool = False,
    ) -> tuple[Array, dict[str, Any]]:
        """Run the network for ``timesteps`` steps.

        Args:
            x: a still image ``[B, H, W, C]`` (direct encoding: the same current at
                every step, convolved once) or a sequence ``[T, B, H, W, C]``.
            timesteps: T; static.
            train: normalise by the batch and move running statistics; static.
            record: applied to each layer's spikes ``[T, B, H, W, C]`` where they arise;
                its results take their place. With `firing.total` no train is kept.
            outputs: record the block outputs too, as ``"layer1.0.out"``; they are whole
                numbers, not spikes, under ADD.

        Returns:
            Logits ``[T, B, classes]``, of each step (their mean over T is the
            prediction), and ``{layer: record(spikes)}``.

        Raises:
            ValueError: timesteps below 1, x of another rank, another number of
                channels, a sequence of another length, or integer x.
        """
        x = jnp.asarray(x)
        self._check(x, timesteps)
        recorded = {}

        def keep(name, spikes):
            recorded[name] = spikes if record is None else record(spikes)

        still = x.ndim == 4
        h = self.conv1(x, train=train)
        h = self.bn1(h, train=train, repeats=timesteps if still else 1)
        if still:
            h = jnp.broadcast_to(h, (timesteps, *h.shape))
        h = self.sn1(h)
        keep("sn1", h)
        if self.stem == "imagenet":
            h = _max_pool(h)
        for name, block in self.blocks().items():
            h, spikes = block(h, train=train)
            for layer, s in spikes.items():
                keep(f"{name}.{layer}", s)
            if outputs:
                keep(f"{name}.out", h)
        return self.fc(jnp.mean(h, axis=(2, 3)), train=train), recorded

    def _check(self, x: Array, timesteps: int) -> None:
        if timesteps < 1:
            raise ValueError(f"timesteps must be at least 1, got {timesteps}")
        if x.ndim not in (4, 5):
            raise ValueError(
                f"x must be [B, H, W, C] or [T, B, H, W, C], got shape {x.shape}"
            )
        if x.ndim == 5 and x.shape[0] != timesteps:
            raise ValueError(
                f"x has {x.shape[0]} time steps (shape {x.shape}, time first), but "
                f"timesteps is {timesteps}"
            )
        channels = self.conv1.kernel.shape[-2]
        if x.shape[-1] != channels:
            raise ValueError(
                f"the network was made for {channels} channels, which come last; got "
                f"x of shape {x.shape}"
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"x must be floating point, got {x.dtype}; data.normalize prepares "
                "uint8 images"
            )

    def synapses(
        self, image_size: tuple[int, int] | None = None
    ) -> tuple[Synapse, ...]:
        """Every convolution and linear layer, with what feeds it, in order.

        Args:
            image_size: (height, width); by default 32 x 32 for the CIFAR stem and
                224 x 224 for the ImageNet stem.
        """
        size = image_size or ((32, 32) if self.stem == "cifar" else (224, 224))
        table = []
        shape = _add(table, "conv1", self.conv1, (INPUT,), "add", size)
        if self.stem == "imagenet":
            shape = ((shape[0] + 1) // 2, (shape[1] + 1) // 2, shape[2])
        sources, connect = ("sn1",), "add"
        for name, block in self.blocks().items():
            fed = (sources, connect, shape[:2])
            middle = _add(table, f"{name}.conv1", block.conv1, *fed)
            conv2 = (f"{name}.conv2", block.conv2, (f"{name}.sn1",), block.connect)
            shape = _add(table, *conv2, middle[:2])
            if block.downsample is not None:
                conv: Any = block.downsample[0]
                _add(table, f"{name}.downsample.0", conv, *fed)
                sources = (f"{name}.downsample_sn",)
            sources, connect = (*sources, f"{name}.sn2"), block.connect
        classes = self.fc.kernel.shape[-1]
        table.append(
            Synapse("fc", sources, connect, (), (), (), shape[-1:], (classes,))
        )
        return tuple(table)


def _add(table, name, conv: QuantConv, sources, connect, size) -> tuple[int, ...]:
    kernel, (c_in, c_out) = conv.kernel.shape[:2], conv.kernel.shape[2:]
    out = tuple(
        (n + sum(pad) - k) // stride + 1
        for n, k, stride, pad in zip(
            size, kernel, conv.strides, conv.padding, strict=True
        )
    )
    table.append(
        Synapse(
            name,
            sources,
            connect,
            kernel,
            conv.strides,
            conv.padding,
            (*size, c_in),
            (*out, c_out),
        )
    )
    return (*out, c_out)


def _max_pool(x: Array) -> Array:
    """3x3 of stride 2 and padding 1, on [T, B, H, W, C]."""
    window, strides = (1, 1, 3, 3, 1), (1, 1, 2, 2, 1)
    padding = ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0))
    lowest = jnp.array(-jnp.inf, x.dtype)
    return jax.lax.reduce_window(x, lowest, jax.lax.max, window, strides, padding)


def sew_resnet8(num_classes: int = 10, **options: Any) -> SEWResNet:
    """Three stages of one block; width 64 has 1,227,594 parameters for 10 classes.

    There is no canonical SEW-ResNet8: this is SEW-ResNet18 cut to three stages of one
    block. ``options`` are `SEWResNet`'s.
    """
    return SEWResNet(num_classes, blocks=(1, 1, 1), **options)


def sew_resnet18(num_classes: int = 10, **options: Any) -> SEWResNet:
    """Four stages of two blocks; width 64 has 11,173,962 parameters for 10 classes.

    ``options`` are `SEWResNet`'s.
    """
    return SEWResNet(num_classes, blocks=(2, 2, 2, 2), **options)


def sew_resnet34(num_classes: int = 10, **options: Any) -> SEWResNet:
    """Stages of 3, 4, 6 and 3 blocks. ``options`` are `SEWResNet`'s."""
    return SEWResNet(num_classes, blocks=(3, 4, 6, 3), **options)
