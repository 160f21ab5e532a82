"""Pairs of rows: what differs in one option, and what is equal in accuracy."""

import math

import pytest
from planted import FLOOR, MEMBRANE, WEIGHTS, quantized, read_table, reference
from studied import BASE, a_run

from experiments.report import pairs
from experiments.report.judged import judge
from experiments.study.config import StudyConfig


def test_matched_pairs():
    rows = [
        quantized(way, bits, mode, seed=seed)
        for way in WEIGHTS + MEMBRANE
        for bits in (2, 4)
        for mode in ("ptq", "qat")
        for seed in (0, 1)
    ]
    clips = pairs.match_pairs(judge(rows), "clip", 1.0, 10.0)
    assert len(clips) == 3 * 2 * 2 * 2
    same = [*("target", "method", "grid", "bits", "mode", "seed")]
    assert clips.one[same].equals(clips.other[same])
    assert set(clips.one["clip"]) == {1.0}
    assert set(clips.other["clip"]) == {10.0}
    # A partner that is missing leaves the other alone.
    assert len(pairs.match_pairs(judge(rows[1:]), "clip", 1.0, 10.0)) == 23


def test_equal_accuracy_pairs():
    rows = [
        quantized(WEIGHTS[i], 4, mode, seed=seed, emd=emd)
        for i, mode, seed, emd in (
            (0, "ptq", 0, 0.002),
            (1, "ptq", 0, 0.006),
            (2, "ptq", 0, 0.020),
            (3, "ptq", 1, 0.001),
            (4, "qat", 0, 0.001),
        )
    ]
    found = pairs.equal_accuracy_pairs(judge(reference((0, 1)) + rows))
    emds = list(zip(found.one["emd_mean"], found.other["emd_mean"], strict=True))
    assert emds == [(0.020, 0.002), (0.020, 0.006), (0.006, 0.002)]
    assert list(found.ratio.round(3)) == [10, 3.333, 3]


@pytest.mark.parametrize(
    ("far", "near", "more", "hides"),
    [
        # Beyond the control's interval, which is 0.0012 on either side as the row's.
        (FLOOR + 0.0018, 0.002, {}, True),
        (FLOOR + 0.0016, 0.002, {}, False),
        # It drifted, but the other one nearly as far.
        (FLOOR + 0.0018, FLOOR + 0.0002, {}, False),
        (0.2, 0.002, {"accuracy": 0.5}, False),
        # By PTQ nothing but other test images moves firing.
        (0.0032, 0.0, {"mode": "ptq"}, True),
        (0.0032, 0.002, {"mode": "ptq"}, False),
        (0.0032, 0.0, {"mode": "ptq", "floor_sampling": None}, False),
    ],
)
def test_hidden_drift(far, near, more, hides):
    more = {"mode": "qat"} | more
    rows = [
        quantized(WEIGHTS[i], 4, emd=emd, **more) for i, emd in enumerate((far, near))
    ]
    judged = judge(reference() + rows)
    found = pairs.equal_accuracy_pairs(judged)
    assert list(found.hides) == [hides]
    tables = pairs.tabulate_equal_pairs(judged)
    (counts,) = read_table(tables["counts"])
    assert counts["and hide a drift"] == str(int(hides))
    assert bool(tables["pairs"]) == hides


def test_ratio_to_zero():
    for emd, ratio in ((0.1, math.inf), (0.0, 1.0)):
        rows = [quantized(WEIGHTS[i], 4, "qat", emd=emd * i) for i in (0, 1)]
        found = pairs.equal_accuracy_pairs(judge(reference() + rows))
        assert list(found.ratio) == [ratio]


def test_empty_tables():
    assert pairs.tabulate_equal_pairs(judge([])) == {"counts": "", "pairs": ""}


CONFIG = StudyConfig(bits=(2, 4, 8), modes=("ptq", "qat"), ablation_bits=(2, 4))


def changed(row):
    """Mid-tread costs 2 points, pre-fire 0.001 EMD a bit, everywhere both."""
    change = {}
    if row["grid"] == "mid_tread" and row["target"] == "weights":
        change = {"accuracy": BASE - 0.02}
    if row["site"] == "pre_fire":
        change = {"emd": 0.0005 + 0.001 * row["bits"]}
    if row["quantize_all"]:
        change = {"accuracy": BASE - 0.05, "emd": 0.0105}
    return change


def test_choices_have_the_pairs_of_the_ablation_bits():
    found = pairs.tabulate_choices(a_run(CONFIG, changed))
    tables = {title: read_table(text) for title, text in found.items()}
    # Two clips, two signs, six methods; each at two bits in two modes.
    numbers = {
        title: sum(int(line["pairs"]) for line in lines)
        for title, lines in tables.items()
    }
    assert numbers == {"Grid type": 8, "Membrane site": 8, "Scope": 24}
    lines = tables["Membrane site"]
    assert [(li["mode"], li["bits"]) for li in lines] == [
        (m, b) for m in ("PTQ", "QAT") for b in "24"
    ]
    assert lines[0]["EMD"] == "+0.0020 (+0.0020 to +0.0020)"
    assert lines[1]["EMD"] == "+0.0040 (+0.0040 to +0.0040)"
    assert lines[0]["EMDs clearly apart"] == "2"
    for line in tables["Grid type"]:
        assert (line["accuracy, points"], line["EMD"]) == ("-2.00", "+0.0000")
        assert line["EMDs clearly apart"] == "0"
    assert {li["accuracy, points"].split()[0] for li in tables["Scope"]} <= {
        *("-5.00", "-4.33", "-3.67")
    }


def test_collapsed_pairs_are_counted():
    def collapses(row):
        some = row["quantize_all"] and row["method"] == "lq_net"
        return {"accuracy": 0.1, "emd": 0.2} if some else changed(row)

    lines = read_table(pairs.tabulate_choices(a_run(CONFIG, collapses))["Scope"])
    assert {line["with a collapse"] for line in lines} == {"1"}


def test_choices_without_ablation():
    found = pairs.tabulate_choices(a_run())
    assert found["Scope"] == found["Membrane site"] == "Not part of this run.\n"
    bits = {line["bits"] for line in read_table(found["Grid type"])}
    assert bits == {"2", "4", "8"}
    one_grid = StudyConfig(bits=(2,), grid=("mid_rise",))
    assert "Grid type" not in pairs.tabulate_choices(a_run(one_grid))


def test_config_may_be_the_other_side():
    """Blocks are the one side and everywhere the other, whichever the config has."""
    config = StudyConfig(
        bits=(2,), modes=("ptq",), ablation_bits=(2,), quantize_all=True
    )
    text = pairs.tabulate_choices(a_run(config, changed))["Scope"]
    assert text.startswith("everywhere in place of blocks")
    assert read_table(text)[0]["accuracy, points"].startswith("-4.33")
