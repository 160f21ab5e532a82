"""Verdicts: drift, collapse, margins; and what an unfinished run misses."""

import numpy as np
import pytest
from planted import FLOOR, MEMBRANE, WEIGHTS, a_row, quantized, reference
from scipy import stats

from experiments.report.judged import (
    baselines,
    find_example,
    group_settings,
    judge,
)
from experiments.report.run import describe_missing
from experiments.study.config import StudyConfig


def test_no_collapse_with_an_untrained_baseline():
    base = [a_row("fp32", accuracy=0.15), a_row("control", accuracy=0.16, emd=FLOOR)]
    row = quantized(WEIGHTS[0], 2, "qat", emd=0.002, accuracy=0.14)
    assert judge([*base, row]).iloc[-1].state == "below_margin"


def test_chance_follows_the_classes():
    rows = [*reference(), quantized(WEIGHTS[0], 2, "qat", emd=0.002, accuracy=0.12)]
    assert judge(rows).iloc[-1].state == "collapsed"
    for row in rows:
        row["dataset"] = "cifar100"
    assert judge(rows).iloc[-1].state == "below_margin"


@pytest.mark.parametrize(
    ("mode", "emd", "state"),
    [
        # Beyond no margin: EMD's interval, 0.0012 on either side, reaches 0 or not.
        ("ptq", 0.0012, "no_drift"),
        ("ptq", 0.0013, "drift"),
        # The control moved 0.0047; the two intervals add by squares, to 0.0017.
        ("qat", 0.0029, "below_margin"),
        ("qat", 0.0031, "cannot_tell"),
        ("qat", 0.0063, "cannot_tell"),
        ("qat", 0.0065, "drift"),
        # Re-estimated BatchNorm moved 0.0002, from an interval that ends at 0.
        ("ptq_bn", 0.0014, "cannot_tell"),
        ("ptq_bn", 0.0021, "drift"),
    ],
)
def test_states(mode, emd, state):
    row = quantized(WEIGHTS[0], 2, mode, emd=emd)
    judged = judge([*reference(), row]).iloc[-1]
    assert judged.state == state
    assert judged.margin == {"ptq": 0, "qat": FLOOR, "ptq_bn": 0.0002}[mode]
    assert judged.low == pytest.approx(emd - 0.0012)
    # Another seed's references are not its own.
    other = judge([*reference((1,)), row]).iloc[-1]
    assert other.state == (state if mode == "ptq" else "cannot_tell")
    # What is unknown is not taken for 0.
    row["floor_sampling"] = None
    assert judge([*reference(), row]).iloc[-1].state == "cannot_tell"


def test_settings_share_a_state():
    def state(*emds):
        rows = [
            quantized(WEIGHTS[0], 2, "ptq", seed=s, emd=emd)
            for s, emd in enumerate(emds)
        ]
        return group_settings(judge([*reference((0, 1)), *rows])).iloc[0]

    one = state(0.002, 0.004)
    assert (one.state, one.verdict, one.seeds) == ("drift", "drift", (0, 1))
    assert (one.emd_mean, one.low) == (pytest.approx(0.003), pytest.approx(0.0018))
    assert (state(0.002, 0.001).state, state(0.002, 0.001).verdict) == (
        *("cannot_tell", "drift in 1 of 2"),
    )


def plant_operations(seeds, gain):
    """Return references and a setting with as many operations more, a seed."""
    rows = [*reference(seeds)]
    rows += [quantized(WEIGHTS[0], 2, "qat", seed=seed, emd=0.004) for seed in seeds]
    for row in rows:
        row["synops"] = 1000.0 + 50 * row["seed"]
        row["synops"] *= 2 if row["mode"] == "fp32" else 1
        row["synops"] *= 1 + gain[row["seed"]] if row["target"] != "none" else 1
    return group_settings(judge(rows)).iloc[0]


def test_operations_beside_the_control():
    gain = np.array([0.01, 0.03, 0.02, 0.04, 0.05])
    own = plant_operations(range(5), gain)
    ends = stats.t.interval(0.95, 4, gain.mean(), stats.sem(gain))
    assert own.operations == pytest.approx(0.03)
    assert (own.operations_low, own.operations_high) == pytest.approx(ends)
    few = plant_operations(range(2), gain)
    assert (few.operations_low, few.operations_high) == pytest.approx((0.01, 0.03))
    one = plant_operations(range(1), gain)
    assert one.operations == pytest.approx(0.01)
    assert np.isnan(one.operations_low)


