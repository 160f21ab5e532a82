"""A loss as a value: a function of two recordings with its numbers."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from snnjax import _checks


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["numbers"],
    meta_fields=["function", "options", "schedules"],
)
@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss with its numbers: ``loss(student, teacher)``, a pytree of the numbers.

    Attributes:
        function: of this package, or any of two recordings.
        numbers: traced keyword arguments.
        options: static ones, pairs of name and value.
        schedules: numbers by the step of training, pairs of name and function.
    """

    function: Callable[..., Array]
    numbers: Mapping[str, Any]
    options: tuple[tuple[str, Any], ...] = ()
    schedules: tuple[tuple[str, Callable[[Any], Any]], ...] = ()

    def __call__(self, student: Any, teacher: Any = None, step: Any = None) -> Array:
        """Return the distance of two recordings, at a step of training.

        ``teacher`` is None for losses that need none.

        Raises:
            ValueError: a number is a schedule, and no step is given.
        """
        if self.schedules and step is None:
            names = ", ".join(name for name, _ in self.schedules)
            raise ValueError(
                f"step must be given: {names} of the loss is a schedule; call "
                "loss(student, teacher, step)"
            )
        numbers = {name: schedule(step) for name, schedule in self.schedules}
        numbers |= dict(self.numbers)
        return self.function(student, teacher, **numbers, **dict(self.options))

    @property
    def needs_membranes(self) -> bool:
        """Return True if the function reads membranes."""
        return getattr(self.function, "needs_membranes", False)

    @property
    def takes_mask(self) -> bool:
        """Return True if the function leaves out what is behind a sequence's end."""
        return hasattr(self.function, "bind") or getattr(
            self.function, "takes_mask", False
        )

    def __add__(self, other: Any) -> "LossSum":
        """Return the sum of this loss and another one, or a function that is one."""
        return LossSum((self,)) + other

    def with_arrays(self, **arrays: Any) -> "Loss":
        """Return the loss with more traced arguments."""
        return dataclasses.replace(self, numbers={**self.numbers, **arrays})


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["parts"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class LossSum:
    """Sum of losses, as ``distill.firing() + distill.membrane(weight=0.1)`` is.

    Attributes:
        parts: `Loss` each.
    """

    parts: tuple[Loss, ...]

    def __call__(self, student: Any, teacher: Any = None, step: Any = None) -> Array:
        """Return the sum of the distances, as a `Loss` does."""
        first, *others = (part(student, teacher, step) for part in self.parts)
        return sum(others, first)

    def __add__(self, other: Any) -> "LossSum":
        """Return the sum with one more loss, or another sum."""
        other = as_loss(other)
        more = other.parts if isinstance(other, LossSum) else (other,)
        return LossSum((*self.parts, *more))

    @property
    def needs_membranes(self) -> bool:
        """Return True if a part reads membranes."""
        return any(part.needs_membranes for part in self.parts)

    @property
    def takes_mask(self) -> bool:
        """Return True if all parts leave out what is behind a sequence's end."""
        return all(part.takes_mask for part in self.parts)


def as_loss(loss: Any) -> Loss | LossSum:
    """Return a function of two recordings as a `Loss`; ValueError for no function."""
    if isinstance(loss, Loss | LossSum):
        return loss
    _checks.require_callable("distill", loss, "such as distill.firing()")
    if isinstance(loss, functools.partial) and hasattr(loss.func, "bind"):
        return loss.func(*loss.args, **loss.keywords)
    return loss() if hasattr(loss, "bind") else Loss(loss, {})


def configurable(function: Callable[..., Array]) -> Callable[..., Any]:
    """Let a loss return itself with its numbers where no recordings are given."""
    parameters = inspect.signature(function).parameters.values()
    defaults = {
        p.name: p.default
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.default is not None
    }
    static = {name for name, x in defaults.items() if isinstance(x, int)}

    @functools.wraps(function)
    def call(student: Any = None, teacher: Any = None, **numbers: Any) -> Any:
        if student is not None:
            for name in set(numbers) & set(defaults) - static:
                _check_number(name, numbers[name])
            return function(student, teacher, **numbers)
        if unknown := set(numbers) - set(defaults):
            raise ValueError(
                f"{function.__name__} takes {', '.join(defaults)}, got "
                f"{', '.join(sorted(unknown))}"
            )
        values = defaults | numbers
        traced, schedules = {}, []
        for name, value in values.items():
            if name in static:
                _checks.require_whole(name, value, 1)
            elif callable(value):
                schedules.append((name, value))
            else:
                _check_number(name, value)
                traced[name] = jnp.asarray(value, jnp.float32)
        options = tuple((name, int(values[name])) for name in sorted(static))
        return Loss(call, traced, options, tuple(schedules))

    setattr(call, "bind", True)  # noqa: B010
    return call


def _check_number(name: str, value: Any) -> None:
    """Raise ValueError for a number that no loss takes; a traced one passes."""
    if np.ndim(value):
        raise ValueError(
            f"{name} must be one number, or a schedule, got shape {np.shape(value)}; "
            "a loss of one's own weighs layers: the sum of losses of single layers"
        )
    divides = name == "temperature"
    bound = "above 0" if divides else "from 0"
    _checks.require_values(
        value,
        lambda x: ((x > 0) if divides else (x >= 0)) & (x < np.inf),
        f"{name} must be a finite number {bound}, or a schedule",
    )
