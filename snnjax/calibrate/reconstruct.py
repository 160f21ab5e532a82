"""Learned rounding: kernels rounded up or down so that each block fires as before."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from snnjax import _checks, distill, models
from snnjax.calibrate.batchnorm import reestimate_batchnorm
from snnjax.calibrate.bias import Progress, check_arguments, ignore_progress
from snnjax.calibrate.inputs import Inputs, augment_batches
from snnjax.calibrate.layerwise import Unit
from snnjax.calibrate.levels import find_neighbours
from snnjax.calibrate.osbc import METHODS, check_quantizers
from snnjax.layers import BatchNorm
from snnjax.layers.observe import observable_layers

Model = TypeVar("Model", bound=nnx.Module)

_ADAM = optax.scale_by_adam()
# The share of a step reaches 0 and 1 before its variable ends.
_STRETCH = 1.2
_WARM_UP = 0.2  # of the steps, without a pull to whole steps
_SHARPEST, _SOFTEST = 20.0, 2.0  # exponents of the pull, from the first to the last


def reconstruct(
    model: Model,
    reference: nnx.Module,
    dataset: Inputs,
    *,
    loss: Callable[..., Array] | None = None,
    steps: int = 300,
    learning_rate: float = 0.02,
    pull: float = 0.1,
    timesteps: int = 4,
    images: int = 512,
    batch_size: int = 64,
    batchnorm: bool = True,
    augment: Callable[..., Any] | None = None,
    seed: int = 0,
    on_block: Progress = ignore_progress,
) -> Model:
    r"""Copy ``model`` with each weight rounded up or down, as learned block by block.

    Of the two levels :math:`l \le w \le u` beside a weight, learning decides by a share
    h from 0 to 1, which begins where the weight is:

    .. math:: \hat w = l + h\,(u - l), \quad
        \min_h \sum_{l \in block} D_l
        + \frac{\lambda}{n} \sum_i \big(1 - |2 h_i - 1|^\beta\big)

    with D_l the distance of a layer's firing to the reference's on the same inputs, by
    default its membrane potentials and its rates per image (`distill.membrane` plus
    `distill.paired_rates`), through the surrogates. The pull to 0 and 1 starts after a
    fifth of the steps, and :math:`\beta` falls from 20 to 2. A block is a module that
    has several layers of its own, such as a residual block, else a single layer; blocks
    follow each other as they run, each behind the rounded ones before it. One that does
    not come nearer to the reference than rounding to the nearest keeps that.

    Args:
        model: a network whose kernels have quantizers (uniform, LSQ, LQ-Net), which
            hold the kernels in full precision still.
        reference: the network in full precision.
        dataset: the calibration set, labels unused, as of `reestimate_batchnorm`.
        loss: of two recordings of one layer, as of `distill`; layers without neurons
            behind them compare their outputs.
        steps: of learning, for each block.
        learning_rate: of Adam, by which the shares move.
        pull: :math:`\lambda`.
        timesteps: T.
        images: how many images of a `data.Dataset` are taken, in full batches.
        batch_size: images of each step, of a `data.Dataset`.
        batchnorm: normalise by each batch's statistics, and re-estimate BatchNorm in
            the end.
        augment: for that end, as of `reestimate_batchnorm`.
        seed: of the order of batches.
        on_block: ``on_block(name, done, blocks)``, called after each block.

    Returns:
        The copy, in evaluation mode, with levels as kernels and the same quantizers.

    Raises:
        ValueError: as `osbc`; a loss that is no function; as `correct_bias`.

    Source: Nagel et al., `AdaRound <https://arxiv.org/abs/2004.10568>`_, 2020; Li et
    al., `BRECQ <https://arxiv.org/abs/2102.05426>`_, 2021, for the blocks. Differs from
    the papers in: the distance is of firing over T steps; one program runs the whole
    network for every block, so that shortcuts need no special care.
    """
    _checks.require_whole("steps", steps, 1)
    _checks.require_whole("seed", seed, 0)
    _checks.require_positive("learning_rate", learning_rate)
    _checks.require_positive("pull", pull)
    compare = distill.as_loss(_compare_firing if loss is None else loss)
    batches, units = check_arguments(
        model, reference, dataset, timesteps, images, batch_size, on_block
    )
    seen = augment_batches(batches, dataset, images, batch_size, augment, batchnorm)
    copy = nnx.clone(model)
    copy.eval()
    layers: dict[str, Any] = dict(observable_layers(copy))
    units = [unit for unit in units if layers[unit.weights].quant is not None]
    check_quantizers(layers, units, METHODS)
    batchnorm = batchnorm and any(isinstance(x, BatchNorm) for x in layers.values())

    names = [unit.weights for unit in units]
    levels = {name: _as_arrays(find_neighbours(layers[name])) for name in names}
    kernels = {name: layers[name].kernel.get_value() for name in names}
    nearest = {name: layers[name].quantized_kernel(train=False) for name in names}
    variables = {name: _start(kernels[name], *levels[name]) for name in names}
    plan, fixed = _make_plan(copy, reference, units, timesteps, batchnorm)
    fixed = (*fixed, compare, levels)

    order = _shuffle(batches, seed)
    blocks = group_blocks(copy, units)
    for done, (block, members) in enumerate(blocks.items(), start=1):
        active = {unit.weights: jnp.float32(unit in members) for unit in units}
        moments = _ADAM.init(variables)
        for step in range(steps):
            numbers = _anneal(step, steps, pull, learning_rate)
            variables, moments = _learn(
                plan, fixed, variables, moments, next(order), kernels, active, numbers
            )
        shares = {unit.weights: _share(variables[unit.weights]) for unit in members}
        learned = {k: jnp.where(h < 0.5, *levels[k]) for k, h in shares.items()}
        plain = {name: nearest[name] for name in shares}
        distances = [
            sum(float(_measure(plan, fixed, kernels | x, b, active)) for b in batches)
            for x in (learned, plain)
        ]
        kernels |= learned if distances[0] < distances[1] else plain
        on_block(block, done, len(blocks))
    for name in names:
        layers[name].kernel.set_value(kernels[name])
        # The quantizer's own levels, to the last bit.
        layers[name].kernel.set_value(layers[name].quantized_kernel(train=False))
    if not batchnorm:
        return copy
    return reestimate_batchnorm(copy, seen, timesteps=timesteps)


def group_blocks(model: nnx.Module, units: Sequence[Unit]) -> dict[str, list[Unit]]:
    """Return the units of each block by its name, in the order in which they run.

    A block is the innermost module around a layer that is called itself, which lists
    and sequences of layers are not; the network as a whole is none.
    """
    modules = {".".join(map(str, path)): x for path, x in nnx.iter_modules(model)}
    blocks: dict[str, list[Unit]] = {}
    for unit in units:
        block = unit.weights.rpartition(".")[0]
        while block and not _is_block(modules.get(block)):
            block = block.rpartition(".")[0]
        blocks.setdefault(block or unit.weights, []).append(unit)
    return blocks


def _is_block(module: Any) -> bool:
    sequence = isinstance(module, nnx.Sequential | models.Sequential)
    return callable(module) and not sequence


class _Plan(NamedTuple):
    """The choices that the program is compiled for."""

    student: Any
    teacher: Any
    units: tuple[Unit, ...]
    timesteps: int
    batchnorm: bool


def _make_plan(model, reference, units, timesteps, batchnorm):
    """Return the plan, and the arrays of the two networks."""
    student, teacher = nnx.clone(model), nnx.clone(reference)
    for unit in units:
        layer: Any = observable_layers(student)[unit.weights]
        layer.quantize(None)
    for network in (student, teacher):
        network.eval()
    (ours, state), (theirs, taught) = nnx.split(student), nnx.split(teacher)
    plan = _Plan(ours, theirs, tuple(units), timesteps, batchnorm)
    return plan, (state, taught)


@functools.partial(jax.jit, static_argnums=0)
def _learn(plan, fixed, variables, moments, images, kernels, active, numbers):
    """Take one step of the shares' variables; those that are not active stay."""
    sharpness, strength, rate = numbers
    levels = fixed[-1]

    def total(variables):
        soft = {}
        pulled = jnp.zeros(())
        for name, v in variables.items():
            below, above = levels[name]
            share = _share(v)
            between = below + share * (above - below)
            soft[name] = jnp.where(active[name] > 0, between, kernels[name])
            apart = 1 - jnp.abs(2 * share - 1) ** sharpness
            pulled = pulled + active[name] * jnp.mean(apart)
        return _distance(plan, fixed, soft, images, active) + strength * pulled

    updates, moments = _ADAM.update(jax.grad(total)(variables), moments)
    return jax.tree.map(lambda v, u: v - rate * u, variables, updates), moments


