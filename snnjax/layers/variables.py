"""The kinds of variables that layers hold beside flax's, and their checks."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax.quantize import QuantSpec


class Hyperparameter(nnx.Variable):
    """Variable for the numbers of a neuron or a quantizer: traced, not trained."""


class LearnedScale(nnx.Param):
    """Scale of LSQ or MINT: positive, see `project_scales`."""


class QuantState(nnx.Variable):
    """State that training updates beside the gradient.

    LQ-Net's basis, or the seed and the count of stochastic rounding.
    """


def project_scales(old: Any, new: Any) -> Any:
    """Return the new parameters, with scales that the step left positive.

    Where a `LearnedScale` is not positive after an optimizer's step, it is half of the
    old one: the gradient is the published one, and only such a step is cut. The
    training step of `train` calls it; a loop of your own does after the update.

    Args:
        old: parameters before the step, as ``nnx.state(model, nnx.Param)``.
        new: after it.
    """

    def project(old, new):
        if not isinstance(new, LearnedScale):
            return new
        scale, first = new.get_value(), old.get_value()
        return new.replace(jnp.where(scale > 0, scale, first / 2))

    is_leaf = lambda x: isinstance(x, nnx.Variable)  # noqa: E731
    return jax.tree.map(project, old, new, is_leaf=is_leaf)


def is_training(module: Any, train: bool | None) -> bool:
    """Return ``train``, or where it is None the mode that the module is in."""
    return not module.use_running_average if train is None else train


def value_of(variable: nnx.Variable | None) -> Array | None:
    """Return its value, or None where there is no variable."""
    return None if variable is None else variable.get_value()


def check_features(x: ArrayLike, axes: str, channels: int) -> Array:
    """Return x as an array; raise ValueError where it would broadcast silently."""
    x = _checks.as_array("x", x)
    rank = len(axes.split())
    if x.ndim < rank or x.shape[-1] != channels:
        raise ValueError(f"x must be [..., {axes}] with C = {channels}, got {x.shape}")
    return _checks.require_floating("x", x)


def check_sizes(**sizes: int) -> None:
    """Raise ValueError where one is below 1."""
    for name, size in sizes.items():
        _checks.require_whole(name, size, 1)


def check_spec(spec: QuantSpec | None) -> None:
    """Raise ValueError unless it is a quantizer or none."""
    if spec is not None and not isinstance(spec, QuantSpec):
        raise ValueError(f"quant must be a QuantSpec, got {_checks.format_value(spec)}")


def check_rngs(rngs: nnx.Rngs) -> None:
    """Raise ValueError unless keys can be drawn from it."""
    if not isinstance(rngs, nnx.Rngs):
        got = _checks.format_value(rngs)
        raise ValueError(f"rngs must be keys to draw from, nnx.Rngs(0), got {got}")
