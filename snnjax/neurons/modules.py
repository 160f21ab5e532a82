"""Neurons with their numbers, as pytrees that a network can hold."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from snnjax import _pytree
from snnjax import surrogate as surrogates
from snnjax.neurons.current import CubaState, cuba_lif
from snnjax.neurons.integrator import li
from snnjax.neurons.own import StepNeuron
from snnjax.neurons.sequence import if_, lif, plif, w_from_tau
from snnjax.neurons.step import check_numbers, leak_factor
from snnjax.surrogate import Surrogate

Leaf = Any  # a number or an array; JAX rebuilds pytrees with placeholders too


def _leaves_from_numbers(neuron, names: tuple[str, ...]) -> None:
    check_numbers({name: getattr(neuron, name) for name in names})
    for name in names:
        value = _pytree.to_leaf(getattr(neuron, name))
        object.__setattr__(neuron, name, value)


@dataclasses.dataclass(frozen=True)
class LIF:
    """`lif` with its numbers: ``LIF(tau=2.0)(x_seq) -> (spikes, v_final)``.

    A registered dataclass: ``tau``, ``v_threshold``, ``v_reset``, ``alpha`` and
    ``v_min`` are float32 leaves, the rest is static. For the meaning of each field see
    `lif`.
    """

    tau: Leaf = 2.0
    v_threshold: Leaf = 1.0
    v_reset: Leaf = 0.0
    alpha: Leaf = None
    decay_input: bool = dataclasses.field(default=True, metadata={"static": True})
    detach_reset: bool = dataclasses.field(default=True, metadata={"static": True})
    surrogate: Surrogate = dataclasses.field(
        default=surrogates.atan, metadata={"static": True}
    )
    v_min: Leaf = None

    def __post_init__(self):
        names = ("tau", "v_threshold", "v_reset", "alpha", "v_min")
        _leaves_from_numbers(self, names)

    def __call__(self, x_seq: ArrayLike, **state) -> tuple[Array, Array]:
        """Run; ``state`` are `lif`'s v_init, membrane_quantizer, membrane_site."""
        return lif(x_seq, **_fields(self), **state)


@dataclasses.dataclass(frozen=True)
class IF:
    """`if_` with its numbers: ``IF()(x_seq) -> (spikes, v_final)``.

    A registered dataclass: ``v_threshold``, ``v_reset``, ``alpha`` and ``v_min`` are
    float32 leaves, the rest is static. For the meaning of each field see `if_`.
    """

    v_threshold: Leaf = 1.0
    v_reset: Leaf = 0.0
    alpha: Leaf = None
    detach_reset: bool = dataclasses.field(default=True, metadata={"static": True})
    surrogate: Surrogate = dataclasses.field(
        default=surrogates.atan, metadata={"static": True}
    )
    v_min: Leaf = None

    def __post_init__(self):
        _leaves_from_numbers(self, ("v_threshold", "v_reset", "alpha", "v_min"))

    def __call__(self, x_seq: ArrayLike, **state) -> tuple[Array, Array]:
        """Run; ``state`` are `if_`'s v_init, membrane_quantizer, membrane_site."""
        return if_(x_seq, **_fields(self), **state)


