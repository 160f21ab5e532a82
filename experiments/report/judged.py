"""Rows of runs as one frame, judged once: drift, collapse, and the floors behind both.

A row's EMD is set against two floors, EMDs that show without any quantization. The
noise floor is the largest known one: of fine-tuning in full precision, of another seed,
of other test images. The lower floor is what the row's procedure moves without a
quantizer: other test images; after QAT also fine-tuning; for PTQ+BN also re-estimating
BatchNorm.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.report.formats import emd_text, is_missing, percent
from experiments.report.names import (
    FLOORS,
    MODE_NAMES,
    method_name,
    method_order,
    setting_name,
)
from experiments.study.config import CLASSES
from snnjax.runs import Row

POINT = 0.01  # accuracy this far under the baseline's still counts as kept
ROUNDING = 1e-9  # decimals such as 0.98 - 0.97 are not exact
SETTING = ["mode", "setting"]  # rows that share these differ by their seed alone
# Means over layers of what a row tells beside its EMD, by their names in the table.
COMPANIONS = {
    "paired shift": "paired_shift",
    "KS": "ks",
    "latency EMD": "latency_emd",
    "time-W1": "time_w1",
}
_NUMBERS = (
    *("accuracy", "mean_rate", "dead_fraction", "saturated_fraction", "emd_mean"),
    *("emd_mean_epoch_before", "synops", *FLOORS),
)
_TEXT = (
    *("run", "dataset", "target", "method", "grid", "clip", "signed", "site"),
    *("quantize_all", "bits", "mode", "seed", "emd", "mean_shift"),
    *COMPANIONS.values(),
)


def table_order(row: Row) -> tuple[Any, ...]:
    """Sort key of the table's lines."""
    target, everywhere, site, *method = method_order(row)
    mode = list(MODE_NAMES).index(row["mode"])
    scope = (target, everywhere, site, mode)
    return (*scope, *method, row["bits"] or 0, row["seed"], row.get("run", ""))


