"""The three findings, from planted rows."""

import re

import pytest
from planted import MEMBRANE, WEIGHTS, a_row, grid, quantized, reference

from experiments.report import findings, table
from experiments.report.judged import find_example, judge
from experiments.study.store import StudyStore


def sentences(text):
    """How many sentences a text has: full stops, but not those in a number."""
    return len(re.findall(r"[.!?](?:\s|$)", text))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [a_row("fp32")],
        reference((0, 1)),
        reference() + grid(modes=("ptq",), bits=(2, 8)),
        reference() + grid(emd=0.02),
        grid(),
        grid(floor_sampling=None),
        reference() + grid(accuracy=0.1, emd=0.2),
        [*reference(), quantized(WEIGHTS[0], 2, "qat", emd=0.02)],
        [
            *reference(),
            quantized(WEIGHTS[0], 2, "ptq"),
            quantized(MEMBRANE[0], 4, "ptq"),
        ],
    ],
)
def test_three_sentences(rows):
    found = findings(judge(rows))
    assert [sentences(text) for text in found] == [1, 1, 1]
    assert isinstance(table.markdown(judge(rows)), str)


def test_baseline_and_what_moves_it():
    rows = reference() + grid()
    first = findings(judge(rows))[0]
    for number in ("97.8%", "0.123", "41.2%", "0.0047", "0.0012"):
        assert number in first
    assert "an unknown EMD" in findings(judge(rows[:1]))[0]
    assert "baseline is missing" in findings(judge(grid()))[0]


@pytest.mark.slow
def test_planted_drift(full_run):
    path, _ = full_run
    rows = StudyStore(path).rows()
    _, drift, methods = findings(judge(rows))
    # By PTQ 0.0030 is drift; by QAT it is less than the control's 0.0047.
    assert "64 of 96" in drift
    assert "PTQ 32 of 32, PTQ+BN 32 of 32, QAT 0 of 32" in drift
    assert "32 moved less than that" in drift
    assert "uniform mid-tread wide 6 bit PTQ" in drift
    assert "97.2%" in drift
    assert "EMD 0.0263" in drift
    assert methods.startswith("By QAT, over 2, 4, 6, 8 bits")
    example = find_example(judge(rows))
    assert example["setting"] == "uniform mid-tread wide 6 bit"


@pytest.mark.parametrize(
    ("emd", "kept", "furthest"),
    [
        (0.001, "1 keep", "uniform mid-tread wide 4 bit PTQ with accuracy 60.0%"),
        # A drift that accuracy hides is named before a larger one.
        (0.01, "1 of which", "these is uniform mid-rise narrow 4 bit PTQ"),
    ],
)
def test_furthest_drift(emd, kept, furthest):
    bad = quantized(WEIGHTS[3], 4, "ptq", emd=0.09, accuracy=0.6)
    good = quantized(WEIGHTS[0], 4, "ptq", emd=emd)
    drift = findings(judge([*reference(), good, bad]))[1]
    assert kept in drift
    assert furthest in drift
    assert ("of which drift" in drift) == (emd > 0.005)


def test_several_seeds():
    rows = reference((0, 1))
    rows[3] |= {"accuracy": 0.968}
    rows += [
        quantized(WEIGHTS[0], 4, "qat", seed=seed, emd=0.01 * (1 + seed))
        for seed in (0, 1)
    ]
    first, drift, _ = findings(judge(rows))
    assert "97.3% accuracy" in first
    assert "(means over 2 seeds)" in first
    assert "EMD 0.0200 (margin 0.0047)" in drift
    assert drift.endswith("seed 1.")
    assert "seed" not in findings(judge(rows[:-1]))[1]
    assert "means" not in findings(judge(rows[:-1]))[0]


def test_ranking_at_common_bits():
    best = [quantized(WEIGHTS[4], b, "qat", emd=0.006) for b in (2, 8)]
    # Better at 8 bit, but measured nowhere else: at 8 bit LQ-Net is ahead.
    other = [quantized(WEIGHTS[0], 8, "qat", emd=0.0062)]
    best[0]["emd_mean"] = 0.02
    third = findings(judge([*reference(), *best, *other]))[2]
    assert "over 8 bits" in third
    assert "best by LQ-Net narrow (mean EMD 0.0060)" in third
    assert "worst by uniform mid-rise narrow (0.0062)" in third


def test_collapse_is_no_drift():
    rows = [*reference(), quantized(WEIGHTS[3], 2, "ptq", emd=0.12, accuracy=0.12)]
    verdict = judge(rows).iloc[-1]
    assert verdict.state == "collapsed"
    drift = findings(judge(rows))[1]
    assert "1 collapsed" in drift
    assert "drifts in 0 of 1" in drift
