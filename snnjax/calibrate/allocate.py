"""Mixed precision: bits for each kernel and membrane, by the drift that each causes."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import _checks
from snnjax.calibrate.batchnorm import reestimate_batchnorm
from snnjax.calibrate.bias import Progress, ignore_progress
from snnjax.calibrate.fire import count_firing, measure_firing
from snnjax.calibrate.inputs import Inputs, augment_batches, load_batches
from snnjax.calibrate.layerwise import find_units, observe_batches, take_input
from snnjax.calibrate.quantize import quantize
from snnjax.layers import BatchNorm
from snnjax.layers.inspect import check_model, quantizable_layers
from snnjax.layers.observe import observable_layers
from snnjax.quantize import QuantSpec

_MOST_CHOICES = 50_000  # combinations kept side by side; beyond it is greedy
_FINE = 16  # bits of the kernels that are not measured: lossless in effect


def allocate_bits(
    model: nnx.Module,
    dataset: Inputs,
    budget_kb: float,
    *,
    bits: Sequence[int] = (2, 3, 4, 6, 8),
    spec: QuantSpec | None = None,
    layers: Sequence[str] | None = None,
    membrane_spec: QuantSpec | None = None,
    timesteps: int = 4,
    images: int = 256,
    batch_size: int = 128,
    augment: Callable[..., Any] | None = None,
    on_layer: Progress = ignore_progress,
) -> dict[str, int]:
    r"""Choose the bits of each kernel, of least drift within a memory budget.

    .. math:: \min_b \sum_l D_l(b_l) \quad\text{subject to}\quad
              \sum_l n_l b_l \le 8000\, B

    with :math:`D_l(b)` the drift of firing (paired shift plus W1, mean over layers)
    where only kernel l, of :math:`n_l` weights, has b bits, and BatchNorm re-estimated;
    with ``membrane_spec`` also of the membranes l of :math:`n_l` neurons.
    Drifts of several are taken to add. The choice is exact while no more than
    50,000 combinations are worth keeping side by side, else greedy: from the fewest
    bits, the step of most drift saved for each bit.

    Args:
        model: the network in full precision; quantizers that it has are not used.
        dataset: the calibration set, labels unused, as of `reestimate_batchnorm`.
        budget_kb: memory of these kernels and membranes, in 1000 bytes.
        bits: the choices.
        spec: a uniform quantizer, of which the bits are replaced; None is mid-tread
            with the bound of least squared error.
        layers: names of the kernels; None is all but the first and the last.
        membrane_spec: a uniform quantizer of membranes, of which the bits are replaced:
            the neurons behind these kernels are given bits too. None leaves membranes
            in full precision.
        timesteps: T.
        images: how many images of labelled data are taken, in full batches.
        batch_size: images of each batch of a `data.Dataset`.
        augment: for BatchNorm, as of `reestimate_batchnorm`.
        on_layer: ``on_layer(name, done, layers)``, called after the drifts of each.

    Returns:
        ``{layer: bits}``; ``quantize(model, {re.escape(layer): QuantSpec(bits=b, ...)
        for layer, b in chosen.items()})`` puts them on.

    Raises:
        ValueError: a budget that the fewest bits exceed, a quantizer that is not
            uniform, unknown layers, bits that the quantizer does not have.
    """
    check_model(model)
    _checks.require_positive_number("budget_kb", budget_kb)
    _checks.require_callable("on_layer", on_layer, "of a layer's name, done and layers")
    spec = QuantSpec(bits=_FINE, clip="mse") if spec is None else spec
    if not isinstance(spec, QuantSpec) or spec.method != "uniform":
        raise ValueError(f"spec must be a uniform QuantSpec, got {spec!r}")
    _check_membranes(membrane_spec)
    bits = sorted(set(bits))
    plain = quantize(model, {".*": QuantSpec("none")})
    batches = load_batches(dataset, images, batch_size)
    seen = augment_batches(batches, dataset, images, batch_size, augment)
    units = find_units(plain, batches[0], timesteps)
    known = [unit.weights for unit in units]
    chosen = known[1:-1] if layers is None else list(layers)
    if not chosen or not set(chosen) <= set(known):
        raise ValueError(
            f"layers must be names of kernels, of {', '.join(known)}, got {layers!r}"
        )
    modules: dict[str, Any] = dict(quantizable_layers(plain))
    sizes = {name: modules[name].kernel.size for name in chosen}
    kinds = dict.fromkeys(chosen, spec)
    spiking = [unit for unit in units if unit.spiking]
    if membrane_spec is not None:
        behind = [unit for unit in spiking if unit.weights in chosen]
        for unit, neurons in zip(
            behind, _count_neurons(plain, behind, batches[0], timesteps), strict=True
        ):
            sizes[unit.spiking or ""] = neurons
            kinds[unit.spiking or ""] = membrane_spec
    chosen = list(sizes)
    least = sum(sizes.values()) * bits[0]
    if least > 8000 * budget_kb:
        raise ValueError(
            f"budget_kb must be at least {least / 8000:g} for {bits[0]} bits in every "
            f"kernel and membrane, got {budget_kb}"
        )
    specs = {
        name: {b: _with_bits(kind, b) for b in (*bits, _FINE)}
        for name, kind in kinds.items()
    }
    fine = {re.escape(name): each[_FINE] for name, each in specs.items()}
    norms = any(isinstance(m, BatchNorm) for m in observable_layers(plain).values())

    def count(rules):
        # All kernels have a quantizer in each, so that one program measures all.
        measured = quantize(model, {".*": QuantSpec("none")} | rules)
        if norms:
            measured = reestimate_batchnorm(measured, seen, timesteps=timesteps)
        found = count_firing(measured, spiking, batches, timesteps)
        return [each.counts.reshape(-1, each.counts.shape[-1]) for each in found]

    call = functools.partial(plain, timesteps=timesteps)  # pyrefly: ignore
    logits = jax.eval_shape(call, batches[0])[0]
    observations = timesteps * logits.shape[1] * len(batches)
    wanted = count(fine)

    def drift(name, b):
        found = count(fine | {re.escape(name): specs[name][b]})
        costs = [
            jnp.sum(measure_firing(x, y)) / (x.size * observations)
            for x, y in zip(found, wanted, strict=True)
        ]
        return float(np.mean(costs))

    drifts = {}
    for done, name in enumerate(chosen, start=1):
        drifts[name] = {b: drift(name, b) for b in bits}
        on_layer(name, done, len(chosen))
    return choose_bits(drifts, sizes, int(8000 * budget_kb))


def _check_membranes(spec: Any) -> None:
    if spec is None:
        return
    if not isinstance(spec, QuantSpec) or spec.method != "uniform":
        raise ValueError(f"membrane_spec must be a uniform QuantSpec, got {spec!r}")
    spec.check_membrane("post_reset")


def _count_neurons(model, units, images, timesteps) -> list[int]:
    """Count the neurons behind each unit."""
    observers = {unit.spiking or "": take_input for unit in units}
    [found] = observe_batches(model, [images], observers, timesteps)
    return [found[unit.spiking or ""][0, 0].size for unit in units]


def _with_bits(spec: QuantSpec, bits: int) -> QuantSpec:
    fields = {
        name: getattr(spec, name)
        for name in ("signed", "grid", "per_channel", "group_size", "rounding", "pow2")
    }
    clip = spec.clip if spec.clip_rule is None else spec.clip_rule
    return QuantSpec(bits=bits, clip=clip, **fields)


def choose_bits(
    drifts: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], budget: int
) -> dict[str, int]:
    """Choose bits of least summed drift, whose memory is within a budget.

    Args:
        drifts: ``{layer: {bits: drift}}``.
        sizes: ``{layer: weights}``.
        budget: in bits, enough for the fewest bits of all.

    >>> drifts = {"a": {2: 0.5, 4: 0.1}, "b": {2: 0.2, 4: 0.1}}
    >>> choose_bits(drifts, {"a": 10, "b": 10}, budget=60)
    {'a': 4, 'b': 2}
    """
    # Of equal memory only the least drift can be a part of the best choice, and of
    # more memory only a smaller one.
    frontier: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]
    rest = sum(sizes[name] * min(choices) for name, choices in drifts.items())
    for name, choices in drifts.items():
        rest -= sizes[name] * min(choices)
        grown = sorted(
            (memory + sizes[name] * b, drift + choices[b], (*chosen, b))
            for memory, drift, chosen in frontier
            for b in choices
            if memory + sizes[name] * b + rest <= budget
        )
        frontier = []
        for point in grown:
            if not frontier or point[1] < frontier[-1][1]:
                frontier.append(point)
        if len(frontier) > _MOST_CHOICES:
            return _choose_greedily(drifts, sizes, budget)
    return dict(zip(drifts, frontier[-1][2], strict=True))


def _choose_greedily(drifts, sizes, budget):
    chosen = {name: min(choices) for name, choices in drifts.items()}
    left = budget - sum(sizes[name] * b for name, b in chosen.items())
    while True:
        steps = []
        for name, choices in drifts.items():
            for b, drift in choices.items():
                more = sizes[name] * (b - chosen[name])
                if 0 < more <= left:
                    saved = drifts[name][chosen[name]] - drift
                    steps.append((saved / more, name, b))
        saved, name, b = max(steps, default=(0.0, "", 0))
        if saved <= 0:
            return chosen
        left -= sizes[name] * (b - chosen[name])
        chosen[name] = b
