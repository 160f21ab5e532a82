"""Verdicts: drift, collapse, floors; and what an unfinished run misses."""

import numpy as np
import pytest
from planted import FLOOR, MEMBRANE, WEIGHTS, a_row, quantized, reference

from experiments.report.judged import baselines, illustrative_rows, judge
from experiments.report.run import describe_missing
from experiments.study.config import StudyConfig


def test_no_collapse_with_an_untrained_baseline():
    base = [a_row("fp32", accuracy=0.15), a_row("control", accuracy=0.16, emd=FLOOR)]
    row = quantized(WEIGHTS[0], 2, "qat", emd=0.002, accuracy=0.14)
    assert judge([*base, row]).iloc[-1].state == "within"


def test_chance_follows_the_classes():
    rows = [*reference(), quantized(WEIGHTS[0], 2, "qat", emd=0.002, accuracy=0.12)]
    assert judge(rows).iloc[-1].state == "collapsed"
    for row in rows:
        row["dataset"] = "cifar100"
    assert judge(rows).iloc[-1].state == "within"


@pytest.mark.parametrize(
    ("floors", "expected"),
    [((0.001, 0.005, 0.002), 0.005), ((None, None, 0.002), 0.002)],
)
def test_floor_is_the_largest_that_exists(floors, expected):
    names = ("floor_control", "floor_seed", "floor_sampling")
    row = quantized(WEIGHTS[0], 2, "qat", **dict(zip(names, floors, strict=True)))
    assert judge([row]).iloc[0].floor == expected


def test_emd_at_the_floor():
    at, above = (quantized(WEIGHTS[0], b, "qat", emd=FLOOR) for b in (2, 4))
    above["emd_mean"] = np.nextafter(FLOOR, 1)
    states = list(judge([*reference(), at, above])["state"])
    assert states[-2:] == ["within", "drift"]


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


def test_batchnorm_floor():
    rows = [quantized(WEIGHTS[0], 2, mode, emd=0.1) for mode in ("ptq", "ptq_bn")]
    other = quantized(WEIGHTS[0], 2, "ptq_bn", emd=0.1, seed=1)
    references = reference((0, 1))
    for moved, floor, lower in ((0.002, FLOOR, 0.002), (0.01, 0.01, 0.01)):
        references[2]["emd_mean"] = moved
        judged = judge([*references, *rows, other])
        ptq, reestimated, elsewhere = (v for _, v in judged.iloc[-3:].iterrows())
        assert (ptq.floor, ptq.lower) == (FLOOR, 0.0012)
        assert (reestimated.floor, reestimated.lower) == (floor, lower)
        assert elsewhere.floor == FLOOR


@pytest.mark.parametrize(
    ("mode", "emd", "states"),
    [
        # The lower floor of PTQ is sampling's 0.0012, of QAT the control's 0.0047.
        ("ptq", 0.0012, ("within", "within")),
        ("ptq", 0.0013, ("within", "drift")),
        ("ptq", 0.0048, ("within", "drift")),
        ("qat", 0.0047, ("within", "within")),
        ("qat", 0.0048, ("within", "drift")),
        ("qat", 0.0061, ("drift", "drift")),
    ],
)
def test_both_floors(mode, emd, states):
    row = quantized(WEIGHTS[0], 2, mode, emd=emd, floor_seed=0.006)
    judged = judge([*reference(), row]).iloc[-1]
    assert (judged.state, judged.lower_state) == states
    assert judged.floor == 0.006
    # What is unknown is not taken for 0.
    row["floor_sampling"] = None
    unknown = judge([*reference(), row]).iloc[-1]
    assert np.isnan(unknown.lower)
    assert unknown.lower_state == "no floor"


def test_collapse_by_either_floor():
    row = quantized(WEIGHTS[0], 2, "ptq", emd=0.1, accuracy=0.1)
    judged = judge([*reference(), row])
    assert judged.iloc[-1].lower_state == "collapsed"
    assert set(judged["lower_state"][:-1]) == {"reference"}


def test_illustrative_rows():
    rows = [
        quantized(WEIGHTS[0], 2, "qat", seed=0, emd=0.020),
        quantized(WEIGHTS[1], 2, "qat", seed=0, emd=0.006),
        quantized(WEIGHTS[1], 2, "qat", seed=1, emd=0.001),
        quantized(WEIGHTS[1], 2, "ptq", seed=0, emd=0.001),
    ]
    found = illustrative_rows(judge(reference((0, 1)) + rows))
    assert list(found["emd_mean"]) == [0.020, 0.006]
    assert set(found["seed"]) == {0}


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
