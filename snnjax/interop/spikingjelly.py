"""Weights from and to SpikingJelly's SEW-ResNets, and any networks by a map of names.

Three layouts of names are read: SpikingJelly's own, which are torchvision's; those of
the SEW-ResNet paper's checkpoints (``layer1.0.conv1.module.0.weight``, convolution and
BatchNorm in one container); and the same without ``.module``, as newer SpikingJelly
saves that container. A prefix ``module.`` of data-parallel training is dropped.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax._paths import require_local_path
from snnjax.layers import (
    BatchNorm,
    Dropout,
    Flatten,
    QuantLinear,
    QuantState,
    Spiking,
    inspect,
)
from snnjax.models import Sequential, SEWResNet
from snnjax.models.graph import (
    find_flattened_shapes,
    find_shapes,
    get_module,
    network_graph,
)

# torch's name of a variable's last part; BatchNorm's scale is a weight too.
_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "w": "w",
}
_CONTAINER = re.compile(
    r"(layer\d+\.\d+\.)(conv\d|downsample\.0)\.(?:module\.)?([01])\.(\w+)"
)
_NESTED = ("model", "state_dict", "net")

Model = TypeVar("Model", bound=nnx.Module)


def load(
    model: Model,
    state_dict: Mapping[str, ArrayLike] | str | os.PathLike,
    names: Mapping[str, str] | None = None,
    flattened: Mapping[str, tuple[int, ...]] | None = None,
) -> Model:
    """A copy of ``model`` with SpikingJelly's parameters and running statistics.

    Every tensor is used (``num_batches_tracked`` aside) and every leaf filled, or
    nothing is.

    Args:
        model: a `models.SEWResNet` built like the network the weights are from: depth,
            width, classes, stem, and `neurons.PLIF` for ``ParametricLIFNode``.
            Quantize it afterwards.
        state_dict: names to arrays; or a ``.safetensors`` file (needs the package
            ``safetensors``), or a ``.pth`` or ``.pt`` file (needs ``torch``, which
            reads it with ``weights_only=True``).
        names: for a network of another class: ``{layer of the model: its module in
            SpikingJelly}``, ``{"conv1": "layer.0", "norm1": "layer.1"}``, of each layer
            that has parameters.
        flattened: ``{layer: (height, width, channels)}`` of each layer that sees this
            map flattened, {} where none does: torch flattens channels first, and what
            the layer has for each number of the map is reordered. A `models.Sequential`
            with `layers.Flatten` and the ready-made networks know theirs; of a class of
            your own with linear layers it has to be given.

    Returns:
        The copy, its leaves in the dtypes they had, in evaluation mode.

    Raises:
        ValueError: names or shapes that do not belong together, all of them listed;
            maps that are flattened and not given; NaN, infinity, negative variances;
            quantizers that are learned or fitted to weights; another network; a file of
            another kind.
        ImportError: the package that reads the file is missing.

    Source: SpikingJelly 2.0's ``activation_based.model.sew_resnet``.
    """
    inspect.check_model(model)
    given = _canonical(_read(state_dict))
    copy = nnx.clone(model)
    copy.eval()
    leaves = _leaves(copy, names)
    orders = _find_orders(copy, names, flattened)
    _check_names(leaves, given)
    values, wrong = {}, []
    for key, variable in leaves.items():
        array, leaf = given[key], variable.get_value()
        value = array.reshape(()) if leaf.ndim == 0 and array.size == 1 else array
        value = _from_torch(value, orders.get(key))
        if value.shape != leaf.shape:
            expected = _to_torch(np.asarray(leaf)).shape
            wrong.append(f"{key} is {array.shape}, expected {expected}")
            if (
                key == "conv1.weight"
                and array.ndim == 4
                and array.shape[2:] != expected[2:]
            ):
                stem = "imagenet" if array.shape[2:] == (7, 7) else "cifar"
                wrong[-1] += f" (make the model with stem={stem!r}?)"
        with np.errstate(over="ignore"):
            # Not asarray, which may share the memory of what the caller trains on.
            values[key] = cast = jnp.array(value, leaf.dtype)
        if not np.isfinite(value).all():
            wrong.append(f"{key} has NaN or infinite values")
        elif not jnp.isfinite(cast).all():
            wrong.append(f"{key} has values beyond the model's {leaf.dtype}")
        elif key.endswith("running_var") and value.min() < 0:
            wrong.append(f"{key} has negative values")
    if wrong:
        raise ValueError("the state_dict does not fit the model: " + "; ".join(wrong))
    for key, variable in leaves.items():
        variable.set_value(values[key])
    return copy


def save(
    model: nnx.Module,
    names: Mapping[str, str] | None = None,
    flattened: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, np.ndarray]:
    """Return parameters and statistics under SpikingJelly's names, in its layouts.

    The quantizers are left behind: these are the weights before them.

    Args:
        model: a `models.SEWResNet`, or with ``names`` any network.
        names: as of `load`.
        flattened: as of `load`.

    Returns:
        ``{name: array}``, for ``torch.from_numpy`` and ``load_state_dict``, or
        ``safetensors.numpy.save_file``; bfloat16 parameters as float32.

    Raises:
        ValueError: another network without ``names``; names that lack a layer; maps
            that are flattened and not given.
    """
    leaves = _leaves(model, names, quantized=True)
    orders = _find_orders(model, names, flattened)
    return {
        key: _to_torch(np.asarray(v.get_value()), orders.get(key))
        for key, v in leaves.items()
    }


_LEARNED = ("tau", "tau_syn", "v_threshold", "v_reset", "alpha", "v_min")


def _find_orders(
    model: Any, names: Mapping[str, str] | None, flattened: Any
) -> dict[str, np.ndarray]:
    """Return the places in torch's order of what layers have for each number of a map.

    By torch's names of their arrays, of layers that see a map flattened.
    """
    if names is None:
        return {}
    if flattened is None:
        shapes = _find_flattened(model)
    else:
        shapes = _check_flattened(model, flattened)
    orders = {}
    for name, (*sizes, channels) in shapes.items():
        places = np.arange(np.prod(sizes) * channels).reshape(channels, *sizes)
        order = np.moveaxis(places, 0, -1).ravel()
        is_norm = isinstance(get_module(model, name), BatchNorm)
        for last in set(_NAMES.values()) if is_norm else ("weight",):
            orders[f"{names.get(name)}.{last}"] = order
    return orders


def _find_flattened(model: Any) -> dict[str, tuple[int, ...]]:
    """Map the layers that see a map flattened to the map's shape."""
    if isinstance(model, Sequential):
        return _follow_flatten(model)
    try:
        nodes = network_graph(model)
    except ValueError:
        if any(isinstance(m, QuantLinear) for _, m in nnx.iter_modules(model)):
            raise ValueError(
                "torch flattens channels first, and which layers of a network of "
                f"class {type(model).__name__} see a flattened map is not known; give "
                "flattened={layer: (height, width, channels)}, {} where none does"
            ) from None
        return {}
    return find_flattened_shapes(nodes, find_shapes(model))


