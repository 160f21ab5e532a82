"""Verdict on two recordings: does the other network fire like the reference?"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from snnjax import _checks
from snnjax.firing import _resampling, compare
from snnjax.firing._resampling import Groups
from snnjax.firing.counts import FiringCounts, check_comparable

State = Literal["no_drift", "below_margin", "drift", "cannot_tell"]

RELABELLINGS = 999
DRAWS = 100  # of the bootstrap
KS_DRAWS = 25  # its standard deviation needs no more, and sorting twice is slow


class Measure(NamedTuple):
    """A measured difference and what the choice of inputs leaves open.

    Attributes:
        value: as measured on these inputs.
        low: lower end of the interval; None where it is unknown.
        high: upper end; None where it is unknown.
        by_chance: the value to expect of two recordings of one network, on inputs
            chosen like these (0 for signed measures); None where it is unknown.
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
        measures: ``"emd"``, ``"normed_emd"`` (EMD over the standard deviation of the
            reference's rates), ``"paired_shift"``, ``"mean_shift"``, ``"ks"``,
            ``"dead_shift"`` and ``"saturated_shift"`` (change of the share of neurons).
        p_value: probability that some layer of a network without drift looks as far
            apart as this one; None where it is unknown.
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
        null: the hypothesis that was tested and how, in words.
        margin: the EMD that is small enough, or None.
        level: confidence level of the intervals; false alarms have 1 - level.
        same_inputs: True if both recordings saw the same inputs in the same groups.
        inputs_needed: estimate of how many times as many inputs would do where the
            state is ``"cannot_tell"``; None elsewhere and where it is unknown.
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

    def __str__(self) -> str:
        """Return the state."""
        return self.state


def verdict(
    reference: FiringCounts,
    other: FiringCounts,
    *,
    margin: float | int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Verdict:
    r"""Judge by intervals whether a network fires like a reference.

    The hypothesis of no drift, :math:`E\,r_i = E\,r'_i` for every neuron, is tested by
    relabelling groups of inputs. Where both recordings saw the same inputs (equal
    ``inputs_id``), the two change places within a group; else all groups are dealt
    again to the two recordings. The change that a layer's neurons share, that of
    classes of neurons by rate, and of single neurons are compared with those of 999
    relabellings. Many layers are many tests: the largest of all layers, each relabelled
    alike, is the limit (Westfall and Young), so a false alarm in *any* layer has
    probability 1 - level. Exactly so for groups of one size, for which smaller groups
    of one recording are merged; between groups of 24 and of 32 inputs 5.2 % of 7,000
    comparisons were called drifted.

    Intervals come from a bootstrap over the same groups (jointly for the same inputs),
    with Student's t for few groups; each is of one measure alone. EMD, paired shift and
    KS are positive by chance too: the expected value is in ``by_chance``, and the lower
    end allows for it.

    ============== ====================================================================
    state
    ============== ====================================================================
    no_drift       no significant change, and, given a margin, EMD is below it; also two
                   recordings that are equal in every group
    below_margin   a significant change whose EMD is below the margin at this level
    drift          a significant change that is not shown to be below a margin
    cannot_tell    no significant change, but EMD may be above the margin; or too few
                   groups to tell anything
    ============== ====================================================================

    Args:
        reference: counts of the full-precision network, with ``groups``.
        other: counts of the other one, over the same layers, with ``groups``.
        margin: the EMD, in spikes per time step, below which a drift does no harm.
        level: confidence level within (0, 1).
        seed: seed of the relabellings and draws; the same seed gives the same verdict.

    Returns:
        A `Verdict`.

    Raises:
        ValueError: different layers or neurons, counts outside 0..observations, a
            margin that is not positive, a level outside (0, 1), equal ``inputs_id`` of
            recordings with different groups.

    Source: Westfall and Young, "Resampling-based multiple testing" (1993); equivalence
    by an interval: Schuirmann (1987). Differs from the paper in: it has neither.

    >>> counts = FiringCounts({"a": np.array([1, 2])}, 4)
    >>> verdict(counts, counts).state
    'no_drift'
    """
    check_comparable(reference, other)
    if margin is not None:
        _checks.require_positive_number("margin", margin)
    if not isinstance(level, (int, float, np.number)) or not 0 < level < 1:
        raise ValueError(
            f"level must be a number within (0, 1), got {_checks.format_value(level)}"
        )
    _checks.require_whole("seed", seed, 0)
    joint = _saw_the_same(reference, other)
    measured = _measure(reference, other)
    equal = {name: m["paired_shift"].value == 0 for name, m in measured.items()}
    lacking = _explain_lacking_groups(reference, other, joint, 1 - level)
    grouped = reference.groups is not None and other.groups is not None
    if grouped and not lacking:
        layers = _group(reference, other, joint)
        p_values = _test(layers, level, seed)
        measured = _add_intervals(layers, measured, level, seed)
    else:
        p_values = dict.fromkeys(measured)
    alpha = 1 - level
    judged = {
        name: LayerVerdict(
            _judge(m, p_values[name], margin, alpha, equal[name]), m, p_values[name]
        )
        for name, m in measured.items()
    }
    state = _combine([one.state for one in judged.values()])
    needed, remedy = None, ""
    if state == "cannot_tell":
        needed = None if lacking else _estimate_needed(judged, margin)
        remedy = lacking or _explain_needed(needed)
    number = tuple(
        0 if c.group_observations is None else np.size(c.group_observations)
        for c in (reference, other)
    )
    null = _describe_null(joint, number, lacking, level)
    return Verdict(state, judged, null, margin, float(level), joint, needed, remedy)


def _saw_the_same(reference: FiringCounts, other: FiringCounts) -> bool:
    same = reference.inputs_id is not None and reference.inputs_id == other.inputs_id
    if same and reference.groups is not None and other.groups is not None:
        ours, theirs = (
            np.asarray(c.group_observations) / c.observations
            for c in (reference, other)
        )
        if ours.shape != theirs.shape or not np.allclose(ours, theirs):
            raise ValueError(
                "recordings of one inputs_id must have the same groups of inputs, got "
                f"{reference.inputs_id!r} with {ours.size} and {theirs.size} groups or "
                "of other sizes: record both with the same batches and number of groups"
            )
    return same


def _measure(
    reference: FiringCounts, other: FiringCounts
) -> dict[str, dict[str, Measure]]:
    found = compare.report(reference, other)
    measured = {}
    for name, w1 in found.emd.items():
        x, y = (np.ravel(c.spikes[name]) / c.observations for c in (reference, other))
        spread = _spread(x)
        values = {
            "emd": w1,
            "normed_emd": w1 / spread if spread else (math.inf if w1 else 0.0),
            "paired_shift": found.paired_shift[name],
            "mean_shift": found.mean_shift[name],
            "ks": found.ks[name],
            "dead_shift": np.mean(y < compare.DEAD) - np.mean(x < compare.DEAD),
            "saturated_shift": np.mean(y > compare.SATURATED)
            - np.mean(x > compare.SATURATED),
        }
        measured[name] = {k: Measure(float(v)) for k, v in values.items()}
    return measured


def _spread(rates: np.ndarray) -> float:
    """Return the deviation over neurons: of equal rates 0, whatever the rounding."""
    return float(np.std(rates)) if np.ptp(rates) else 0.0


def _group(
    reference: FiringCounts, other: FiringCounts, joint: bool
) -> dict[str, Groups]:
    of_x, of_y = (
        np.asarray(c.group_observations, np.float64) for c in (reference, other)
    )

    def rates(counts, name, sizes):
        each = np.asarray(counts.groups[name])
        return each.reshape(len(sizes), -1) / sizes[:, None]

    return {
        name: Groups(
            rates(reference, name, of_x), rates(other, name, of_y), of_x, of_y, joint
        )
        for name in reference.spikes
    }


def _test(layers: dict[str, Groups], level: float, seed: int) -> dict[str, float]:
    equal = [_resampling.equalize_groups(v, 1 - level) for v in layers.values()]
    first, rng = equal[0], np.random.default_rng(seed)
    number = max(RELABELLINGS, math.ceil(10 / (1 - level)))
    contrasts = _resampling.draw_contrasts(
        first.joint, first.of_x, first.of_y, number, rng
    )
    found = [
        _resampling.compute_statistics(
            _resampling.center(layer), contrasts, layer.pooled
        )
        for layer in equal
    ]
    return dict(zip(layers, _resampling.compute_p_values(found), strict=True))


def _add_intervals(layers, measured, level: float, seed: int):
    from scipy import special

    first = next(iter(layers.values()))
    freedom = min(len(first.of_x), len(first.of_y)) - 1
    t = float(special.stdtrit(freedom, 0.5 + level / 2))
    return {
        name: _add_layer_intervals(layer, measured[name], t, seed)
        for name, layer in layers.items()
    }


def _add_layer_intervals(
    layer: Groups, measured: dict[str, Measure], t: float, seed: int
) -> dict[str, Measure]:
    """Add to each measure its interval and its expectation without drift."""
    drawn: dict[str, list] = {}
    rng = np.random.default_rng(seed)
    for block in _resampling.bootstrap(layer, DRAWS, rng):
        for k, v in _measure_draws(block).items():
            drawn.setdefault(k, []).append(v)
    found = {k: np.concatenate(v) for k, v in drawn.items()}
    bounds: dict[str, tuple[float, float, float]] = {}
    for name, (value, *_) in measured.items():
        if name == "normed_emd":
            continue
        values, chance = found[name], found.get(f"{name} by chance")
        if chance is None:
            half = t * float(values.std(ddof=1))
            bounds[name] = value - half, value + half, 0.0
            continue
        half = t * max(float(values.std(ddof=1)), float(chance.std(ddof=1)))
        by_chance = float(chance.mean())
        # Noise blurs distributions; if more of it brings the two nearer, so did this.
        blurred = max(0.0, value - float(values.mean()))
        low = max(0.0, value - by_chance - half)
        bounds[name] = low, value + blurred + half, by_chance
    low, high, by_chance = bounds["emd"]
    high = max(measured["emd"].value, min(high, bounds["paired_shift"][1]))
    bounds["emd"] = low, high, by_chance
    if spread := _spread(layer.mean_x):
        bounds["normed_emd"] = low / spread, high / spread, by_chance / spread
    return {
        name: Measure(value, *bounds.get(name, ()))
        for name, (value, *_) in measured.items()
    }


def _measure_draws(block: _resampling.Resample) -> dict[str, np.ndarray]:
    x, y, twin = (np.sort(each, axis=1) for each in block)
    dead, saturated = (
        np.mean(of_y, axis=1) - np.mean(of_x, axis=1)
        for of_x, of_y in (
            (x < compare.DEAD, y < compare.DEAD),
            (x > compare.SATURATED, y > compare.SATURATED),
        )
    )
    few = -(-len(x) * KS_DRAWS // DRAWS)
    return {
        "emd": np.mean(np.abs(y - x), axis=1),
        "emd by chance": np.mean(np.abs(twin - x), axis=1),
        "paired_shift": np.mean(np.abs(block.y - block.x), axis=1),
        "paired_shift by chance": np.mean(np.abs(block.twin - block.x), axis=1),
        "mean_shift": np.mean(block.y - block.x, axis=1),
        "ks": np.array(
            [_compute_ks(*pair) for pair in zip(x[:few], y[:few], strict=True)]
        ),
        "ks by chance": np.array(
            [_compute_ks(*pair) for pair in zip(x[:few], twin[:few], strict=True)]
        ),
        "dead_shift": dead,
        "saturated_shift": saturated,
    }


def _compute_ks(x: np.ndarray, y: np.ndarray) -> float:
    """Compute the Kolmogorov-Smirnov statistic of two sorted samples of one size."""
    place = np.arange(x.size)
    above = np.max(place + 1 - np.searchsorted(y, x, "right"))
    below = np.max(np.searchsorted(y, x, "left") - place)
    return max(above, below, 0) / x.size


def _judge(measures, p_value, margin, alpha: float, equal: bool) -> State:
    w1 = measures["emd"]
    small = margin is not None and w1.high is not None and w1.high < margin
    if p_value is None:
        return "no_drift" if equal else "cannot_tell"
    if p_value <= alpha:
        return "below_margin" if small else "drift"
    # Equal in every group, or nothing to see and a margin that leaves no room.
    if margin is None or small or (equal and w1.high == 0):
        return "no_drift"
    return "cannot_tell"


def _combine(states: list[State]) -> State:
    order: tuple[State, ...] = ("drift", "cannot_tell", "below_margin", "no_drift")
    return next(state for state in order if state in states)


def _explain_lacking_groups(reference, other, joint: bool, alpha: float) -> str:
    """Explain why nothing can be tested; an empty string if it can."""
    without = [
        side
        for side, c in (("reference", reference), ("other", other))
        if c.groups is None
    ]
    if without:
        return (
            f"{' and '.join(without)}: no groups of inputs, so the spread between "
            "inputs is unknown; record counts in at least 6 groups"
        )
    sizes = [np.asarray(c.group_observations) for c in (reference, other)]
    number = _resampling.count_relabellings(joint, *sizes)
    if min(map(len, sizes)) < 2 or number * alpha < 1:
        least = math.ceil(math.log2(1 / alpha)) + 1
        return (
            f"{sizes[0].size} and {sizes[1].size} groups of inputs are too few for a "
            f"test at level {1 - alpha:g}; record counts in at least {least} groups"
        )
    return ""


def _estimate_needed(judged: Mapping[str, LayerVerdict], margin) -> float | None:
    """Estimate how many times as many inputs would settle the open layers."""
    factors = []
    for one in judged.values():
        if one.state != "cannot_tell":
            continue
        value, _, high, by_chance = one.measures["emd"]
        if high is None or by_chance is None:
            continue
        # The noise of both the value and its bound shrinks by the root of the inputs.
        drift = math.sqrt(max(value**2 - by_chance**2, 0.0))
        if drift < 0.8 * margin:
            factors.append(((high - drift) / (margin - drift)) ** 2)
        else:  # it would show as drift instead, once it is as far above the noise
            factors.append((2 * high / drift - 1) ** 2)
    return max(1.1, *factors) if factors else None


def _explain_needed(needed: float | None) -> str:
    if needed is None:
        return "record more inputs"
    return (
        f"record about {needed:.2g} times as many inputs, or set a margin that is as "
        "large as the intervals' upper ends"
    )


def _describe_null(joint: bool, groups, lacking: str, level: float) -> str:
    if lacking:
        return f"Nothing was tested: {lacking}."
    if joint:
        how = (
            f"Both saw the same {groups[0]} groups of inputs; for the null "
            "distribution, their recordings are swapped in groups chosen at random"
        )
    else:
        how = (
            f"The reference saw {groups[0]} groups of inputs and the other network "
            f"{groups[1]} others; for the null distribution, all groups are dealt to "
            "the two at random"
        )
    return (
        "Null hypothesis: the two networks fire alike, and only the choice of inputs "
        f"sets them apart. {how}, many times. The limit is what the largest "
        "difference among all layers and statistics then exceeds in "
        f"{(1 - level) * 100:.3g} % of the cases, so that is how often networks "
        "without drift are called drifted."
    )
