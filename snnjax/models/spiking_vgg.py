"""Spiking VGG: a plain stack of spiking 3x3 convolutions and max-pooling.

Source: Simonyan and Zisserman, `Very Deep Convolutional Networks
<https://arxiv.org/abs/1409.1556>`_, 2015, with BatchNorm and neurons for its ReLUs, and
one linear layer at its end, as is usual on CIFAR.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from snnjax import _checks, neurons
from snnjax.layers import QuantConv
from snnjax.layers.variables import check_sizes
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
    with_options_of,
)
from snnjax.quantize import QuantSpec


class SpikingVGG(nnx.Module):
    """Stages of 3x3 convolutions, each with BatchNorm and neurons, and max-pooling.

    Args:
        num_classes: outputs.
        stages: for each stage its convolutions and their channels, as a multiple of
            ``width``; 2x2 max-pooling of stride 2 behind each.
        width: channels of the first convolution.
        image_size: (height, width), of at least 2 ** stages: the linear layer sees all
            positions of the last stage.
        in_channels: of the image.
        neuron: `neurons.LIF`, or another of `layers.Spiking`, for all layers; or a
            function from a layer's channels to its neuron, with numbers ``[C]``.
        learn: numbers of the neuron that each layer learns, as of `layers.Spiking`.
        weight_quant: quantizer of the kernels behind the first layer.
        membrane_quant: quantizer of the membranes behind the first layer.
        membrane_site: ``"post_reset"`` or ``"pre_fire"``.
        quantize_all: quantize the first and the linear layer as well.
        dtype: of the computation; None is the input's. Membranes and statistics stay
            in float32 at least.
        param_dtype: of the parameters.
        rngs: for the parameters.

    Raises:
        ValueError: sizes below 1, or an image too small for the stages.
    """

    conv1: QuantConv  # and so on, up to the number of convolutions

    def __init__(
        self,
        num_classes: int = 10,
        *,
        stages: Sequence[tuple[int, int]] = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8)),
        width: int = 64,
        image_size: tuple[int, int] = (32, 32),
        in_channels: int = 3,
        neuron: NeuronChoice | None = None,
        learn: Sequence[str] = (),
        weight_quant: QuantSpec | None = None,
        membrane_quant: QuantSpec | None = None,
        membrane_site: str = "post_reset",
        quantize_all: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_sizes(num_classes=num_classes, width=width, in_channels=in_channels)
        _checks.require_image_size(image_size)
        if min(image_size) < 2 ** len(stages):
            raise ValueError(
                f"image_size must be at least {2 ** len(stages)} for {len(stages)} "
                f"poolings, got {image_size}"
            )
        self.use_running_average = True
        self.architecture = describe_arguments(
            num_classes=num_classes,
            stages=stages,
            width=width,
            image_size=image_size,
            in_channels=in_channels,
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
        self.stages = tuple(number for number, _ in stages)
        self.image_size = tuple(image_size)
        features, i = in_channels, 0
        for number, multiple in stages:
            for _ in range(number):
                i += 1
                out = width * multiple
                conv = factory.conv(
                    features, out, kernel_size=3, padding=1, is_boundary=i == 1
                )
                setattr(self, f"conv{i}", conv)
                setattr(self, f"bn{i}", factory.norm(out))
                setattr(self, f"sn{i}", factory.spiking(out, is_boundary=i == 1))
                features = out
        height, length = (n // 2 ** len(stages) for n in image_size)
        # SpikingJelly's VGGs start so; its SEW-ResNets keep torch's own.
        self.fc = factory.linear(height * length * features, num_classes, std=0.01)
        self.eval()  # unlike flax's: a loop that trains says so

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
            x: a still image ``[B, H, W, C]`` or a sequence ``[T, B, H, W, C]``.
            timesteps: T; static.
            train: normalise by the batch and update running statistics; static. None
                follows ``model.train()`` and ``model.eval()``; unlike flax's, a new
                network is in evaluation mode.
            record: applied to each layer's spikes ``[T, B, H, W, C]`` where they arise;
                its results take their place.
            outputs: record the spikes behind each pooling too, as ``"pool1"`` and on.

        Returns:
            Logits ``[T, B, classes]`` and ``{layer: record(spikes)}``.

        Raises:
            ValueError: timesteps below 1, x of another rank or size, another number of
                channels, a sequence of another length, or integer x.
        """
        x = check_input(x, timesteps, self.conv1.kernel.shape[-2], record)
        if x.shape[-3:-1] != self.image_size:
            raise ValueError(
                f"the network was made for images of {self.image_size}, got x of shape "
                f"{x.shape}; give image_size when making it"
            )
        recorded = {}

        def keep(name, spikes):
            recorded[name] = spikes if record is None else record(spikes)

        h, i = x, 0
        for stage, number in enumerate(self.stages, start=1):
            for _ in range(number):
                i += 1
                conv, norm = getattr(self, f"conv{i}"), getattr(self, f"bn{i}")
                sn, h = getattr(self, f"sn{i}"), conv(h, train=train)
                still = timesteps if h.ndim == 4 else None
                h = norm_and_spike(norm, sn, h, train=train, timesteps=still)
                keep(f"sn{i}", h)
            h = max_pool(h, window=2, strides=2)
            if outputs:
                keep(f"pool{stage}", h)
        return self.fc(h.reshape(*h.shape[:2], -1), train=train), recorded

    def synapses(
        self, image_size: tuple[int, int] | None = None
    ) -> tuple[Synapse, ...]:
        """Every convolution and the linear layer, with what feeds it, in order.

        The linear layer sees all positions: it is a convolution with one window.

        Args:
            image_size: as the network was made for, or None.

        Raises:
            ValueError: another image size.
        """
        if image_size is not None:
            _checks.require_image_size(image_size)
        if image_size is not None and tuple(image_size) != tuple(self.image_size):
            raise ValueError(
                f"the network was made for images of {self.image_size}, got "
                f"{image_size}"
            )
        table, source, size, i = [], INPUT, self.image_size, 0
        for stage, number in enumerate(self.stages, start=1):
            for _ in range(number):
                i += 1
                conv = getattr(self, f"conv{i}")
                table.append(conv_synapse(f"conv{i}", conv, (source,), "add", size))
                source = f"sn{i}"
            source, size = f"pool{stage}", tuple(n // 2 for n in size)
        shape = (*size, table[-1].out_shape[-1])
        out = (1, 1, self.fc.kernel.shape[-1])
        none = ((0, 0), (0, 0))
        table.append(Synapse("fc", (source,), "add", size, (1, 1), none, shape, out))
        return tuple(table)


@with_options_of(SpikingVGG)
def spiking_vgg_small(
    num_classes: int = 10, *, width: int = 128, **options: Any
) -> SpikingVGG:
    """Six convolutions; width 128 has 4,660,106 parameters for 10 classes.

    The VGG-small of the quantization literature (LQ-Nets, LSQ): 128, 256 and 512
    channels, two convolutions each. The options are those of `SpikingVGG`.
    """
    stages = (2, 1), (2, 2), (2, 4)
    return SpikingVGG(num_classes, stages=stages, width=width, **options)


@with_options_of(SpikingVGG)
def spiking_vgg16(num_classes: int = 10, **options: Any) -> SpikingVGG:
    """Thirteen convolutions; width 64 has 14,724,042 parameters for 10 classes.

    The options are those of `SpikingVGG`.
    """
    return SpikingVGG(num_classes, **options)