def _follow_flatten(model: Sequential) -> dict[str, tuple[int, ...]]:
    shapes, shape = model.shapes(), model.in_shape
    found, flat = {}, None
    for name, layer in model.layers().items():
        if isinstance(layer, Flatten) and len(shape) > 1:
            flat = shape
        elif flat and isinstance(layer, BatchNorm | QuantLinear):
            found[name] = flat
            flat = flat if isinstance(layer, BatchNorm) else None
        elif flat and not isinstance(layer, Dropout | Spiking):
            raise ValueError(
                f"{name}, a {type(layer).__name__}, sees a flattened map, which torch "
                "flattens channels first; put a QuantLinear in front of it"
            )
        shape = shapes[name]
    return found


def _check_flattened(model: Any, flattened: Any) -> dict[str, tuple[int, ...]]:
    layers = {
        ".".join(map(str, path)): layer
        for path, layer in nnx.iter_modules(model)
        if isinstance(layer, QuantLinear | BatchNorm)
    }
    if not isinstance(flattened, Mapping) or not set(flattened) <= set(layers):
        raise ValueError(
            "flattened must be {layer: (height, width, channels)} of linear layers or "
            f"BatchNorms, of {', '.join(layers)}, got {flattened!r}"
        )
    for name, shape in flattened.items():
        layer: Any = layers[name]
        is_norm = isinstance(layer, BatchNorm)
        size = (layer.scale if is_norm else layer.kernel).shape[0]
        if np.prod(shape) != size:
            raise ValueError(
                f"flattened has a map {tuple(shape)} of {name}, which sees {size} "
                "numbers"
            )
    return {name: tuple(map(int, shape)) for name, shape in flattened.items()}


