"""Losses that are compared, their numbers, and the numbers that were tried."""

from collections.abc import Callable, Mapping
from typing import Any

from snnjax import distill

PLAIN, SAME_TIME, KEPT = "plain", "plain, same time", "distill.firing"
# A teacher's forward pass is a third of a training step.
MORE_STEPS = 4 / 3
Numbers = Mapping[str, float]


def _weights(*weights: float) -> tuple[Numbers, ...]:
    return tuple({"weight": weight} for weight in weights)


def _mix(paired: float, distribution: float, predictions: float) -> Numbers:
    return dict(paired=paired, distribution=distribution, predictions=predictions)


_RIVALS: dict[str, tuple[Callable[..., Any], tuple[Numbers, ...]]] = {
    KEPT: (
        distill.firing,
        (
            *(_mix(3, 1, 1), _mix(10, 3, 4), _mix(30, 10, 12)),
            *(_mix(10, 3, 0), _mix(30, 10, 0), _mix(30, 10, 1)),
            *(_mix(30, 30, 1), _mix(100, 30, 1), _mix(100, 3, 4)),
            *(_mix(30, 0, 1), _mix(30, 1, 1), _mix(30, 1, 4)),
            *(_mix(100, 1, 1), _mix(100, 1, 4)),
        ),
    ),
    "membranes (as MD-SNN)": (distill.membrane, _weights(0.3, 1, 3, 10)),
    "logits": (distill.logits, _weights(0.3, 1, 4, 16)),
    "paired rates": (distill.paired_rates, _weights(3, 10, 30, 100)),
    "sorted W2": (distill.sorted_w2, _weights(0.3, 1, 3, 10)),
    "rates to 0.5 (as Q-SNN)": (distill.rate_regulariser, _weights(0.01, 0.1, 1)),
}
# By the rule of `tuning.choose_trials` from the rows of the tuning seeds; the numbers
# of `distill.firing` are its defaults.
CHOSEN: dict[str, Numbers] = {
    KEPT: _mix(100, 1, 4),
    "membranes (as MD-SNN)": {"weight": 3.0},
    "logits": {"weight": 0.3},
    "paired rates": {"weight": 100.0},
    "sorted W2": {"weight": 1.0},
    "rates to 0.5 (as Q-SNN)": {"weight": 0.01},
}
LOSSES: dict[str, Any] = {PLAIN: None, SAME_TIME: None}
LOSSES |= {arm: loss(**CHOSEN[arm]) for arm, (loss, _) in _RIVALS.items()}
FIRST = [PLAIN, KEPT, "membranes (as MD-SNN)"]
# Terms of `distill.firing` by themselves, no methods of others.
PARTS_OF_IT = ("paired rates", "sorted W2")
# Networks of these are calibrated after their training, as arms of their own.
MATCHED_AFTER = {
    f"{arm}, fire_match": arm for arm in (KEPT, PLAIN, "membranes (as MD-SNN)")
}
# Before these the kernels are scaled to the quantizer's bound.
SCALED_FIRST = {f"scaled, {arm}": arm for arm in (PLAIN, KEPT)}
KEPT_AND_MATCHED = next(iter(MATCHED_AFTER))


def name_trial(arm: str, numbers: Numbers) -> str:
    """Return the arm of a row that tries these numbers."""
    return f"{arm}, {name_numbers(numbers)}"


def name_numbers(numbers: Numbers) -> str:
    """Return the numbers of a loss as text."""
    return ", ".join(f"{name} {x:g}" for name, x in numbers.items())


TRIALS: dict[str, tuple[str, Numbers]] = {
    name_trial(arm, numbers): (arm, numbers)
    for arm, (_, tried) in _RIVALS.items()
    for numbers in tried
}
TRIED: dict[str, Any] = {PLAIN: None}
TRIED |= {name: _RIVALS[arm][0](**numbers) for name, (arm, numbers) in TRIALS.items()}
