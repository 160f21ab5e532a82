"""Attribution of drift: how much of it each quantized layer makes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import firing
from snnjax.firing import FiringReport

if TYPE_CHECKING:
    from flax import nnx

    from snnjax.data import Dataset


class Contribution(NamedTuple):
    """Drift that one quantized layer makes.

    Attributes:
        alone: drift where this layer alone is quantized.
        all_but: drift where all layers but this are.
    """

    alone: FiringReport
    all_but: FiringReport


class Attribution(NamedTuple):
    """Drift of a quantized network, by the layers that make it.

    Attributes:
        accumulated: drift of the whole quantized network.
        contributions: ``{layer: Contribution}``, of the layers that differ.
    """

    accumulated: FiringReport
    contributions: Mapping[str, Contribution]

    @property
    def isolated(self) -> dict[str, float]:
        """Drift that each layer makes alone, largest first.

        The largest paired shift of a spiking layer: a mean over layers would blame the
        early ones, whose drift the later ones inherit, and an EMD does not see neurons
        that change places.
        """
        return _rank(
            {
                name: max(one.alone.paired_shift.values())
                for name, one in self.contributions.items()
            }
        )

    @property
    def recovered(self) -> dict[str, float]:
        """Drift that goes away where one layer is taken back, largest first.

        The largest decrease of a spiking layer's paired shift.
        """
        whole = self.accumulated.paired_shift
        return _rank(
            {
                name: max(
                    whole[layer] - shift
                    for layer, shift in one.all_but.paired_shift.items()
                )
                for name, one in self.contributions.items()
            }
        )


def _rank(drifts: dict[str, float]) -> dict[str, float]:
    return dict(sorted(drifts.items(), key=lambda pair: -pair[1]))


def attribute(
    model: "nnx.Module",
    quantized: "nnx.Module",
    dataset: "Dataset",
    *,
    timesteps: int = 4,
    batch_size: int = 128,
) -> Attribution:
    """Measure the drift that each layer makes: alone, and all but that one.

    Layers that take a quantizer and differ between the two networks change places, with
    their weights, quantizers, and the BatchNorm behind them. A layer that feeds no
    spikes, as the last one, makes no drift of firing.

    Args:
        model: the full-precision network.
        quantized: the same network with some layers quantized, trained on or damaged.
        dataset: images to fire on.
        timesteps: T.
        batch_size: images at a time.

    Returns:
        `Attribution`; ``next(iter(found.isolated))`` is the layer that makes most.

    Raises:
        ValueError: networks of different layers, or that do not differ.
    """
    ours, theirs = (
        _find_units(each, dataset, timesteps) for each in (model, quantized)
    )
    if set(ours) != set(theirs):
        raise ValueError(
            "both networks must have the same layers; only in one of them: "
            f"{sorted(set(ours) ^ set(theirs))}"
        )
    units = [name for name in ours if _unit_differs(model, quantized, ours[name])]
    if not units:
        raise ValueError("quantized must differ from model in some layer, got none")
    reference = _count(model, dataset, timesteps, batch_size)

    def drift(network: "nnx.Module") -> FiringReport:
        counts = _count(network, dataset, timesteps, batch_size)
        return firing.report(reference, counts)

    contributions = {
        name: Contribution(
            drift(_exchange(model, quantized, ours[name])),
            drift(_exchange(quantized, model, ours[name])),
        )
        for name in units
    }
    return Attribution(drift(quantized), contributions)


def _count(network, dataset, timesteps: int, batch_size: int) -> firing.FiringCounts:
    from snnjax import train

    return train.evaluate(
        network, dataset, timesteps=timesteps, batch_size=batch_size
    ).counts


def _find_units(
    model: "nnx.Module", dataset: "Dataset", timesteps: int
) -> dict[str, list[str]]:
    """Return each layer that takes a quantizer, with the BatchNorm that runs behind it.

    A BatchNorm without a convolution or linear layer right in front is by itself.
    """
    from flax import nnx

    from snnjax.calibrate.layerwise import list_calls
    from snnjax.data import as_batches
    from snnjax.layers import BatchNorm, QuantConv, QuantLinear
    from snnjax.layers.inspect import quantizable_layers
    from snnjax.train.checks import batch_shape

    units = {name: [name] for name in quantizable_layers(model)}
    modules = {".".join(map(str, path)): x for path, x in nnx.iter_modules(model)}
    left = [name for name, module in modules.items() if isinstance(module, BatchNorm)]
    if not left:
        return units
    batches: Any = as_batches(dataset)
    example = batches if hasattr(batches, "images") else next(iter(batches))
    owner = None
    shape = batch_shape(example, 1)
    images = jnp.zeros(shape.shape, shape.dtype)
    for name in list_calls(model, images, timesteps):
        if isinstance(modules[name], QuantConv | QuantLinear):
            owner = name
        elif name in left:
            left.remove(name)
            units.setdefault(owner or name, []).append(name)
        else:
            owner = None
    return units | {name: [name] for name in left}  # which do not run


def _follow(node: Any, path: list[str]) -> Any:
    for part in path:
        node = node[int(part)] if part.isdigit() else getattr(node, part)
    return node


def _unit_differs(model: "nnx.Module", other: "nnx.Module", names: list[str]) -> bool:
    pairs = (
        (_follow(net, name.split(".")) for net in (model, other)) for name in names
    )
    return any(_differ(*pair) for pair in pairs)


def _differ(one: "nnx.Module", other: "nnx.Module") -> bool:
    from flax import nnx

    (graph, state), (graph2, state2) = nnx.split(one), nnx.split(other)
    leaves, leaves2 = jax.tree.leaves(state), jax.tree.leaves(state2)
    if graph != graph2 or len(leaves) != len(leaves2):
        return True
    return not all(map(np.array_equal, leaves, leaves2))


def _exchange(
    model: "nnx.Module", donor: "nnx.Module", names: list[str]
) -> "nnx.Module":
    """Return a copy of a network with some modules of another."""
    from flax import nnx

    copy, donor = nnx.clone(model), nnx.clone(donor)
    copy.eval()
    donor.eval()
    for name in names:
        *path, last = name.split(".")
        parent, module = _follow(copy, path), _follow(donor, name.split("."))
        if last.isdigit():
            parent[int(last)] = module
        else:
            setattr(parent, last, module)
    return copy
