"""Report card of two recordings: numbers, verdict, and the forms to read them in."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snnjax import _checks, cost, firing
from snnjax.firing import FiringCounts
from snnjax.report import text
from snnjax.report._extras import import_extra

if TYPE_CHECKING:
    import pandas as pd

    from snnjax.models.connections import Synapse
    from snnjax.report.attribution import Attribution

SCHEMA = "snnjax.report-card/1"


@dataclasses.dataclass(frozen=True)
class ReportCard:
    """Comparison of a network's firing with a reference's.

    Attributes:
        verdict: of `firing.verdict`.
        reference: counts of the reference.
        other: counts of the other network.
        operations: ``{layer: (reference, other)}``, synaptic operations per image of
            each layer that spikes feed; None where the connections are not known.
    """

    verdict: firing.Verdict
    reference: FiringCounts
    other: FiringCounts
    operations: Mapping[str, tuple[float, float]] | None = None

    @functools.cached_property
    def layers(self) -> dict[str, dict[str, Any]]:
        """Numbers of each layer: measures with their intervals, rates, state."""
        ours, theirs = self.reference.rates(), self.other.rates()
        return {
            name: _layer_numbers(judged, ours[name], theirs[name])
            for name, judged in self.verdict.layers.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers of the card, as they stand in the JSON file."""
        judged = self.verdict
        return {
            "schema": SCHEMA,
            "verdict": judged.state,
            "null": judged.null,
            "margin": judged.margin,
            "level": judged.level,
            "same_inputs": judged.same_inputs,
            "inputs_needed": judged.inputs_needed,
            "observations": [self.reference.observations, self.other.observations],
            "remedy": judged.remedy,
            "layers": self.layers,
            "synaptic_operations": None
            if self.operations is None
            else {name: list(pair) for name, pair in self.operations.items()},
        }

    def __str__(self) -> str:
        """Write the card as text."""
        return text.write_card(self)

    def to_json(self, path: str | Path) -> None:
        """Write the numbers to a JSON file; a number that is not finite is null."""
        write_json(self.to_dict(), path)

    @property
    def table(self) -> "pd.DataFrame":
        """Numbers of each layer, a row a layer; needs the extra ``report``."""
        pd = import_extra("pandas")
        rows = {}
        for name, row in self.layers.items():
            rows[name] = dict(row)
            for key in [key for key in row if key.endswith("_interval")]:
                ends = rows[name].pop(key) or (None, None)
                measure = key.removesuffix("_interval")
                rows[name] |= {f"{measure}_low": ends[0], f"{measure}_high": ends[1]}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")

    def to_html(
        self, path: str | Path, *, attribution: "Attribution | None" = None
    ) -> None:
        """Write the card as one page that needs no network; needs ``report``.

        Args:
            path: the file.
            attribution: of `attribute`, for a chart of the layers that make the drift.
        """
        for name in ("pandas", "jinja2", "altair"):
            import_extra(name)
        from snnjax.report import page

        page.write(self, path, attribution)


def compare(
    reference: FiringCounts,
    other: FiringCounts,
    *,
    margin: float | int | None = None,
    level: float = 0.95,
    synapses: "Sequence[Synapse] | None" = None,
    timesteps: int | None = None,
) -> ReportCard:
    """Compare the firing of a network with a reference's, layer by layer.

    Args:
        reference: counts of the full-precision network; with ``groups``, or the card
            cannot tell drift from the choice of inputs.
        other: counts of the other one, over the same layers.
        margin: the EMD below which a drift does no harm, see `firing.verdict`.
        level: confidence level within (0, 1).
        synapses: ``model.synapses()``, for synaptic operations.
        timesteps: T of both recordings, for synaptic operations.

    Returns:
        `ReportCard`: ``print(card)``, ``card.verdict.state``, ``card.to_json(path)``.

    Raises:
        ValueError: as `firing.verdict`; synapses without time steps or that the counts
            do not cover.

    >>> counts = FiringCounts({"sn1": np.array([1, 2])}, 4)
    >>> compare(counts, counts).verdict.state
    'no_drift'
    """
    if (synapses is None) != (timesteps is None):
        raise ValueError(
            "synapses and timesteps are needed together, for operations per input, got "
            f"synapses={_checks.format_value(synapses)} and timesteps={timesteps}"
        )
    judged = firing.verdict(reference, other, margin=margin, level=level)
    operations = None
    if synapses is not None and timesteps is not None:
        same = (
            reference.inputs_id is not None and reference.inputs_id == other.inputs_id
        )
        if same and reference.observations != other.observations:
            raise ValueError(
                "timesteps must be those of both, and on the same inputs they differ: "
                f"{reference.observations} and {other.observations} observations; "
                "compare operations of recordings of one T"
            )
        ours, theirs = (
            _count_operations(synapses, counts, timesteps)
            for counts in (reference, other)
        )
        operations = {name: (ours[name], theirs[name]) for name in ours}
    return ReportCard(judged, reference, other, operations)


def rank(cards: Mapping[str, ReportCard]) -> dict[str, ReportCard]:
    """Rank comparisons with one reference, the largest mean EMD first."""

    def mean_emd(card: ReportCard) -> float:
        return float(np.mean([row["emd"] for row in card.layers.values()]))

    names = sorted(cards, key=lambda name: -mean_emd(cards[name]))
    return {name: cards[name] for name in names}


def write_json(numbers: Mapping[str, Any], path: str | Path) -> None:
    """Write numbers as JSON, which has no infinity and no NaN: null."""

    def make_finite(value):
        if isinstance(value, Mapping):
            return {k: make_finite(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [make_finite(v) for v in value]
        return None if isinstance(value, float) and not np.isfinite(value) else value

    Path(path).write_text(json.dumps(make_finite(numbers), indent=1) + "\n", "utf-8")


def _count_operations(
    synapses: "Sequence[Synapse]", counts: FiringCounts, timesteps: int
) -> dict[str, float]:
    _checks.require_whole("timesteps", timesteps, 1)
    inputs, rest = divmod(counts.observations, timesteps)
    if rest:
        raise ValueError(
            f"observations must be timesteps x inputs, got {counts.observations} and "
            f"timesteps={timesteps}"
        )
    spikes = {name: np.asarray(each) for name, each in counts.spikes.items()}
    return cost.synaptic_operations(synapses, spikes, inputs)


def _layer_numbers(
    judged: firing.LayerVerdict, x: np.ndarray, y: np.ndarray
) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "state": judged.state,
        "p_value": judged.p_value,
        "neurons": int(x.size),
    }
    for name, measure in judged.measures.items():
        numbers[name] = measure.value
        interval = [measure.low, measure.high]
        numbers[f"{name}_interval"] = None if measure.low is None else interval
        numbers[f"{name}_by_chance"] = measure.by_chance
    for side, rates in (("reference", x), ("other", y)):
        numbers[f"{side}_rate"] = float(rates.mean())
        numbers[f"{side}_dead"] = float(np.mean(rates < firing.DEAD))
        numbers[f"{side}_saturated"] = float(np.mean(rates > firing.SATURATED))
    numbers["dead"] = numbers["other_dead"]
    numbers["saturated"] = numbers["other_saturated"]
    return numbers
