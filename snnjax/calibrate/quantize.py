"""Post-training quantization: put quantizers on a trained network."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from flax import nnx

from snnjax import _checks
from snnjax.layers import Spiking
from snnjax.layers.inspect import all_names, check_model, quantizable_layers
from snnjax.neurons.step import check_site
from snnjax.quantize import QuantSpec

Model = TypeVar("Model", bound=nnx.Module)


def quantize(
    model: Model,
    rules: Mapping[str, QuantSpec],
    *,
    membrane_site: str = "post_reset",
) -> Model:
    r"""A copy of ``model`` with quantizers on the layers that ``rules`` name.

    A rule's pattern is a regular expression for the whole dotted name; a spec on a
    convolution or linear layer quantizes its kernel, on a spiking layer its membrane.
    LQ-Net's bases are fitted to the weights as they are. A layer that the network holds
    under two names is reached by either. Layers that share a kernel are quantized
    alike: a rule for one of them is for all. Warns as the layers' ``quantize`` where
    weights are pruned and the levels have no zero.

    Args:
        model: any NNX model of `layers`.
        rules: ``{pattern: QuantSpec}``; of several that match, the last wins.
        membrane_site: where membranes are quantized, see `neurons.lif`.

    Returns:
        The quantized copy, in evaluation mode; ``model`` stays as it was.

    Raises:
        ValueError: a pattern matches no layer, or is no regular expression; a rule
            that is no QuantSpec; an unknown site; different rules for layers that
            share a kernel; a model that has none of these layers.

    Example: ``quantize(model, {r"layer.*\.conv\d": QuantSpec(bits=4, clip=1.0)})``
    """
    check_site("membrane_site", membrane_site)
    check_model(model)
    if not isinstance(rules, Mapping):
        raise ValueError(
            f"rules must be {{pattern: QuantSpec}}, got {_checks.format_value(rules)}"
        )
    copy = nnx.clone(model)
    copy.eval()
    layers, names = quantizable_layers(copy), all_names(copy)
    if not layers:
        raise ValueError(
            "model has no layer that takes a quantizer; build it of snnjax.layers: "
            "QuantConv, QuantLinear and Spiking in place of nnx.Conv, nnx.Linear and a "
            "neuron"
        )
    chosen: dict[str, QuantSpec] = {}
    for pattern, spec in rules.items():
        if not isinstance(spec, QuantSpec):
            raise ValueError(f"the rule {pattern!r} must be a QuantSpec, got {spec!r}")
        if not isinstance(pattern, str):
            raise ValueError(f"a pattern must be a string, got {pattern!r}")
        try:
            matching = [
                first for name, first in names.items() if re.fullmatch(pattern, name)
            ]
        except re.error as error:
            raise ValueError(
                f"the pattern {pattern!r} is not a regular expression: {error}"
            ) from None
        if not matching:
            raise ValueError(
                f"the rule {pattern!r} matches no layer; a pattern must match the "
                f"whole of one of these names: {', '.join(names)} (layers of "
                "snnjax.layers; flax's own take no quantizer)"
            )
        chosen |= dict.fromkeys(matching, spec)
    for name, spec in chosen.items():
        layer = layers[name]
        if isinstance(layer, Spiking):
            layer.quantize(spec, site=membrane_site)
        else:
            layer.quantize(spec, name=name)
    _quantize_tied(layers, chosen)
    return copy


def _quantize_tied(layers: Mapping[str, Any], chosen: Mapping[str, QuantSpec]) -> None:
    """Give layers that share a kernel one quantizer, with one learned scale."""
    groups: dict[int, list[str]] = {}
    for name, layer in layers.items():
        if not isinstance(layer, Spiking):
            groups.setdefault(id(layer.kernel), []).append(name)
    for names in groups.values():
        ruled = [name for name in names if name in chosen]
        if len(names) == 1 or not ruled:
            continue
        first = ruled[0]
        for name in ruled[1:]:
            if chosen[name] != chosen[first]:
                raise ValueError(
                    f"{first!r} and {name!r} share one kernel, and their rules differ: "
                    f"{chosen[first]} and {chosen[name]}; give them one rule"
                )
        for name in names:
            if name != first:
                layers[name].share_quantizer(layers[first])
