"""Rivals of drift in mixed precision: what else tells how many bits a kernel needs."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import calibrate, data, train
from snnjax.data import Dataset
from snnjax.layers.inspect import quantizable_layers
from snnjax.models import SEWResNet
from snnjax.quantize import QuantSpec

BITS = (2, 3, 4, 6, 8)  # those of `calibrate.allocate_bits`
Costs = dict[str, dict[int, float]]  # {kernel: {bits: cost}}


def measure_accuracy_lost(
    model: SEWResNet, images: Dataset, kernels: Sequence[str], augment: Any = None
) -> Costs:
    """Measure the accuracy that each kernel loses where it alone is quantized.

    On labelled images, BatchNorm re-estimated: AIMET's and HAQ's sensitivity.
    """
    whole = train.evaluate(model, images).accuracy

    def cost(kernel: str, bits: int) -> float:
        quantized = calibrate.quantize(model, {re.escape(kernel): _with_bits(bits)})
        quantized = calibrate.reestimate_batchnorm(
            quantized, images, images=len(images), augment=augment
        )
        return whole - train.evaluate(quantized, images).accuracy

    return {kernel: {bits: cost(kernel, bits) for bits in BITS} for kernel in kernels}


def measure_fisher(
    model: SEWResNet, images: Dataset, kernels: Sequence[str], augment: Any = None
) -> Costs:
    r"""Estimate how much each kernel's rounding adds to the loss, to second order.

    .. math:: \frac12 \sum_w F_w (w - q(w))^2, \quad
        F_w = \frac1N \sum_n \left(\frac{\partial L_n}{\partial w}\right)^2

    The diagonal of the empirical Fisher information stands for that of the Hessian, as
    in BRECQ (Li et al., 2021); HAWQ-V2 takes the Hessian's mean trace. The gradient is
    that of the surrogates. No statistic is estimated, so ``augment`` is not used.
    """
    del augment
    graphdef, params, rest = train.split(model)

    def loss(params: nnx.State, image: jax.Array, label: jax.Array) -> jax.Array:
        network = nnx.merge(graphdef, params, rest, copy=True)
        network.eval()
        return train.cross_entropy(network(image[None])[0], label[None])

    def square(total: nnx.State, one: tuple[jax.Array, jax.Array]):
        gradient = jax.grad(loss)(params, *one)
        return jax.tree.map(lambda t, g: t + g**2, total, gradient), None

    x = data.normalize(images.images, images.mean, images.std)
    pairs = x, jnp.asarray(images.labels)
    zeros = jax.tree.map(jnp.zeros_like, params)
    squares, _ = jax.jit(lambda zeros: jax.lax.scan(square, zeros, pairs))(zeros)
    fisher: dict[str, Any] = {}
    fisher |= quantizable_layers(nnx.merge(graphdef, squares, rest, copy=True))

    def cost(kernel: str, bits: int) -> float:
        quantized = calibrate.quantize(model, {re.escape(kernel): _with_bits(bits)})
        layer: Any = quantizable_layers(quantized)[kernel]
        moved = layer.kernel.get_value() - layer.quantized_kernel()
        mean = fisher[kernel].kernel.get_value() / len(images)
        return float(jnp.sum(mean * moved**2)) / 2

    return {kernel: {bits: cost(kernel, bits) for bits in BITS} for kernel in kernels}


def _with_bits(bits: int) -> QuantSpec:
    return QuantSpec(bits=bits, clip="mse")


RIVALS: dict[str, Callable[[SEWResNet, Dataset, Sequence[str], Any], Costs]] = {
    "bits by accuracy": measure_accuracy_lost,
    "bits by Fisher information": measure_fisher,
}