@functools.partial(jax.jit, static_argnums=0)
def _measure(plan, fixed, kernels, images, active):
    return _distance(plan, fixed, kernels, images, active)


def _distance(plan, fixed, kernels, images, active):
    """Sum the distances of the active units' firing to the reference's."""
    state, taught, compare, _ = fixed
    student = nnx.merge(plan.student, state, copy=True)
    for name, kernel in kernels.items():
        layer: Any = observable_layers(student)[name]
        layer.kernel.set_value(kernel)
    teacher = nnx.merge(plan.teacher, taught, copy=True)
    train = True if plan.batchnorm else None
    membranes = compare.needs_membranes
    ours = distill.record(student, images, plan.timesteps, train, membranes)
    theirs = distill.record(teacher, images, plan.timesteps, None, membranes)
    total = jnp.zeros(())
    for unit in plan.units:
        if unit.spiking is None:
            found = compare_outputs(ours.logits, theirs.logits)
        else:
            found = compare(*(_take_layer(x, unit.spiking) for x in (ours, theirs)))
        total = total + active[unit.weights] * found
    return total


def _take_layer(recording, name):
    keep = lambda layers: {name: layers[name]} if layers else {}  # noqa: E731
    return dataclasses.replace(
        recording, spikes=keep(recording.spikes), membranes=keep(recording.membranes)
    )


