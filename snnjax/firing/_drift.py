"""Judge the drift of result rows: drift, collapse, and the noise floors behind both.

Private. A row's EMD is set against two floors, EMDs that show without any quantization.
The noise floor is the largest known one: of fine-tuning in full precision, of another
seed, of other test images. The lower floor is what the row's procedure moves without a
quantizer: other test images; after QAT also fine-tuning; for PTQ+BN also re-estimating
BatchNorm.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

Row = dict[str, Any]
State = Literal["reference", "collapsed", "no floor", "within", "drift"]

FLOORS = ("floor_control", "floor_seed", "floor_sampling")
# Accuracy this far under the baseline's still counts as kept.
POINT = 0.01
# Decimals such as 0.98 - 0.97 are not exact.
ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A row judged against its run's baseline and noise floor.

    Attributes:
        row: the row.
        floor: its noise floor; None if unknown or if nothing is quantized.
        loss: accuracy that its reference has more; None without a baseline.
        state: the judgement.
        lower: the lower floor.
    """

    row: Row
    floor: float | None
    loss: float | None
    state: State
    lower: float | None = None

    @property
    def by_lower(self) -> "Verdict":
        """The same row, judged by its lower floor."""
        judged = dataclasses.replace(self, floor=self.lower)
        if self.state not in ("within", "drift", "no floor"):
            return judged
        return dataclasses.replace(judged, state=_compare(self.row, self.lower))

    @property
    def keeps_accuracy(self) -> bool | None:
        """True if accuracy is within a point of the reference's; None without one."""
        return None if self.loss is None else self.loss <= POINT + ROUNDING

    @property
    def within_sampling_noise(self) -> bool:
        """True if EMD is inside the band that the choice of test images makes."""
        band = self.row["floor_sampling"]
        return (
            self.state == "within" and band is not None and self.row["emd_mean"] <= band
        )

    @property
    def ratio(self) -> float:
        """EMD over the noise floor."""
        return self.row["emd_mean"] / max(self.floor or 0.0, 1e-12)


def judge(rows: Iterable[Row], classes: Mapping[str, int]) -> list[Verdict]:
    """Judge the rows of one or several runs (key "run"), in the order given.

    Args:
        rows: rows with their full-precision references.
        classes: number of classes of each data set.
    """
    rows = list(rows)
    references = {(r.get("run"), r["seed"], r["mode"]): r for r in rows if is_full(r)}
    judged = []
    for row in rows:
        base, control, reestimated = (
            references.get((row.get("run"), row["seed"], mode))
            for mode in ("fp32", "control", "fp32_bn")
        )
        known = {name: row[name] for name in FLOORS}
        if known["floor_control"] is None and control:
            known["floor_control"] = control["emd_mean"]
        own = [known["floor_sampling"]]
        floors = [value for value in known.values() if value is not None]
        # The row's reference: the baseline or, after QAT, the control if it is better.
        against = [base]
        if row["mode"] == "qat":
            own.append(known["floor_control"])
            against.append(control)
        if row["mode"] == "ptq_bn":
            own.append(reestimated and reestimated["emd_mean"])
            if reestimated:
                floors = [max(each, reestimated["emd_mean"]) for each in floors]
        floor = max(floors, default=None)
        lower = None if None in own or is_full(row) else max(own)
        best = max((one["accuracy"] for one in against if one), default=0.0)
        loss = best - row["accuracy"] if base else None
        # Collapse means nothing next to a baseline that has not learned.
        comparable = base is None or has_learned(base, classes)
        if is_full(row):
            state, floor = "reference", None
        elif comparable and not has_learned(row, classes):
            state = "collapsed"
        else:
            state = _compare(row, floor)
        judged.append(Verdict(row, floor, loss, state, lower))
    return judged


def _compare(row: Row, floor: float | None) -> Literal["no floor", "within", "drift"]:
    if floor is None:
        return "no floor"
    return "drift" if row["emd_mean"] > floor else "within"


def is_full(row: Row) -> bool:
    """True if nothing is quantized."""
    return row["target"] == "none"


def has_learned(row: Row, classes: Mapping[str, int]) -> bool:
    """True if accuracy is at least twice chance, or chance is unknown."""
    return row["accuracy"] >= 2 / classes.get(row["dataset"], float("inf"))


def baselines(rows: Sequence[Row]) -> list[Row]:
    """Return the baselines that one run quantizes; before it does, the first one."""
    seeds = {row["seed"] for row in rows if not is_full(row)}
    found = [row for row in rows if row["mode"] == "fp32"]
    return [row for row in found if row["seed"] in seeds] or found[:1]


def noise_floors(rows: Sequence[Row]) -> dict[str, float]:
    """Return the known noise floors of one run by their names in a row."""
    quantized = [row for row in rows if not is_full(row)] or rows
    known = {k: [r[k] for r in quantized if r[k] is not None] for k in FLOORS}
    # Where no row has it, the control's own EMD is the control's floor.
    controls = [row["emd_mean"] for row in rows if row["mode"] == "control"]
    known["floor_control"] = known["floor_control"] or controls[:1]
    return {name: max(values) for name, values in known.items() if values}


def illustrative_rows(judged: Iterable[Verdict]) -> list[Row]:
    """Return the row that drifted most at kept accuracy, and one that kept both.

    Where no accuracy was kept, rows that did not collapse; the second row has the
    first one's mode and seed, so that the two are a fair pair.
    """
    judged = [v for v in judged if v.state != "reference"]
    alive = [v for v in judged if v.state != "collapsed"] or judged
    some = [v for v in alive if v.keeps_accuracy] or alive
    if not some:
        return []
    far = max(some, key=lambda v: v.ratio)
    fair = [
        v for v in some if all(v.row[key] == far.row[key] for key in ("mode", "seed"))
    ]
    near = min(fair, key=lambda v: v.ratio)
    return [far.row] if near is far else [far.row, near.row]
