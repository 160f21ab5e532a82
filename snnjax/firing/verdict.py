"""Verdict on two recordings: does the other network fire like the reference?"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from snnjax.firing import compare
from snnjax.firing.counts import FiringCounts, check_comparable

State = Literal["no_drift", "below_margin", "drift", "cannot_tell"]


class Measure(NamedTuple):
    """A measured difference and what the choice of inputs leaves open.

    Attributes:
        value: as measured on these inputs.
        low: lower end of the interval; None where it is unknown.
        high: upper end; None where it is unknown.
        by_chance: the value to expect of two recordings of one network, on inputs
            chosen like these; None where it is unknown.
    """

    value: float
    low: float | None = None
    high: float | None = None
    by_chance: float | None = None


@dataclasses.dataclass(frozen=True)
class LayerVerdict:
    """Verdict on a layer.

    Attributes:
        state: ``"no_drift"``, ``"below_margin"``, ``"drift"`` or ``"cannot_tell"``.
        measures: ``"emd"``, ``"normed_emd"``, ``"paired_shift"``, ``"mean_shift"``,
            ``"ks"``, ``"dead_shift"`` and ``"saturated_shift"``.
        p_value: probability of so large a difference in any layer without drift; None
            where it is unknown.
    """

    state: State
    measures: Mapping[str, Measure]
    p_value: float | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Verdict on a network.

    Attributes:
        state: ``"drift"`` if any layer drifted, else ``"cannot_tell"`` if that holds
            for any, else ``"below_margin"`` if it does, else ``"no_drift"``.
        layers: ``{layer: LayerVerdict}``.
        null: what is taken for granted and what was tested, in words.
        margin: the EMD that is small enough, or None.
        level: confidence level of the intervals; the rate of false alarms is 1 - level.
        same_inputs: True if both recordings saw the same inputs.
        inputs_needed: how many times as many inputs would do where the state is
            ``"cannot_tell"``; None elsewhere or where it is unknown.
        remedy: what to do where the state is ``"cannot_tell"``; empty elsewhere.
    """

    state: State
    layers: Mapping[str, LayerVerdict]
    null: str
    margin: float | None
    level: float
    same_inputs: bool
    inputs_needed: float | None = None
    remedy: str = ""


def verdict(
    reference: FiringCounts,
    other: FiringCounts,
    *,
    margin: float | None = None,
    level: float = 0.95,
) -> Verdict:
    """Judge whether a network fires like a reference."""
    check_comparable(reference, other)
    states = {
        name: LayerVerdict(
            "no_drift" if m["paired_shift"].value == 0 else "cannot_tell", m
        )
        for name, m in _measure(reference, other).items()
    }
    state = max((s.state for s in states.values()), key=lambda s: s == "cannot_tell")
    return Verdict(state, states, "null", margin, level, False)


def _measure(
    reference: FiringCounts, other: FiringCounts
) -> dict[str, dict[str, Measure]]:
    found = compare.report(reference, other)
    ours, theirs = reference.rates(), other.rates()
    measured = {}
    for name, w1 in found.emd.items():
        x, y = ours[name], theirs[name]
        spread = float(np.std(x))
        values = {
            "emd": w1,
            "normed_emd": w1 / spread if spread else (np.inf if w1 else 0.0),
            "paired_shift": found.paired_shift[name],
            "mean_shift": found.mean_shift[name],
            "ks": found.ks[name],
            "dead_shift": float(np.mean(y < compare.DEAD) - np.mean(x < compare.DEAD)),
            "saturated_shift": float(
                np.mean(y > compare.SATURATED) - np.mean(x > compare.SATURATED)
            ),
        }
        measured[name] = {k: Measure(float(v)) for k, v in values.items()}
    return measured
