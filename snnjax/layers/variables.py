"""The kinds of variables that layers hold beside flax's, and their checks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks, _pytree
from snnjax.quantize import QuantSpec


class Hyperparameter(nnx.Variable):
    """Variable for the numbers of a neuron or a quantizer: traced, not trained."""


class Hyperparameters(nnx.Module):
    """A neuron or a quantizer, its numbers as variables and its choices static.

    Each number is a variable of its own, as Flax's ways of saving expect. The variables
    carry the choices as metadata, so that a state without its graph has them too.

    Args:
        value: a registered dataclass, such as `neurons.LIF` or `quantize.QuantSpec`.
        metadata: further choices that belong to it.
    """

    def __init__(self, value: Any, **metadata: Any):
        self.kind = type(value)
        self.choices = tuple(_pytree.static_fields(value).items())
        static = _pytree.described_fields(self.kind, dict(self.choices))
        described = {name: describe_value(x) for name, x in static.items()} | metadata
        described = str({"kind": self.kind.__name__} | described)
        for name in _pytree.data_fields(self.kind):
            x = getattr(value, name)
            x = np.float32(x) if type(x) in (int, float) else x
            variable = None if x is None else Hyperparameter(x, choices=described)
            setattr(self, name, nnx.data(variable))

    def get_value(self) -> Any:
        """Return the dataclass."""
        numbers = {
            n: value_of(getattr(self, n)) for n in _pytree.data_fields(self.kind)
        }
        return _pytree.build(self.kind, numbers | dict(self.choices))


class LearnedScale(nnx.Param):
    """Learned number above ``least``, see `project_scales`.

    A scale of LSQ or MINT, a threshold, the slope of a surrogate: positive.
    """

    least: Any = 0.0


class LearnedGrid(LearnedScale):
    """Learned step of LSQ, positive, and its zero point, any: ``[2, C or 1]``."""

    least = np.array([[0.0], [-np.inf]], np.float32)


class LearnedTau(LearnedScale):
    """Learned time constant in steps: above 1."""

    least = 1.0


class QuantState(nnx.Variable):
    """State that training updates beside the gradient.

    LQ-Net's basis, or the seed and the count of stochastic rounding.
    """


def project_scales(old: Any, new: Any) -> Any:
    """Return the new parameters, with scales that the step left above their bound.

    Where a `LearnedScale` is not positive after an optimizer's step, it is half of the
    old one (a `LearnedTau` halfway from the old one to 1): the gradient is the
    published one, and only such a step is cut. The training step of `train` calls it; a
    loop of your own does after the update.

    Args:
        old: parameters before the step, as ``nnx.state(model, nnx.Param)``.
        new: after it.
    """

    def project(old, new):
        if not isinstance(new, LearnedScale):
            return new
        scale, first = new.get_value(), old.get_value()
        if not hasattr(scale, "dtype"):  # optax masks what another part trains
            return new
        least = type(new).least
        return new.replace(jnp.where(scale > least, scale, (first + least) / 2))

    is_leaf = lambda x: isinstance(x, nnx.Variable)  # noqa: E731
    return jax.tree.map(project, old, new, is_leaf=is_leaf)


def is_training(module: Any, train: bool | None) -> bool:
    """Return ``train``, or where it is None the mode that the module is in."""
    return not module.use_running_average if train is None else train


def value_of(variable: nnx.Variable | None) -> Any:
    """Return its value, or None where there is no variable."""
    return None if variable is None else variable.get_value()


def describe_value(x: Any) -> Any:
    """Return a choice as a JSON value; functions and types by their names."""
    if x is None or isinstance(x, bool | int | float | str):
        return x
    if isinstance(x, tuple | list):
        return [describe_value(part) for part in x]
    is_scalar_type = isinstance(x, type) and issubclass(x, np.generic)
    if isinstance(x, np.dtype) or is_scalar_type or hasattr(x, "dtype"):
        return jnp.dtype(x).name
    if callable(x) and hasattr(x, "__qualname__"):
        return f"{x.__module__}.{x.__qualname__}"
    return repr(x)


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
