"""Report card of two recordings: numbers, verdict, and the forms to read them in."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snnjax import firing
from snnjax.firing import FiringCounts

if TYPE_CHECKING:
    import pandas as pd

    from snnjax.models.connections import Synapse

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
            "layers": self.layers,
        }

    def to_json(self, path: str | Path) -> None:
        """Write the numbers to a JSON file."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n")

    @property
    def table(self) -> "pd.DataFrame":
        """Numbers of each layer, a row a layer; needs the extra ``report``."""
        import pandas as pd

        rows = {
            name: {
                **{k: v for k, v in row.items() if not isinstance(v, list)},
                **{
                    f"{k.removesuffix('_interval')}_{end}": bound
                    for k, v in row.items()
                    if isinstance(v, list)
                    for end, bound in zip(("low", "high"), v, strict=True)
                },
            }
            for name, row in self.layers.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")

    def to_html(self, path: str | Path) -> None:
        """Write the card as one page that needs no network; needs ``report``."""
        from snnjax.report import page

        page.write(self, path)


def compare(
    reference: FiringCounts,
    other: FiringCounts,
    *,
    margin: float | None = None,
    level: float = 0.95,
    synapses: "Sequence[Synapse] | None" = None,
    timesteps: int | None = None,
) -> ReportCard:
    """Compare the firing of a network with a reference's, layer by layer."""
    judged = firing.verdict(reference, other, margin=margin, level=level)
    operations = None
    return ReportCard(judged, reference, other, operations)


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
