"""Rows of runs as one frame, judged once: drift, collapse, accuracy kept or lost.

A row's EMD has an interval, by the choice of test images. Its margin is the EMD that
its procedure moves without a quantizer, on the same seed: after QAT the control's, for
PTQ+BN that of the baseline with BatchNorm re-estimated, for PTQ nothing. Firing drifted
where the interval of the difference lies above 0; where it lies on both sides, the row
cannot tell.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.sampling import LEVEL, half_width
from experiments.study.config import CLASSES
from experiments.study.names import (
    MODE_NAMES,
    method_name,
    row_order,
    setting_name,
)
from experiments.tables import emd_text, percent
from snnjax.report.text import WORDS
from snnjax.runs import Row

POINT = 0.01  # accuracy this far under the baseline's still counts as kept
ROUNDING = 1e-9  # decimals such as 0.98 - 0.97 are not exact
FEWEST = 5  # seeds: of fewer an interval over seeds is too wide to decide anything
SETTING = ["mode", "setting"]  # rows that share these differ by their seed alone
# The full-precision network that went through a mode's procedure.
REFERENCES = {"ptq": "fp32", "ptq_bn": "fp32_bn", "qat": "control"}
STATES = WORDS | {"reference": "-", "collapsed": "collapsed"}
# Means over layers of what a row tells beside its EMD, by their names in the table.
COMPANIONS = {
    "paired shift": "paired_shift",
    "KS": "ks",
    "latency EMD": "latency_emd",
    "time-W1": "time_w1",
}
_OF_SETTING = (
    *("excess_low", "excess_high", "operations_low", "operations_high"),
    *("state", "verdict"),
)
_NUMBERS = (
    *("accuracy", "mean_rate", "dead_fraction", "saturated_fraction", "emd_mean"),
    *("emd_mean_epoch_before", "synops", "floor_seed", "floor_sampling"),
    *("accuracy_noisy", "synops_largest"),
)
_TEXT = (
    *("run", "dataset", "target", "method", "grid", "clip", "signed", "site"),
    *("quantize_all", "bits", "mode", "seed", "emd", "mean_shift"),
    "accuracy_by_step",
    *COMPANIONS.values(),
)


def judge(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the rows of one or several runs (key "run"), judged, in the table's order.

    Beside the rows' keys:
        full: True if nothing is quantized.
        way, setting, label: names of the method, with its bits, with bits and mode.
        low, high: the interval of the EMD, by the choice of test images.
        margin: the EMD that the procedure moves without a quantizer.
        excess, excess_low, excess_high: the EMD less its margin, and its interval.
        operations: synaptic operations over those after the procedure without a
            quantizer, less 1; for PTQ over the baseline's.
        plain_accuracy: accuracy after the procedure without a quantizer.
        loss: accuracy that the baseline (after QAT: the control) has more.
        behind: accuracy that the better one of baseline and control has more, of which
            the maximum is biased; a loss has none.
        keeps: True if that is no more than a point.
        state: "reference", "collapsed", or a state of `snnjax.firing.verdict`.
        verdict: the state in words.
        mean.KEY: the mean over layers of a measure.
        tests: how many quantized settings there are in all.
    """
    rows = sorted(rows, key=row_order)
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
    # Of two networks on the same images this is an upper bound of the noise.
    frame["low"] = (frame["emd_mean"] - frame["floor_sampling"]).clip(lower=0)
    frame["high"] = frame["emd_mean"] + frame["floor_sampling"]
    frame = _judge(frame)
    settings = frame.loc[~frame["full"], SETTING].drop_duplicates()
    verdict = frame["state"].map(STATES).astype(object)
    return frame.assign(verdict=verdict, tests=len(settings))


def _mean_over_layers(row: Row, key: str) -> float:
    values = list((row.get(key) or {}).values())
    values = np.abs(values) if key == "mean_shift" else values
    return float(np.mean(values)) if len(values) else np.nan


def _judge(frame: pd.DataFrame) -> pd.DataFrame:
    """Add margins, loss and states."""
    mode, full = frame["mode"], frame["full"]
    margins = [
        np.select(
            [full, mode == "qat", mode == "ptq_bn", mode == "ptq"],
            [np.nan, _refer(frame, "control", key), _refer(frame, "fp32_bn", key), 0.0],
            np.nan,
        )
        for key in ("emd_mean", "low", "high")
    ]
    moved = pd.DataFrame(dict(zip(("emd_mean", "low", "high"), margins, strict=True)))
    excess, low, high = compare_emds(frame, moved)
    plain, operations = (
        pd.Series(
            np.select(
                [mode == name for name in REFERENCES],
                [_refer(frame, name, column) for name in REFERENCES.values()],
                np.nan,
            ),
            frame.index,
        )
        for column in ("accuracy", "synops")
    )
    base = _refer(frame, "fp32", "accuracy")
    tuned = plain.where(mode == "qat")
    behind = (np.fmax(base, tuned) - frame["accuracy"]).where(base.notna())
    chance = 2 / frame["dataset"].map(CLASSES).astype(float)
    fell = (frame["accuracy"] < chance) & ~(base < chance)
    loss = (tuned.fillna(base) - frame["accuracy"]).where(base.notna())
    states = {
        "reference": full,
        "collapsed": fell,
        "cannot_tell": low.isna(),
        "drift": low > 0,
        "no_drift": mode == "ptq",
        "below_margin": high < 0,
    }
    state = np.select(list(states.values()), list(states), "cannot_tell")
    return frame.assign(
        margin=moved["emd_mean"],
        excess=excess,
        excess_low=low,
        excess_high=high,
        operations=frame["synops"] / operations - 1,
        plain_accuracy=plain,
        loss=loss,
        behind=behind,
        keeps=behind <= POINT + ROUNDING,
        state=pd.Series(state, frame.index, dtype=object),
    )