def _leaves(
    model: nnx.Module, names: Mapping[str, str] | None, quantized: bool = False
) -> dict[str, nnx.Variable]:
    """Every parameter and running statistic by torch's name."""
    if names is None and not isinstance(model, SEWResNet):
        raise ValueError(
            f"model must be a models.SEWResNet, got {type(model)}; of another network "
            "give names, {layer: its module in SpikingJelly}"
        )
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    learned = bool(nnx.state(model, QuantState)) or any(
        layer.spec is not None and layer.spec.per_channel
        for layer in inspect.layer_bits(model)
    )
    leaves, missing, used = {}, [], set()
    for path, _ in nnx.to_flat_state(state):
        *where, last = path
        if last in _NAMES:
            layer = ".".join(map(str, where))
            used.add(layer)
            there = layer if names is None else names.get(layer)
            if there is None:
                missing.append(layer)
            else:
                leaves[f"{there}.{_NAMES[str(last)]}"] = _variable(model, path)
        elif last in _LEARNED:
            raise ValueError(
                f"SpikingJelly's neurons learn no {last}; make the model without learn"
            )
        else:
            learned = True
    if names is not None and (unknown := sorted(set(names) - used)):
        raise ValueError(f"names has {unknown}, which are no layers with parameters")
    if missing:
        raise ValueError(f"names lacks the layers {sorted(set(missing))}")
    if names is not None and len(set(names.values())) < len(names):
        raise ValueError(f"names gives two layers one module, got {dict(names)}")
    if learned and not quantized:
        raise ValueError(
            "the model has learned quantizers or some that are fitted to its weights; "
            "load into the full-precision model and quantize that"
        )
    return leaves


def _variable(model: nnx.Module, path: tuple[Any, ...]) -> nnx.Variable:
    node: Any = model
    for part in path:
        node = node[part] if isinstance(part, int) else getattr(node, part)
    return node


def _from_torch(array: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    if order is not None and array.shape[-1:] == order.shape:
        array = array[..., order]
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)  # OIHW to HWIO
    return array.T


def _to_torch(array: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    if array.dtype == jnp.bfloat16:
        array = array.astype(np.float32)  # torch.from_numpy takes NumPy's dtypes alone
    turned = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    if order is not None:
        turned = turned[..., np.argsort(order)]
    return np.array(turned, order="C")  # torch may write to it, to JAX's nobody may


def _read(source: Mapping[str, ArrayLike] | str | os.PathLike) -> dict[str, Any]:
    if isinstance(source, Mapping):
        return dict(_find_state(source))
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(
            "state_dict must be names to arrays, or a .safetensors, .pth or .pt file, "
            f"got {_checks.format_value(source)}"
        )
    path = require_local_path("state_dict", source)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ValueError(f"state_dict must be a file that is there, no file {path}")
        import safetensors.numpy

        try:
            return safetensors.numpy.load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(
                f"{path} is no safetensors file, or a damaged one ({error})"
            ) from None
    if path.suffix not in (".pth", ".pt"):
        raise ValueError(
            f"expected a .safetensors, .pth or .pt file or a dict of arrays, got {path}"
        )
    try:
        import torch  # pyrefly: ignore[missing-import]
    except ImportError:
        raise ImportError(
            f"reading {path} needs torch (pip install torch); or save the state_dict "
            "as .safetensors where torch is, and load that"
        ) from None
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path} holds no state_dict but a {type(loaded).__name__}")
    loaded = _find_state(loaded)
    tensors = {k: v for k, v in loaded.items() if isinstance(v, torch.Tensor)}
    # numpy has no bfloat16.
    half = torch.bfloat16
    return {
        k: (t.float() if t.dtype == half else t).numpy() for k, t in tensors.items()
    }


def _find_state(loaded: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state_dict that a checkpoint holds beside an epoch and such."""
    for name in _NESTED:
        if isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    return loaded


def _canonical(tensors: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """The tensors under SpikingJelly's own names."""
    found = {}
    for key, value in tensors.items():
        if not isinstance(key, str):
            raise ValueError(f"the state_dict's names must be strings, got {key!r}")
        name = key.removeprefix("module.")
        if name.endswith("num_batches_tracked"):
            continue
        match = _CONTAINER.fullmatch(name)
        if match:
            block, container, index, last = match.groups()
            if container == "downsample.0":
                name = f"{block}downsample.{index}.{last}"
            else:
                kind = "conv" if index == "0" else "bn"
                name = f"{block}{kind}{container[-1]}.{last}"
        if name in found:
            raise ValueError(f"the state_dict has {name} twice, the second as {key}")
        found[name] = np.asarray(_checks.require_real(name, value))
    return found


def _check_names(leaves: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    missing, unused = sorted(leaves.keys() - given), sorted(given.keys() - leaves)
    if not (missing or unused):
        return
    parts = [f"missing {missing}"] * bool(missing) + [f"unused {unused}"] * bool(unused)
    if any(key.endswith(".w") for key in unused):
        parts.append("its neurons are ParametricLIFNode: give the model neurons.PLIF()")
    elif any(key.endswith(".w") for key in missing):
        parts.append("its neurons learn no tau: give the model neurons.LIF()")
    raise ValueError("the state_dict does not fit the model: " + "; ".join(parts))
