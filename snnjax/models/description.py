"""Descriptions of networks: their choices as JSON values, and networks from them.

Arrays alone do not say how a network computes: its grids, signs, sites, resets and
connections are static. A description holds them, so that a file of weights can be
checked against a network, and a network of this package be rebuilt from its file.
Quantized kernels are described by their codes.
"""

import importlib
import json
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import _pytree, models, neurons, quantize
from snnjax._named_arrays import Arrays, find_choices, find_other_choice, flatten_dict
from snnjax.layers import Hyperparameters, Spiking, inspect
from snnjax.layers.variables import describe_value
from snnjax.models import blocks
from snnjax.quantize import packing

SCHEMA, VERSION = "snnjax.network", 1
# Modes, places, and what changes memory alone: no choices of the network.
_PASSING = {"use_running_average", "deterministic", "axis_name", "architecture"}
_PASSING |= {"remat", "keep", "carried", "mask"}
_NEURONS = (neurons.LIF, neurons.IF, neurons.PLIF, neurons.CubaLIF, neurons.LI)
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in _NEURONS}
_KINDS["QuantSpec"] = quantize.QuantSpec
_NETWORKS = ("SEWResNet", "SpikingVGG", "Sequential")
_NETWORK, _CHOICES, _PACKED = "network", "choices", "packed"
_CODES = ".kernel.codes"


def describe(model: Any, *, packed: bool) -> tuple[dict[str, Any], Arrays]:
    """Return the description of a network or a pytree, and its arrays by name.

    With ``packed`` a quantized kernel of the network is among them by its codes.
    """
    tree = as_tree(model)
    arrays = flatten_dict(tree)
    about: dict[str, Any] = {_CHOICES: find_choices(tree)}
    if isinstance(model, nnx.Module):
        about[_NETWORK] = describe_network(model)
        about |= {_PACKED: _pack(model, arrays)} if packed else {}
    return about, arrays


def restore(about: Mapping[str, Any], arrays: Arrays, like: Any = None) -> Any:
    """Return the network or the pytree that was described, its numbers not set.

    Args:
        about: of `describe`; of a file that has no description, empty.
        arrays: by name; codes are replaced by weights of their levels.
        like: what to check against the description, and to return; None builds it.

    Raises:
        ValueError: codes that cannot be read, nothing to build from, or other choices.
    """
    network = about.get(_NETWORK)
    if about.get(_PACKED):
        _unpack(about, arrays)
    if like is None:
        if network is None:
            raise ValueError(
                "it does not describe its network; build it and give it: "
                "load(path, model)"
            )
        like = build_network(network, arrays)
    if isinstance(like, nnx.Module) and network is not None:
        here = json.loads(json.dumps(describe_network(like)))
        other = find_difference(network, here)
    else:
        here = find_choices(as_tree(like))
        other = find_other_choice(about.get(_CHOICES, {}), here)
    if other:
        raise ValueError(f"it holds another network: {other}")
    return like


def as_tree(model: Any) -> Any:
    """Return the state of a network; a pytree as it is."""
    return nnx.split(model)[1] if isinstance(model, nnx.Module) else model


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


def _pack(model: nnx.Module, arrays: Arrays) -> dict[str, Any]:
    """Replace quantized kernels by their codes; return what unpacking needs of each."""
    about = {}
    for name, layer in inspect.quantizable_layers(model).items():
        kernel = f"{name}.kernel"  # of two layers that share one, the first has it
        if isinstance(layer, Spiking) or kernel not in arrays:
            continue
        if found := layer.pack():
            del arrays[kernel]
            arrays[name + _CODES], about[name] = found
    return about


def _unpack(about: Mapping[str, Any], arrays: Arrays) -> None:
    """Replace codes by weights of their levels."""
    for name, how in about[_PACKED].items():
        try:
            spec = restore_value(f"{name}.quant", about[_NETWORK]["modules"], arrays)
            state: Any = arrays.get(f"{name}.quant_scale")
            if spec.method == "lq_net":
                fields = (f"{name}.quant_state.{x}" for x in quantize.LqState._fields)
                state = quantize.LqState(*(jnp.asarray(arrays[x]) for x in fields))
            codes = arrays.pop(name + _CODES)
            arrays[f"{name}.kernel"] = packing.unpack_kernel(spec, codes, how, state)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"the codes of {name!r} cannot be read ({error!r}); the file is "
                "corrupt: get or export it again"
            ) from None