@dataclasses.dataclass(frozen=True, init=False)
class PLIF:
    """`plif` with its numbers: ``PLIF(tau=2.0)(x_seq) -> (spikes, v_final)``.

    A registered dataclass: ``w``, ``v_threshold``, ``v_reset``, ``alpha`` and
    ``v_min`` are float32 leaves, the rest is static. In a network, `layers.Spiking`
    makes ``w`` a parameter of its own for each layer. For the meaning of each field see
    `plif`.

    Raises:
        ValueError: as `plif`; both tau and w.
    """

    w: Leaf
    v_threshold: Leaf
    v_reset: Leaf
    alpha: Leaf
    decay_input: bool = dataclasses.field(metadata={"static": True})
    detach_reset: bool = dataclasses.field(metadata={"static": True})
    surrogate: Surrogate = dataclasses.field(metadata={"static": True})
    v_min: Leaf

    def __init__(
        self,
        tau: Any = None,
        v_threshold: Leaf = 1.0,
        v_reset: Leaf = 0.0,
        alpha: Leaf = None,
        decay_input: bool = True,
        detach_reset: bool = True,
        surrogate: Surrogate = surrogates.atan,
        v_min: Leaf = None,
        *,
        w: Leaf = None,
    ):
        check_numbers(dict(tau=tau))
        if tau is not None and w is not None:
            raise ValueError(
                "tau and w are one number: give one of them, w=None beside tau in "
                "dataclasses.replace"
            )
        if w is None:
            w = w_from_tau(2.0 if tau is None else tau)
        values = (w, v_threshold, v_reset, alpha, decay_input, detach_reset, surrogate)
        values = (*values, v_min)
        for field, value in zip(dataclasses.fields(self), values, strict=True):
            object.__setattr__(self, field.name, value)
        _leaves_from_numbers(self, ("w", "v_threshold", "v_reset", "alpha", "v_min"))

    @property
    def tau(self) -> Array:
        """The time constant that ``w`` stands for."""
        return 1 + jnp.exp(-jnp.asarray(self.w))

    def __call__(self, x_seq: ArrayLike, **state) -> tuple[Array, Array]:
        """Run; ``state`` are `plif`'s v_init, membrane_quantizer, membrane_site."""
        return plif(x_seq, **_fields(self), **state)


def _fields(neuron) -> dict:
    return {f.name: getattr(neuron, f.name) for f in dataclasses.fields(neuron)}


@dataclasses.dataclass(frozen=True)
class CubaLIF:
    """`cuba_lif` with its numbers: ``CubaLIF(tau=4.0, tau_syn=2.0)(x_seq)``.

    A registered dataclass: ``tau``, ``tau_syn``, ``v_threshold``, ``v_reset``,
    ``alpha`` and ``v_min`` are float32 leaves, the rest is static. For the meaning of
    each field see `cuba_lif`.
    """

    tau: Leaf = 2.0
    tau_syn: Leaf = 2.0
    v_threshold: Leaf = 1.0
    v_reset: Leaf = 0.0
    alpha: Leaf = None
    decay_input: bool = dataclasses.field(default=True, metadata={"static": True})
    detach_reset: bool = dataclasses.field(default=True, metadata={"static": True})
    surrogate: Surrogate = dataclasses.field(
        default=surrogates.atan, metadata={"static": True}
    )
    v_min: Leaf = None

    def __post_init__(self):
        names = ("tau", "tau_syn", "v_threshold", "v_reset", "alpha", "v_min")
        _leaves_from_numbers(self, names)

    def __call__(self, x_seq: ArrayLike, **state) -> tuple[Array, CubaState]:
        """Run; ``state``: `cuba_lif`'s v_init, membrane_quantizer, membrane_site."""
        return cuba_lif(x_seq, **_fields(self), **state)


@dataclasses.dataclass(frozen=True)
class LI:
    """`li` with its numbers: ``LI(tau=2.0)(x_seq) -> (potentials, v_final)``.

    A registered dataclass: ``tau`` is a float32 leaf, the rest is static.
    """

    tau: Leaf = 2.0
    decay_input: bool = dataclasses.field(default=True, metadata={"static": True})

    def __post_init__(self):
        _leaves_from_numbers(self, ("tau",))

    def __call__(self, x_seq: ArrayLike, **state) -> tuple[Array, Array]:
        """Run; ``state`` are `li`'s v_init, membrane_quantizer, membrane_site."""
        return li(x_seq, **_fields(self), **state)


for neuron in (LIF, IF, PLIF, CubaLIF, LI):
    _pytree.register(neuron)
Neuron = LIF | IF | PLIF | CubaLIF | StepNeuron


def find_leak(neuron: Neuron | LI) -> Array | None:
    """Return the share of its membrane that a step leaves; None without leak.

    A neuron of one's own leaks by its number ``tau``, if it has one of that name.
    """
    w = neuron.w if isinstance(neuron, PLIF) else None
    return leak_factor(getattr(neuron, "tau", None), w)