def judge(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the rows of one or several runs (key "run"), judged, in the table's order.

    Beside the rows' keys:
        full: True if nothing is quantized.
        way, setting, label: names of the method, with its bits, with bits and mode.
        floor, lower: the floors, NaN where they are unknown.
        loss: accuracy that the baseline (after QAT: or the control) has more.
        keeps: True if accuracy is within a point of it.
        state: "reference", "collapsed", "no floor", "within" or "drift".
        lower_state: likewise, by the lower floor.
        ratio, lower_ratio: EMD over the floors.
        drift: the drift in words.
        mean.KEY: the mean over layers of a measure.
    """
    rows = sorted(rows, key=table_order)
    frame = pd.DataFrame(rows, columns=[*_TEXT, *_NUMBERS], dtype=object)
    frame[list(_NUMBERS)] = frame[list(_NUMBERS)].astype(float)
    frame["run"] = frame["run"].fillna("")
    frame["full"] = (frame["target"] == "none").astype(bool)
    for name, make in (("way", method_name), ("setting", setting_name)):
        frame[name] = pd.Series([make(row) for row in rows], dtype=object)
    names = pd.Series([MODE_NAMES[row["mode"]] for row in rows], dtype=object)
    frame["label"] = frame["setting"] + " " + names
    for key in ("mean_shift", *COMPANIONS.values()):
        frame[f"mean.{key}"] = [_mean_over_layers(row, key) for row in rows]
    frame = _judge(frame)
    frame["drift"] = pd.Series(
        [_drift_label(v) for _, v in frame.iterrows()], dtype=object
    )
    return frame


def _mean_over_layers(row: Row, key: str) -> float:
    values = list((row.get(key) or {}).values())
    values = np.abs(values) if key == "mean_shift" else values
    return float(np.mean(values)) if len(values) else np.nan


def _judge(frame: pd.DataFrame) -> pd.DataFrame:
    """Add floors, loss and states."""
    mode, emd, full = frame["mode"], frame["emd_mean"], frame["full"]
    base = _reference(frame, "fp32", "accuracy")
    moved = _reference(frame, "control", "emd_mean")
    reestimated = _reference(frame, "fp32_bn", "emd_mean")
    sampling = frame["floor_sampling"]
    control = frame["floor_control"].fillna(moved)
    floor = pd.concat([control, frame["floor_seed"], sampling], axis=1).max(axis=1)
    higher = floor.notna() & (mode == "ptq_bn") & (reestimated > floor)
    lower = sampling.mask(mode == "qat", np.maximum(sampling, control))
    lower = lower.mask(mode == "ptq_bn", np.maximum(sampling, reestimated))
    best = np.fmax(base, _reference(frame, "control", "accuracy").where(mode == "qat"))
    chance = 2 / frame["dataset"].map(CLASSES).astype(float)
    fell = (frame["accuracy"] < chance) & ~(base < chance)
    frame = frame.assign(
        floor=floor.mask(higher, reestimated).mask(full),
        lower=lower.mask(full),
        loss=(best - frame["accuracy"]).where(base.notna()),
    )
    frame["keeps"] = frame["loss"] <= POINT + ROUNDING
    for name, limit in (("", frame["floor"]), ("lower_", frame["lower"])):
        states = np.select([full, fell, limit.isna(), emd > limit], _STATES, "within")
        frame[f"{name}state"] = pd.Series(states, frame.index, dtype=object)
        frame[f"{name}ratio"] = emd / limit.fillna(0).clip(lower=1e-12)
    return frame


_STATES = ["reference", "collapsed", "no floor", "drift"]


def _reference(frame: pd.DataFrame, mode: str, column: str) -> pd.Series:
    """Return a column of each row's full-precision network of a mode."""
    key = ["run", "seed"]
    some = frame[frame["mode"] == mode].drop_duplicates(key, keep="last")
    found = frame[key].merge(some[[*key, column]], on=key, how="left")[column]
    return found.astype(float).set_axis(frame.index)


def _drift_label(v: pd.Series) -> str:
    """Describe a row's drift in a word or two."""
    if v["state"] == "drift":
        return f"{v['ratio']:.2f} x floor"
    if v["mode"] == "control":
        return "noise floor"
    if v["lower_state"] == "drift":
        return f"{v['lower_ratio']:.2f} x lower"
    still = v["state"] == "within" and v["emd_mean"] <= v["floor_sampling"]
    return "no drift seen" if still else v["state"]


def by_lower(judged: pd.DataFrame) -> pd.DataFrame:
    """Return the rows judged by their lower floors."""
    new = {"floor": "lower", "state": "lower_state", "ratio": "lower_ratio"}
    return judged.assign(**{name: judged[own] for name, own in new.items()})


def has_learned(accuracy: float, dataset: str) -> bool:
    """Return True if accuracy is at least twice chance, or chance is unknown."""
    return accuracy >= 2 / CLASSES.get(dataset, np.inf)


def baselines(judged: pd.DataFrame) -> pd.DataFrame:
    """Return the baselines that one run quantizes; before it does, the first one."""
    found = judged[judged["mode"] == "fp32"]
    own = found[found["seed"].isin(judged.loc[~judged["full"], "seed"])]
    return own if len(own) else found[:1]


def noise_floors(judged: pd.DataFrame) -> dict[str, float]:
    """Return the largest known noise floors of one run by their names in a row."""
    quantized = judged[~judged["full"]]
    known = (quantized if len(quantized) else judged)[list(FLOORS)].max().to_dict()
    controls = judged.loc[judged["mode"] == "control", "emd_mean"]
    # Where no row has it, the control's own EMD is the control's floor.
    if is_missing(known["floor_control"]) and len(controls):
        known["floor_control"] = controls.iloc[0]
    return {name: value for name, value in known.items() if not is_missing(value)}


def illustrative_rows(judged: pd.DataFrame) -> pd.DataFrame:
    """Return the row that drifted most at kept accuracy, and one that kept both.

    Where no accuracy was kept, rows that did not collapse; the second row has the
    first one's mode and seed, so that the two are a fair pair.
    """
    some = judged[~judged["full"]]
    for wanted in (some["state"] != "collapsed", some["keeps"]):
        own = some[wanted.loc[some.index]]
        some = own if len(own) else some
    if not len(some):
        return some
    far = some.loc[some["ratio"].idxmax()]
    fair = some[(some["mode"] == far["mode"]) & (some["seed"] == far["seed"])]
    return some.loc[list(dict.fromkeys([far.name, fair["ratio"].idxmin()]))]


def summarize(v: pd.Series) -> str:
    """Return a row's label and numbers, for a sentence."""
    text = f"{v['label']} with accuracy {percent(v['accuracy'])} and "
    text += f"EMD {emd_text(v['emd_mean'])}"
    return text + (f", {v['ratio']:.2f} times its floor" if v["floor"] > 0 else "")


def select_quantized(judged: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that quantize something."""
    return judged[~judged["full"]]