def _compare_firing(student, teacher):
    return distill.membrane(student, teacher) + distill.paired_rates(student, teacher)


setattr(_compare_firing, "needs_membranes", True)  # noqa: B010


def compare_outputs(ours: Array, theirs: Array) -> Array:
    """Compute the mean squared distance, relative to the variance of ``theirs``."""
    return jnp.mean(jnp.square(ours - theirs)) / (jnp.var(theirs) + 1e-6)


def _start(w: Array, below: Array, above: Array) -> Array:
    """Return the variable whose share puts each weight where it is."""
    share = jnp.clip((w - below) / (above - below), 0.01, 0.99)
    stretched = (share + (_STRETCH - 1) / 2) / _STRETCH
    return jnp.log(stretched / (1 - stretched))


def _share(v: Array) -> Array:
    return jnp.clip(_STRETCH * jax.nn.sigmoid(v) - (_STRETCH - 1) / 2, 0, 1)


def _anneal(step: int, steps: int, pull: float, rate: float) -> tuple[Array, ...]:
    """Return the exponent and the strength of the pull, and the learning rate."""
    done = (step / steps - _WARM_UP) / (1 - _WARM_UP)
    sharpness = _SOFTEST + (_SHARPEST - _SOFTEST) * (1 - max(done, 0.0))
    strength = pull if done >= 0 else 0.0
    return tuple(jnp.float32(x) for x in (sharpness, strength, rate))


def _shuffle(batches: list[Array], seed: int) -> Iterator[Array]:
    """Yield the batches without end, in a new order each time through."""
    draws = np.random.default_rng(seed)
    while True:
        for i in draws.permutation(len(batches)):
            yield batches[i]


def _as_arrays(pair: tuple[np.ndarray, np.ndarray]) -> tuple[Array, Array]:
    return jnp.asarray(pair[0], jnp.float32), jnp.asarray(pair[1], jnp.float32)
