"""What rows mean: drift, collapse, noise floors, and what a run still misses.

Whether a network fires differently is judged in one place, ``verdicts``: its EMD is
set against two floors, EMDs that show without any quantization. The noise floor is the
largest that is known: of training on, of another seed, of other test images. The lower
floor is what the way to the row moves by itself: other test images, after QAT training
on as well, for PTQ+BN BatchNorm's statistics taken anew.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from experiments.report.names import (
    FLOORS,
    MODE_NAMES,
    emd_text,
    is_full,
    method_order,
    percent,
    setting_name,
)
from experiments.study.config import CLASSES, StudyConfig
from experiments.study.grid import name_row, planned
from snnjax.runs import Row

# Accuracy this far under the baseline's still counts as kept.
POINT = 0.01


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A row judged against its run's baseline and noise floor."""

    row: Row
    floor: float | None
    loss: float | None  # accuracy that its reference has more; None: no baseline
    state: Literal["reference", "collapsed", "no floor", "within", "drift"]
    lower: float | None = None  # the floor of the row's own way, without a quantizer

    @property
    def by_lower(self) -> "Verdict":
        """The same row, judged by its lower floor."""
        judged = dataclasses.replace(self, floor=self.lower)
        if self.state not in ("within", "drift", "no floor"):
            return judged
        return dataclasses.replace(judged, state=_state(self.row, self.lower))

    @property
    def kept(self) -> bool | None:
        """Accuracy within a point of the baseline's, after QAT of the control's too.

        None without a baseline.
        """
        # The small number is for decimals such as 0.98 - 0.97.
        return None if self.loss is None else self.loss <= POINT + 1e-9

    @property
    def unseen(self) -> bool:
        """EMD inside the band that the choice of test images makes."""
        band = self.row.get("floor_sampling")
        within = self.state == "within" and band is not None
        return within and self.row["emd_mean"] <= band

    @property
    def ratio(self) -> float:
        """EMD over the noise floor."""
        return self.row["emd_mean"] / max(self.floor or 0.0, 1e-12)

    @property
    def name(self) -> str:
        """Method, bits and mode."""
        return f"{setting_name(self.row)} {MODE_NAMES[self.row['mode']]}"

    @property
    def told(self) -> str:
        """Name and numbers, for a sentence."""
        text = f"{self.name} with accuracy {percent(self.row['accuracy'])} and EMD "
        text += emd_text(self.row["emd_mean"])
        return text + (f", {self.ratio:.2f} times its floor" if self.floor else "")


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Judge the rows of one or several runs (key "run"), in the table's order."""
    reference = {(r.get("run"), r["seed"], r["mode"]): r for r in rows if is_full(r)}
    judged = []
    for row in sorted(rows, key=_order):
        base = reference.get((row.get("run"), row["seed"], "fp32"))
        control = reference.get((row.get("run"), row["seed"], "control"))
        known = {name: row.get(name) for name in FLOORS}
        if known["floor_control"] is None and control:
            known["floor_control"] = control["emd_mean"]
        floors = [value for value in known.values() if value is not None]
        anew = reference.get((row.get("run"), row["seed"], "fp32_bn"))
        if anew and row["mode"] == "ptq_bn":
            # All such rows move by this, whatever else a floor sees.
            floors = [max(each, anew["emd_mean"]) for each in floors]
        floor = max(floors, default=None)
        own = [known["floor_sampling"]]
        own += [known["floor_control"]] * (row["mode"] == "qat")
        own += [anew and anew["emd_mean"]] * (row["mode"] == "ptq_bn")
        lower = None if None in own or is_full(row) else max(own)
        # What the same training gives without a quantizer, where that is better.
        against = [base, control] if row["mode"] == "qat" else [base]
        best = max((one["accuracy"] for one in against if one), default=0.0)
        loss = best - row["accuracy"] if base else None
        # Beside a baseline that has not learned, nothing can be said to collapse.
        beside_learned = base is None or learned(base)
        if is_full(row):
            state, floor = "reference", None
        elif beside_learned and not learned(row):
            state = "collapsed"
        else:
            state = _state(row, floor)
        judged.append(Verdict(row, floor, loss, state, lower))
    return judged


def _state(row: Row, floor: float | None) -> Literal["no floor", "within", "drift"]:
    if floor is None:
        return "no floor"
    return "drift" if row["emd_mean"] > floor else "within"


def learned(row: Row) -> bool:
    """Accuracy of twice chance at least."""
    return row["accuracy"] >= 2 / CLASSES.get(row["dataset"], float("inf"))


def baselines(rows: Sequence[Row]) -> list[Row]:
    """Of one run, the baselines that it quantizes; before it does, the first one."""
    seeds = {row["seed"] for row in rows if not is_full(row)}
    found = [row for row in rows if row["mode"] == "fp32"]
    return [row for row in found if row["seed"] in seeds] or found[:1]


def noise_floors(rows: Sequence[Row]) -> dict[str, float]:
    """The noise floors of one run, by their names in a row; unknown ones left out."""
    quantized = [row for row in rows if not is_full(row)] or rows
    known = {k: [r[k] for r in quantized if r.get(k) is not None] for k in FLOORS}
    # Where no row tells it, the control's own EMD is the control's floor.
    controls = [row["emd_mean"] for row in rows if row["mode"] == "control"]
    known["floor_control"] = known["floor_control"] or controls[:1]
    return {name: max(values) for name, values in known.items() if values}


def _order(row: Row) -> tuple[Any, ...]:
    target, everywhere, site, *method = method_order(row)
    mode = list(MODE_NAMES).index(row["mode"])
    scope = (target, everywhere, site, mode)
    return (*scope, *method, row["bits"] or 0, row["seed"], row.get("run", ""))


def missing(rows: Sequence[Row], config: StudyConfig) -> list[str]:
    """What a run of ``config`` has not finished yet, in words."""
    done = {name_row(row) for row in rows}
    parts = [spec.to_row() for spec in planned(config)]
    wanted = Counter((row["target"], row["mode"]) for row in parts)
    left = Counter(
        (row["target"], row["mode"]) for row in parts if name_row(row) not in done
    )
    return [
        f"{target if target != 'none' else ''} {MODE_NAMES[mode]} "
        f"({left[target, mode]} of {number})".strip()
        for (target, mode), number in wanted.items()
        if left[target, mode]
    ]


def telling(rows: Sequence[Row]) -> list[Row]:
    """The row whose firing moved furthest at kept accuracy, and one that kept both.

    Where no accuracy was kept, rows that did not collapse; the second row is of the
    first one's mode and baseline, so that the two are a fair pair.
    """
    judged = [v for v in verdicts(rows) if v.state != "reference"]
    alive = [v for v in judged if v.state != "collapsed"] or judged
    some = [v for v in alive if v.kept] or alive
    if not some:
        return []
    far = max(some, key=lambda v: v.ratio)
    fair = [
        v for v in some if all(v.row[key] == far.row[key] for key in ("mode", "seed"))
    ]
    near = min(fair, key=lambda v: v.ratio)
    return [far.row] if near is far else [far.row, near.row]
