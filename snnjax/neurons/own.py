"""Neurons of one's own: a step function and its state, as a neuron of a network."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks, _pytree
from snnjax.neurons.step import (
    Quantizer,
    bind_quantizer,
    check_reach,
    check_site,
    require_sequence,
    scan_steps,
    start_state,
    state_dtype,
)

MEMBRANE = "v"


class StepNeuron:
    """A neuron made of a step function, see `from_step`.

    A registered dataclass: its numbers are float32 leaves, ``step`` and ``rest`` are
    static.
    """

    step: Callable[..., tuple[Any, Array]]
    rest: float | tuple[tuple[str, float], ...]

    def __call__(
        self,
        x_seq: ArrayLike,
        *,
        v_init: Any = None,
        membrane_quantizer: Quantizer | None = None,
        membrane_site: str = "post_reset",
    ) -> tuple[Array, Any]:
        """Scan the step over currents ``[T, ...]``: spikes ``[T, ...]``, last state.

        Raises:
            ValueError: a state of another form; a quantizer before firing where the
                step has no argument ``membrane_quantizer``.
        """
        x_seq = require_sequence(x_seq)
        check_site("membrane_site", membrane_site)
        names = [f.name for f in dataclasses.fields(self)]  # pyrefly: ignore
        numbers = {n: getattr(self, n) for n in names if n not in ("step", "rest")}
        for name, value in numbers.items():
            _checks.require_broadcast(name, value, "one step of x_seq", x_seq.shape[1:])
        check_reach(membrane_quantizer, membrane_site, numbers.get("v_threshold"))
        tau = numbers.get("tau")
        quantizer = bind_quantizer(membrane_quantizer, membrane_site, tau)
        before = {}
        if quantizer is not None and membrane_site == "pre_fire":
            if "membrane_quantizer" not in inspect.signature(self.step).parameters:
                raise ValueError(
                    f'membrane_site="pre_fire" needs {_name(self.step)} to take an '
                    "argument membrane_quantizer and to apply it to the potential "
                    'before it fires; or take membrane_site="post_reset"'
                )
            before, quantizer = {"membrane_quantizer": quantizer}, None
        dtype = state_dtype(x_seq)
        numbers = {k: jnp.asarray(x, dtype) for k, x in numbers.items()}

        def body(state, x):
            new, spikes = self.step(state, x.astype(dtype), **numbers, **before)
            _check_form(self.step, state, new)
            if quantizer is not None and isinstance(new, Mapping):
                new = {**new, MEMBRANE: quantizer(new[MEMBRANE])}
            elif quantizer is not None:
                new = quantizer(new)
            return new, spikes

        return scan_steps(body, self._start(v_init, x_seq), x_seq)

    def _start(self, given: Any, x_seq: Array) -> Any:
        if not isinstance(self.rest, tuple):
            return start_state("v_init", given, self.rest, x_seq)
        names = [name for name, _ in self.rest]
        if given is not None and (
            not isinstance(given, Mapping) or sorted(given) != sorted(names)
        ):
            raise ValueError(
                f"v_init must be a state of {_name(self.step)}, {{name: array}} of "
                f"{names}, got {_checks.format_value(given)}"
            )
        return {
            name: start_state(
                f"v_init[{name!r}]", None if given is None else given[name], rest, x_seq
            )
            for name, rest in self.rest
        }


def from_step(
    step: Callable[..., tuple[Any, Array]],
    *,
    rest: float | Mapping[str, float] = 0.0,
    **numbers: ArrayLike,
) -> StepNeuron:
    """Make a neuron of a step function, for `layers.Spiking` and for itself.

    Args:
        step: ``step(state, x, **numbers) -> (state, spikes)``, of one time step. Where
            it has an argument ``membrane_quantizer``, that is the function to apply to
            the potential before it fires (site pre_fire); at site post_reset the state
            is quantized here.
        rest: the state at rest: a number, the membrane potential; or ``{name: number}``
            for several, of which ``"v"`` is the membrane. The state is an array
            ``[...]`` of one step's shape, or a dict of such.
        numbers: of the neuron: traced, so that they are swept without compiling again,
            and learned where `layers.Spiking` is asked to. MINT and OSBC take the leak
            from one that is named ``tau``, and none where there is no such.

    Returns:
        ``neuron(x_seq, v_init=None, ...) -> (spikes, state)``, as `neurons.LIF`.

    Raises:
        ValueError: step is no function or takes no such numbers; several states without
            ``"v"``; a number that is not finite.

    >>> def leak_to_one(v, x, *, rate):
    ...     v = v + rate * (1 - v) + x
    ...     spikes = (v >= 2).astype(v.dtype)
    ...     return v * (1 - spikes), spikes
    >>> neuron = from_step(leak_to_one, rate=0.5)
    >>> neuron(jnp.full((3, 1), 0.75))[0][:, 0].tolist()
    [0.0, 0.0, 1.0]
    """
    _checks.require_callable("step", step, "step(state, x, **numbers)")
    try:
        inspect.signature(step).bind(None, None, **numbers)
    except TypeError as error:
        raise ValueError(
            f"step must take (state, x, **numbers) with the numbers {sorted(numbers)}: "
            f"{error}"
        ) from None
    for name, value in numbers.items():
        _checks.require_finite(name, value)
    if isinstance(rest, Mapping):
        if MEMBRANE not in rest:
            raise ValueError(
                f"rest must name the membrane {MEMBRANE!r} among the states, got "
                f"{sorted(rest)}"
            )
        start: Any = tuple((name, float(rest[name])) for name in sorted(rest))
    else:
        start = float(rest)
    kind: Any = _neuron_class(_name(step), tuple(numbers))
    leaves = {name: _pytree.to_leaf(x) for name, x in numbers.items()}
    return kind(**leaves, step=step, rest=start)


@functools.cache
def _neuron_class(name: str, numbers: tuple[str, ...]) -> type[StepNeuron]:
    """Return the dataclass of these fields, one class for equal ones."""
    static = {"metadata": {"static": True}}
    fields = [(number, Any) for number in numbers] + [
        (choice, Any, dataclasses.field(**static)) for choice in ("step", "rest")
    ]
    made: Any = dataclasses.make_dataclass(
        name.rpartition(".")[2], fields, bases=(StepNeuron,), frozen=True
    )
    _pytree.register(made)
    return made


def _name(step: Callable) -> str:
    return getattr(step, "__qualname__", type(step).__name__)


def _check_form(step: Callable, old: Any, new: Any) -> None:
    """Raise ValueError where a step returns a state of another form than it took."""
    forms = [
        (jax.tree.structure(x), [(a.shape, a.dtype) for a in jax.tree.leaves(x)])
        for x in (old, new)
    ]
    if forms[0] != forms[1]:
        raise ValueError(
            f"{_name(step)} must return a state like the one that it takes, with the "
            f"same names, shapes and dtypes, got {forms[1]} for {forms[0]}"
        )