def test_excess_of_many_seeds_by_students_t():
    excess = np.array([0.003, 0.004, 0.005, 0.006, 0.009])
    rows = [
        quantized(WEIGHTS[0], 2, "qat", seed=seed, emd=FLOOR + more)
        for seed, more in enumerate(excess)
    ]
    own = group_settings(judge([*reference(range(5)), *rows])).iloc[0]
    ends = stats.t.interval(0.95, 4, excess.mean(), stats.sem(excess))
    assert (own.excess_low, own.excess_high) == pytest.approx(ends)
    assert own.state == "drift"


# Of a baseline of 97.8 % and a control, trained as long as QAT is, of 98.0 %.
@pytest.mark.parametrize(
    ("mode", "accuracies"), [("ptq", (0.968, 0.967)), ("qat", (0.970, 0.969))]
)
def test_kept_accuracy(mode, accuracies):
    rows = [
        quantized(WEIGHTS[0], bits, mode, accuracy=accuracy)
        for bits, accuracy in zip((2, 4), accuracies, strict=True)
    ]
    assert list(judge([*reference(), *rows])["keeps"])[-2:] == [True, False]
    assert np.isnan(judge(rows).iloc[0].loss)


def test_worse_control_keeps_nothing():
    baseline, control, *_ = reference()
    row = quantized(WEIGHTS[0], 2, "qat", accuracy=0.95)
    control["accuracy"] = 0.95
    assert not judge([baseline, control, row]).iloc[-1].keeps


def test_example_keeps_accuracy():
    rows = [
        quantized(WEIGHTS[0], 2, "qat", emd=0.006),
        quantized(WEIGHTS[1], 2, "qat", emd=0.030, accuracy=0.5),
        # Further from its margin of 0 than the first from the control's.
        quantized(WEIGHTS[1], 2, "ptq", emd=0.005),
    ]
    assert find_example(judge(reference() + rows))["mode"] == "ptq"
    assert find_example(judge(reference() + rows[1:2]))["emd_mean"] == 0.030


def test_loss_is_against_the_baseline_of_the_seed():
    bases = [a_row("fp32", seed=seed, accuracy=0.9 + seed / 100) for seed in (0, 1)]
    rows = [quantized(WEIGHTS[0], 2, "qat", seed=s, accuracy=0.9) for s in (0, 1, 2)]
    judged = judge(bases + rows)
    losses = list(judged["loss"][~judged["full"]])
    assert losses == pytest.approx([0.0, 0.01, np.nan], nan_ok=True)


def test_baselines_of_quantized_seeds():
    rows = reference((0, 1, 2))
    assert list(baselines(judge(rows))["seed"]) == [0]
    rows += [quantized(WEIGHTS[0], 2, "qat", seed=seed) for seed in (1, 2)]
    assert list(baselines(judge(rows))["seed"]) == [1, 2]
    assert len(baselines(judge([]))) == 0


@pytest.mark.parametrize(
    ("config", "bits", "missing"),
    [
        ({"modes": ("qat",), "bits": (2, 8)}, (2, 8), []),
        ({"modes": ("qat",), "bits": (2, 8)}, (2,), ["membrane QAT (2 of 4)"]),
        # Rows of other bits do not stand in for those that are missing.
        ({"modes": ("qat",), "bits": (2,)}, (4,), ["membrane QAT (2 of 2)"]),
    ],
)
def test_missing_rows(config, bits, missing):
    config = StudyConfig(only="membrane", seeds=(0,), **config)
    rows = [*reference(), *(quantized(w, b, "qat") for w in MEMBRANE for b in bits)]
    assert describe_missing(rows, config) == missing


def test_lq_net_has_no_wide_bits():
    config = StudyConfig(only="weights", modes=("ptq",), bits=(8, 16))
    assert describe_missing(reference((0, 1)), config) == ["weights PTQ (10 of 10)"]