def _refer(frame: pd.DataFrame, mode: str, column: str) -> pd.Series:
    """Return a column of each row's full-precision network of a mode."""
    key = ["run", "seed"]
    some = frame[frame["mode"] == mode].drop_duplicates(key, keep="last")
    found = frame[key].merge(some[[*key, column]], on=key, how="left")[column]
    return found.astype(float).set_axis(frame.index)


def compare_emds(
    one: pd.DataFrame, other: pd.DataFrame
) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Return the differences of EMDs, and their intervals' ends.

    Distances of two estimates to their ends add by squares (Zou and Donner, 2008).
    """
    apart = one["emd_mean"] - other["emd_mean"]
    below = np.hypot(one["emd_mean"] - one["low"], other["high"] - other["emd_mean"])
    above = np.hypot(one["high"] - one["emd_mean"], other["emd_mean"] - other["low"])
    return apart, apart - below, apart + above


def has_learned(accuracy: float, dataset: str) -> bool:
    """Return True if accuracy is at least twice chance, or chance is unknown."""
    return accuracy >= 2 / CLASSES.get(dataset, np.inf)


def baselines(judged: pd.DataFrame) -> pd.DataFrame:
    """Return the baselines that one run quantizes; before it does, the first one."""
    found = judged[judged["mode"] == "fp32"]
    own = found[found["seed"].isin(judged.loc[~judged["full"], "seed"])]
    return own if len(own) else found[:1]


def find_furthest(judged: pd.DataFrame) -> pd.Series:
    """Return the row whose EMD is furthest above its margin, or simply the largest."""
    excess = judged["excess"]
    return judged.loc[(judged["emd_mean"] if excess.isna().all() else excess).idxmax()]


def find_example(judged: pd.DataFrame) -> pd.Series:
    """Return the quantized row that drifted most, at kept accuracy if there is one."""
    some = judged[~judged["full"]]
    for wanted in (some["state"] != "collapsed", some["keeps"]):
        own = some[wanted.loc[some.index]]
        some = own if len(own) else some
    return find_furthest(some)


def summarize(v: pd.Series) -> str:
    """Return a row's label and numbers, for a sentence."""
    text = f"{v['label']} with accuracy {percent(v['accuracy'])} and "
    text += f"EMD {emd_text(v['emd_mean'])}"
    return text + (f" (margin {emd_text(v['margin'])})" if v["margin"] > 0 else "")


def group_settings(judged: pd.DataFrame) -> pd.DataFrame:
    """Group quantized rows that differ by their seed alone, in the table's order.

    The columns of a row, with numbers as means over seeds (NaN where one is missing),
    and:
        seeds, accuracies, emds: of each seed.
        excess_low, excess_high, operations_low, operations_high: intervals over seeds;
            of fewer than 5 from the lowest end to the highest.
        keeps: True if accuracy is kept on the mean.
        state: the one that all seeds share; "collapsed" if one did; else "cannot_tell".
            Of 5 seeds or more, where the EMD has a margin, by the interval of the mean
            excess instead; all settings' hold together at 95 % (Bonferroni).
        verdict: in words, or in how many seeds firing drifted.
    """
    quantized = judged[~judged["full"]]
    groups = quantized.groupby(SETTING, sort=False)
    means = [c for c in quantized if quantized[c].dtype == float]
    known = groups[means].count().eq(groups.size(), axis=0)
    found = quantized.drop_duplicates(SETTING).drop(columns=means).set_index(SETTING)
    found = found.join(groups[means].mean().where(known))
    judgements = [_judge_setting(own) for _, own in groups]
    # A mean of ends that were cut at 0 would lie above 0 by itself.
    found["low"] = (found["emd_mean"] - found["floor_sampling"]).clip(lower=0)
    return found.assign(
        seeds=groups["seed"].agg(tuple),
        accuracies=groups["accuracy"].agg(list),
        emds=groups["emd_mean"].agg(list),
        keeps=found["behind"] <= POINT + ROUNDING,
        **pd.DataFrame(judgements, found.index, _OF_SETTING),
    ).reset_index()


def _judge_setting(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the state of a setting, its verdict, and its intervals over seeds."""
    states, few = list(rows["state"]), len(rows) < FEWEST
    # Of all that were judged, whichever of them are grouped here.
    level = 1 - (1 - LEVEL) / rows["tests"].iloc[0]
    ends = {
        "excess": (rows["excess_low"].min(), rows["excess_high"].max()),
        "operations": (rows["operations"].min(), rows["operations"].max())
        if len(rows) > 1
        else (np.nan, np.nan),
    }
    if not few:
        for name in ends:
            mean, half = rows[name].mean(skipna=False), half_width(rows[name], level)
            ends[name] = mean - half, mean + half
    low, high = ends["excess"]
    state, verdict = _share_state(states)
    if not few and rows["margin"].all() and "collapsed" not in states and low == low:
        state = "drift" if low > 0 else "below_margin" if high < 0 else "cannot_tell"
        verdict = STATES[state]
    found = {f"{name}_low": low for name, (low, _) in ends.items()}
    found |= {f"{name}_high": high for name, (_, high) in ends.items()}
    return found | {"state": state, "verdict": verdict}


def _share_state(states: list[str]) -> tuple[str, str]:
    """Return the state of a setting from its seeds', and that in words."""
    for state in ("collapsed", "drift"):
        number = states.count(state)
        if 0 < number < len(states):
            shared = state if state == "collapsed" else "cannot_tell"
            return shared, f"{state} in {number} of {len(states)}"
    shared = states[0] if len(set(states)) == 1 else "cannot_tell"
    return shared, STATES[shared]
