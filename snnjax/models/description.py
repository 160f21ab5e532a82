"""Descriptions of networks: their choices as JSON values, and networks from them.

Arrays alone do not say how a network computes: its grids, signs, sites, resets and
connections are static. A description holds them, so that a file of weights can be
checked against a network, and a network of this package be rebuilt from its file.
"""

import importlib
import json
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import _pytree, models, neurons, quantize
from snnjax.layers import Hyperparameters, Spiking
from snnjax.layers.variables import describe_value
from snnjax.models import blocks

SCHEMA, VERSION = "snnjax.network", 1
# Modes, places, and what changes memory alone: no choices of the network.
_PASSING = {"use_running_average", "deterministic", "axis_name", "architecture"}
_PASSING |= {"remat", "keep", "carried", "mask"}
_NEURONS = (neurons.LIF, neurons.IF, neurons.PLIF, neurons.CubaLIF, neurons.LI)
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in _NEURONS}
_KINDS["QuantSpec"] = quantize.QuantSpec
_NETWORKS = ("SEWResNet", "SpikingVGG", "Sequential")


def describe_network(model: nnx.Module) -> dict[str, Any]:
    """Describe a network of any class by the static attributes of its modules.

    Returns:
        ``{"schema", "version", "class", "architecture", "modules"}``: the arguments of
        the constructor, for networks of `snnjax.models`, and for each module by its
        dotted name what is static in it. JSON values.
    """
    architecture = getattr(model, "architecture", None)
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "architecture": None if architecture is None else json.loads(architecture),
        "modules": {
            ".".join(map(str, path)): _describe_module(module)
            for path, module in nnx.iter_modules(model)
        },
    }


def _describe_module(module: nnx.Module) -> dict[str, Any]:
    if isinstance(module, Hyperparameters):
        static = _pytree.described_fields(module.kind, dict(module.choices))
        choices = {name: describe_value(x) for name, x in static.items()}
        return {"kind": module.kind.__name__} | choices
    described = {"class": type(module).__qualname__}
    for name, value in vars(module).items():
        nodes = (nnx.Variable, nnx.Pytree, jnp.ndarray, np.ndarray)
        if name.startswith("_") or name in _PASSING or isinstance(value, nodes):
            continue
        described[name] = describe_value(value)
    return described


def find_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """Name the first choice in which two descriptions differ; None if there is none."""
    one, other = there["modules"], here["modules"]
    for name in sorted(one.keys() | other.keys()):
        place = name or "the network"
        if name not in one or name not in other:
            return f"{place} is {'there' if name in one else 'here'} only"
        for choice in sorted(one[name].keys() | other[name].keys()):
            a, b = one[name].get(choice), other[name].get(choice)
            if a != b:
                return f"{choice} of {place} is {a!r} there and {b!r} here"
    return None


def build_network(
    description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> nnx.Module:
    """Build a network of `snnjax.models` as described; its arrays are shapes.

    Args:
        description: of `describe_network`.
        arrays: the file's, by name; the numbers of neurons and quantizers decide shapes
            of the network.

    Raises:
        ValueError: another schema or a newer version, a class of another package, or a
            surrogate of one's own.
    """
    if description.get("schema") != SCHEMA or description.get("version") != VERSION:
        found = f"{description.get('schema')} {description.get('version')}"
        raise ValueError(
            f"the description is of schema {found}, expected {SCHEMA} {VERSION}; a "
            "newer snnjax wrote it"
        )
    package, _, name = description["class"].rpartition(".")
    arguments = description["architecture"]
    if arguments is None or name not in _NETWORKS or package.split(".")[0] != "snnjax":
        raise ValueError(
            f"the network is a {description['class']}, which snnjax cannot build; "
            "build it and give it as model"
        )
    arguments = {name: _as_tuples(x) for name, x in arguments.items()}
    if "block" in arguments:
        arguments["block"] = getattr(blocks, arguments["block"])
    cls = getattr(models, name)
    make = getattr(cls, "from_architecture", cls)
    modules = description["modules"]

    def build():
        model = make(**arguments, rngs=nnx.Rngs(0))
        for path, module in list(nnx.iter_modules(model)):
            _restore_choices(module, ".".join(map(str, path)), modules, arrays)
        return model

    model = nnx.eval_shape(build)
    model.eval()
    return model


def _as_tuples(x: Any) -> Any:
    """Return the tuples that JSON made lists."""
    return tuple(map(_as_tuples, x)) if isinstance(x, list) else x


def _restore_choices(module, name, described, arrays) -> None:
    """Put a file's neuron and quantizer into a layer of a new network."""
    site = {}
    if isinstance(module, Spiking):
        module.neuron = Hyperparameters(
            restore_value(f"{name}.neuron", described, arrays)
        )
        for number in _pytree.data_fields(module.neuron.kind):
            if f"{name}.{number}" in arrays:
                module.learn(number, arrays[f"{name}.{number}"])
        site = {"site": described[name]["site"]}
    if hasattr(module, "quant"):
        quant = f"{name}.quant"
        spec = restore_value(quant, described, arrays) if quant in described else None
        module.quantize(spec, **site)


def restore_value(
    name: str, described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> Any:
    """Return the neuron or the quantizer of this dotted name, its numbers NumPy's."""
    choices = dict(described[name])
    kind = _KINDS.get(named := choices.pop("kind"))
    if kind is None:
        raise ValueError(
            f"the network has a neuron of its own, {named}, which a file cannot hold; "
            "build the network and give it as model"
        )
    choices = {key: _restore_choice(_as_tuples(x)) for key, x in choices.items()}
    numbers = {
        field: arrays.get(f"{name}.{field}") for field in _pytree.data_fields(kind)
    }
    return _pytree.build(kind, numbers | choices)


def _restore_choice(x: Any) -> Any:
    """Return the function of snnjax that a dotted name stands for; others unchanged."""
    if not isinstance(x, str) or ("." not in x and not x.startswith("<")):
        return x
    module, _, name = x.rpartition(".")
    if module == "snnjax.surrogate":
        return getattr(importlib.import_module(module), name)
    raise ValueError(
        f"the network has a surrogate of its own, {x}, which a file cannot hold; build "
        "the network and give it as model"
    )
