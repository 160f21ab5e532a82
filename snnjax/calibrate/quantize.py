"""Post-training quantization: put quantizers on a trained network."""

import re
from collections.abc import Mapping
from typing import TypeVar

from flax import nnx

from snnjax import _checks
from snnjax.layers import Spiking
from snnjax.layers.inspect import check_model, quantizable_layers
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
    LQ-Net's bases are fitted to the weights as they are.

    Args:
        model: any NNX model of `layers`.
        rules: ``{pattern: QuantSpec}``; of several that match, the last wins.
        membrane_site: where membranes are quantized, see `neurons.lif`.

    Returns:
        The quantized copy, in evaluation mode; ``model`` stays as it was.

    Raises:
        ValueError: a pattern matches no layer, or is no regular expression; a rule
            that is no QuantSpec; an unknown site.

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
    names = quantizable_layers(copy)
    for pattern, spec in rules.items():
        if not isinstance(spec, QuantSpec):
            raise ValueError(f"the rule {pattern!r} must be a QuantSpec, got {spec!r}")
        if not isinstance(pattern, str):
            raise ValueError(f"a pattern must be a string, got {pattern!r}")
        try:
            matching = [name for name in names if re.fullmatch(pattern, name)]
        except re.error as error:
            raise ValueError(
                f"the pattern {pattern!r} is not a regular expression: {error}"
            ) from None
        if not matching:
            raise ValueError(
                f"the rule {pattern!r} matches no layer; a pattern must match the "
                f"whole of one of these names: {', '.join(names)}"
            )
        for name in matching:
            layer = names[name]
            if isinstance(layer, Spiking):
                layer.quantize(spec, site=membrane_site)
            else:
                layer.quantize(spec)
    return copy
