"""Guards of training: a loss or gradient that is not finite, a layer that falls silent.

A step leaves a few numbers on the device; the loop reads them with the loss.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from snnjax import _pytree, firing

Tree = TypeVar("Tree")
ON_NONFINITE = ("stop", "skip")
# So many steps skipped in a row end a run that skips: it is not getting anywhere.
MOST_SKIPPED = 100


def check_on_nonfinite(what: Any) -> None:
    """Raise ValueError unless it is one of `ON_NONFINITE`."""
    if not isinstance(what, str) or what not in ON_NONFINITE:
        raise ValueError(f'on_nonfinite must be "stop" or "skip", got {what!r}')


class NonFiniteError(FloatingPointError):
    """A loss or gradient is infinite or NaN, or a network to be evaluated is.

    The backward pass carries a NaN on towards the input. So of all layers whose
    gradients are not finite it began in the one nearest to the output, which the
    message names. A NaN among the weights of a hidden layer shows in the gradients
    alone: no membrane that is NaN reaches its threshold, and the loss stays finite.

    Attributes:
        step: number of the step, from 1.
        loss: of that step.
        layers: names of the parameters that are not finite, or whose gradients are not:
            ``"conv1.kernel"``.
        index: place of the network among those trained side by side.
    """

    # Defaults, so that it can be pickled: from one process to another.
    def __init__(
        self,
        message: str,
        step: int = 0,
        loss: float = math.nan,
        layers: Sequence[str] = (),
        index: int = 0,
    ):
        super().__init__(message)
        self.step = step
        self.loss = loss
        self.layers = tuple(layers)
        self.index = index


def finite(loss: Array, grads: Any) -> Array:
    """Test the loss and each gradient: bool ``[1 + parameters]``."""
    each = [jnp.all(jnp.isfinite(x)) for x in (loss, *jax.tree.leaves(grads))]
    return jnp.stack(each)


def select(accept: Array, new: Tree, old: Tree) -> Tree:
    """Return ``new`` where a step is accepted, else ``old``, bit for bit."""
    return jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, old)


def dead_fractions(
    rates: Mapping[str, Array], observations: int | Array
) -> dict[str, Array]:
    """Return the fraction of each layer's neurons with a rate below `firing.DEAD`.

    Args:
        rates: ``{layer: float32 [neurons...]}``, of a batch.
        observations: T x images of that batch.

    Raises:
        ValueError: no layers.
    """
    if not rates:
        raise ValueError(
            "silent_above watches spiking layers, and this network records none; have "
            "it return {layer: record(spikes)} beside its logits, or leave it out"
        )
    # Halfway between the most spikes of a dead neuron and the fewest of a living one:
    # the same neurons as by exact counts, however float32 rounds.
    if isinstance(observations, int):
        fewest = next(
            n
            for n in range(math.floor(firing.DEAD * observations), observations + 1)
            if n / observations >= firing.DEAD
        )
    else:
        observations = observations.astype(jnp.float32)
        fewest = jnp.ceil(firing.DEAD * observations - 1e-4)
    bound = (fewest - 0.5) / observations
    return {k: jnp.mean(r < bound, dtype=jnp.float32) for k, r in rates.items()}


def check_graded(graded: Mapping[str, bool]) -> None:
    """Raise ValueError where a layer recorded values that are no whole numbers from 0.

    Args:
        graded: ``{layer: flag}``, which only the data can tell.
    """
    if names := [name for name, flag in graded.items() if flag]:
        raise ValueError(
            f"the network records values that are no spikes as {', '.join(names)}; "
            "record what its neurons fire, whole numbers from 0, and leave membranes, "
            "rates and pooled spikes out"
        )


class SilenceMonitor:
    """Finds layers whose dead fraction rises above a bound, from step to step."""

    def __init__(self, above: float | None):
        self.above = above
        self.now: frozenset[str] = frozenset()

    def update(self, dead: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the layers above the bound in this step that were not in the last."""
        if self.above is None:
            return ()
        before, found = self.now, jax.device_get(dict(dead))  # all at once
        self.now = frozenset(k for k, x in found.items() if x > self.above)
        return tuple(k for k in dead if k in self.now - before)


def parameter_names(params: nnx.State) -> tuple[str, ...]:
    """Return dotted names in the order of the leaves: ``"layer1.0.conv1.kernel"``."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return tuple(_pytree.format_path(path) for path, _ in leaves)


def nonfinite_error(
    model: nnx.Module,
    params: nnx.State,
    found: np.ndarray,
    *,
    step: int,
    steps: int | None,
    loss: float,
    skipped: int = 0,
    index: int = 0,
) -> NonFiniteError:
    """Make the error of a step with numbers that are not finite.

    Args:
        model: whose ``synapses()`` give the order of its layers, where it has them.
        params: after the step.
        found: flags of `finite`.
        step: number of the step, from 1.
        steps: of all, or None.
        loss: of that step.
        skipped: steps in a row that were skipped before.
        index: place of the network among those trained side by side.
    """
    # A quantizer may mask the gradient of a NaN, so the parameters are looked at too.
    good = found[1:] & np.array([np.isfinite(x).all() for x in jax.tree.leaves(params)])
    layers = [
        name
        for name, fine in zip(parameter_names(params), good, strict=True)
        if not fine
    ]
    message = f"the loss is {loss} at step {step}"
    if steps is not None:
        message += f" of {steps}"
    if layers:
        message += f" and the gradient is not finite {_origin(model, layers)}"
    if skipped:
        message += f", as in {skipped} steps in a row, all skipped"
    message += (
        "; go back to the last checkpoint, try a lower learning rate, and check "
        "that the network has an output for every class and that the penalty, if there "
        "is one, is finite"
    )
    return NonFiniteError(message, step=step, loss=loss, layers=layers, index=index)


def _origin(model, layers: list[str]) -> str:
    """Name the layer where it began, if the model has the order of its layers."""
    order = [s.name for s in model.synapses()] if hasattr(model, "synapses") else []
    hit = [name for name in order if f"{name}.kernel" in layers]
    if hit:
        return f"from {hit[-1]} on towards the input, so it began there"
    more = f" and {len(layers) - 3} more parameters" if len(layers) > 3 else ""
    return f"in {', '.join(sorted(layers)[:3])}{more}"
