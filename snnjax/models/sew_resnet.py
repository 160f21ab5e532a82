"""SEW-ResNet: residual networks whose shortcuts join spikes.

Source: Fang et al., `Deep Residual Learning in Spiking Neural Networks
<https://arxiv.org/abs/2102.04159>`_, 2021. Layer names are SpikingJelly's.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from snnjax import _checks, neurons
from snnjax.layers.variables import check_sizes, is_training
from snnjax.models.blocks import CONNECT, BasicBlock, Block, Bottleneck
from snnjax.models.connections import INPUT, Synapse
from snnjax.models.parts import (
    LayerFactory,
    NeuronChoice,
    Record,
    check_input,
    conv_synapse,
    describe_arguments,
    max_pool,
    norm_and_spike,
    remat_module,
    with_options_of,
)
from snnjax.quantize import QuantSpec

STEMS = ("cifar", "imagenet")
REMAT = ("none", "block", "full")


class SEWResNet(nnx.Module):
    """SEW-ResNet; `sew_resnet18` and its like fill in block and sizes.

    Args:
        num_classes: outputs.
        block: `BasicBlock`, or `Bottleneck` with four times the channels.
        blocks: number of blocks of each stage; stage i has ``width * 2**i`` channels,
            and all stages but the first halve height and width.
        width: channels of the stem and the first stage.
        in_channels: of the image.
        stem: ``"cifar"`` (3x3, stride 1) or ``"imagenet"`` (7x7, stride 2, and 3x3
            max-pooling of stride 2).
        connect: ``"add"``, ``"and"`` or ``"iand"`` (shortcut and not branch; in a
            bottleneck branch and not shortcut, as in SpikingJelly).
        neuron: `neurons.LIF`, or another of `layers.Spiking`, for all layers; or a
            function from a layer's channels to its neuron, with numbers ``[C]``.
        learn: numbers of the neuron that each layer learns, as of `layers.Spiking`.
        weight_quant: quantizer of the blocks' kernels.
        membrane_quant: quantizer of the blocks' membranes.
        membrane_site: ``"post_reset"`` or ``"pre_fire"``.
        quantize_all: quantize the stem and the final linear layer as well.
        zero_init_residual: start the last BatchNorm of each branch at scale 0.
        remat: what training recomputes in the backward pass, to keep less: ``"none"``
            (convolutions never, membranes always), ``"block"`` (of each block only the
            input is kept) or ``"full"`` (of each stage only the input).
        dtype: of the computation; None is the input's. Membranes and statistics stay
            in float32 at least.
        param_dtype: of the parameters.
        rngs: for the parameters.

    Raises:
        ValueError: unknown stem, connect or remat, sizes below 1.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        block: type[Block] = BasicBlock,
        blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        in_channels: int = 3,
        stem: str = "cifar",
        connect: str = "add",
        neuron: NeuronChoice | None = None,
        learn: Sequence[str] = (),
        weight_quant: QuantSpec | None = None,
        membrane_quant: QuantSpec | None = None,
        membrane_site: str = "post_reset",
        quantize_all: bool = False,
        zero_init_residual: bool = False,
        remat: str = "none",
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if stem not in STEMS:
            raise ValueError(f"stem must be one of {STEMS}, got {stem!r}")
        if connect not in CONNECT:
            raise ValueError(f"connect must be one of {(*CONNECT,)}, got {connect!r}")
        if remat not in REMAT:
            raise ValueError(f"remat must be one of {REMAT}, got {remat!r}")
        silent = {"and": (BasicBlock, Bottleneck), "iand": (Bottleneck,)}
        if zero_init_residual and issubclass(block, silent.get(connect, ())):
            raise ValueError(
                f"zero_init_residual with connect={connect!r} in a {block.__name__} "
                "lets no spike and no gradient through: a silent branch makes the "
                "output 0 and not the shortcut; leave zero_init_residual False, or "
                'take connect="add"'
            )
        check_sizes(num_classes=num_classes, width=width, in_channels=in_channels)
        several = isinstance(blocks, Sequence)
        if not several or not all(_checks.is_whole(n) and n >= 1 for n in blocks):
            raise ValueError(
                f"blocks must be whole numbers from 1, one a stage, got {blocks!r}"
            )
        self.remat = remat
        self.use_running_average = True
        self.architecture = describe_arguments(
            num_classes=num_classes,
            block=block,
            blocks=blocks,
            width=width,
            in_channels=in_channels,
            stem=stem,
            connect=connect,
            remat=remat,
            dtype=dtype,
            param_dtype=param_dtype,
        )
        factory = LayerFactory(
            neuron=neurons.LIF() if neuron is None else neuron,
            learn=learn,
            weight_quant=weight_quant,
            membrane_quant=membrane_quant,
            membrane_site=membrane_site,
            quantize_all=quantize_all,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        kernel, strides = (3, 1) if stem == "cifar" else (7, 2)
        self.conv1 = factory.conv(
            in_channels,
            width,
            kernel_size=kernel,
            strides=strides,
            padding=kernel // 2,
            is_boundary=True,
        )
        self.bn1 = factory.norm(width)
        self.sn1 = factory.spiking(width, is_boundary=True)
        self.stem = stem
        features = width
        self.stages = tuple(f"layer{i + 1}" for i in range(len(blocks)))
        for i, (name, number) in enumerate(zip(self.stages, blocks, strict=True)):
            stage = []
            for j in range(number):
                stage.append(
                    block(
                        features,
                        width * 2**i,
                        strides=2 if i > 0 and j == 0 else 1,
                        connect=connect,
                        zero_init_residual=zero_init_residual,
                        factory=factory,
                    )
                )
                features = width * 2**i * block.expansion
            setattr(self, name, nnx.List(stage))
        self.fc = factory.linear(features, num_classes)
        self.eval()  # unlike flax's: a loop that trains says so

    def blocks(self) -> dict[str, Block]:
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
        train: bool | None = None,
        record: Record | None = None,
        outputs: bool = False,
    ) -> tuple[Array, dict[str, Any]]:
        """Run the network for ``timesteps`` steps.

        Args:
            x: a still image ``[B, H, W, C]`` (direct encoding: the same current at
                every step, convolved once) or a sequence ``[T, B, H, W, C]``.
            timesteps: T; static.
            train: normalise by the batch and update running statistics; static. None
                follows ``model.train()`` and ``model.eval()``; unlike flax's, a new
                network is in evaluation mode.
            record: applied to each layer's spikes ``[T, B, H, W, C]`` where they arise;
                its results take their place. With `firing.total` no train is kept. With
                ``remat`` no gradient reaches what it closes over.
            outputs: record what is not a neuron's but feeds synapses too: the block
                outputs, as ``"layer1.0.out"``, which are whole numbers, not spikes,
                under ADD, and the ImageNet stem's ``"maxpool"``.

        Returns:
            Logits ``[T, B, classes]``, of each step (their mean over T is the
            prediction), and ``{layer: record(spikes)}``.

        Raises:
            ValueError: timesteps below 1, x of another rank, another number of
                channels, a sequence of another length, or integer x.
        """
        x = check_input(x, timesteps, self.conv1.kernel.shape[-2], record)
        recorded = {}

        def keep(name, spikes):
            recorded[name] = spikes if record is None else record(spikes)

        still = timesteps if x.ndim == 4 else None
        h = self.conv1(x, train=train)
        h = norm_and_spike(self.bn1, self.sn1, h, train=train, timesteps=still)
        keep("sn1", h)
        if self.stem == "imagenet":
            h = max_pool(h, window=3, strides=2, padding=1)
            if outputs:
                keep("maxpool", h)
        for name in self.stages:
            run = functools.partial(self._stage, name, train, record, outputs)
            stage = getattr(self, name)
            full = is_training(self, train) and self.remat == "full"
            h, kept = remat_module(stage, run, h) if full else run(stage, h)
            recorded |= kept
        return self.fc(jnp.mean(h, axis=(2, 3)), train=train), recorded

    def _stage(self, name, train, record, outputs, stage, h):
        """A stage's output, and what is recorded in it."""
        recorded = {}
        for i, block in enumerate(stage):
            run = functools.partial(self._block, f"{name}.{i}", train, record, outputs)
            remat = is_training(self, train) and self.remat != "none"
            h, kept = remat_module(block, run, h) if remat else run(block, h)
            recorded |= kept
        return h, recorded

    @staticmethod
    def _block(name, train, record, outputs, block, h):
        h, spikes = block(h, train=train)
        spikes = {f"{name}.{layer}": s for layer, s in spikes.items()}
        if outputs:
            spikes[f"{name}.out"] = h
        if record is not None:
            spikes = {layer: record(s) for layer, s in spikes.items()}
        return h, spikes

    def synapses(
        self, image_size: tuple[int, int] | None = None
    ) -> tuple[Synapse, ...]:
        """Every convolution and linear layer, with what feeds it, in order.

        Args:
            image_size: (height, width); by default 32 x 32 for the CIFAR stem and
                224 x 224 for the ImageNet stem.

        Raises:
            ValueError: not two whole numbers from 1.
        """
        usual = (32, 32) if self.stem == "cifar" else (224, 224)
        size = usual if image_size is None else image_size
        _checks.require_image_size(size)
        size = tuple(map(int, size))
        table = [conv_synapse("conv1", self.conv1, (INPUT,), "add", size)]
        sources, connect = ("sn1",), "add"
        size = table[0].out_shape[:2]
        if self.stem == "imagenet":
            sources, size = ("maxpool",), tuple((n + 1) // 2 for n in size)
        for name, block in self.blocks().items():
            rows, sources = block.synapses(name, sources, connect, size)
            table += rows
            connect, size = block.connect, rows[block.depth - 1].out_shape[:2]
        shape = self.fc.kernel.shape
        table.append(Synapse("fc", sources, connect, (), (), (), shape[:1], shape[1:]))
        return tuple(table)


@with_options_of(SEWResNet)
def sew_resnet8(num_classes: int = 10, **options: Any) -> SEWResNet:
    """Three stages of one block; width 64 has 1,227,594 parameters for 10 classes.

    There is no canonical SEW-ResNet8: this is SEW-ResNet18 cut to three stages of one
    block. The options are those of `SEWResNet`.
    """
    return SEWResNet(num_classes, blocks=(1, 1, 1), **options)


@with_options_of(SEWResNet)
def sew_resnet18(num_classes: int = 10, **options: Any) -> SEWResNet:
    """Four stages of two blocks; width 64 has 11,173,962 parameters for 10 classes.

    The options are those of `SEWResNet`.
    """
    return SEWResNet(num_classes, blocks=(2, 2, 2, 2), **options)


@with_options_of(SEWResNet)
def sew_resnet34(num_classes: int = 10, **options: Any) -> SEWResNet:
    """Stages of 3, 4, 6 and 3 blocks. The options are those of `SEWResNet`."""
    return SEWResNet(num_classes, blocks=(3, 4, 6, 3), **options)


@with_options_of(SEWResNet)
def sew_resnet50(num_classes: int = 10, **options: Any) -> SEWResNet:
    """Stages of 3, 4, 6 and 3 bottlenecks. The options are those of `SEWResNet`."""
    return SEWResNet(num_classes, block=Bottleneck, blocks=(3, 4, 6, 3), **options)


@with_options_of(SEWResNet)
def sew_resnet101(num_classes: int = 10, **options: Any) -> SEWResNet:
    """Stages of 3, 4, 23 and 3 bottlenecks. The options are those of `SEWResNet`."""
    return SEWResNet(num_classes, block=Bottleneck, blocks=(3, 4, 23, 3), **options)


@with_options_of(SEWResNet)
def sew_resnet152(num_classes: int = 10, **options: Any) -> SEWResNet:
    """Stages of 3, 8, 36 and 3 bottlenecks. The options are those of `SEWResNet`."""
    return SEWResNet(num_classes, block=Bottleneck, blocks=(3, 8, 36, 3), **options)
