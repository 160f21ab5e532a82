"""Pairs of rows: what differs in one option, and what is equal in accuracy."""

import math

from planted import FLOOR, MEMBRANE, WEIGHTS, quantized, reference

from experiments.report import pairs
from experiments.report.judged import judge


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


def test_table_order():
    rows = [
        quantized(WEIGHTS[i], 4, "qat", emd=emd, accuracy=accuracy)
        for i, emd, accuracy in (
            (0, 0.0001, 0.978),
            (1, 0.0041, 0.978),
            (2, 0.0080, 0.970),
            (3, 0.0030, 0.970),
            (4, 0.0002, 0.978),
        )
    ]
    lines = pairs.tabulate_pairs(pairs.equal_accuracy_pairs(judge(reference() + rows)))
    first, second = (
        [line[name] for name in ("EMD", "its EMD", "ratio", "drift")] for line in lines
    )
    # 41 times apart, but within the floor; 2.7 times, and beyond it.
    assert first == ["0.0080", "0.0030", "2.67", "1.70 x floor"]
    assert second[:3] == ["0.0041", "0.0001", "41.00"]


def test_marks():
    def pair(far, near, mode="qat", **more):
        rows = [
            quantized(WEIGHTS[i], 4, mode, emd=emd, **more)
            for i, emd in enumerate((far, near))
        ]
        found = pairs.equal_accuracy_pairs(judge(reference() + rows))
        assert found.differs.all()
        (mark,), (line,) = found.marks, pairs.tabulate_pairs(found)
        assert line["pair"] == mark
        assert found.hides.all() == (mark == "hides a drift")
        return mark

    assert pair(FLOOR + 0.0021, 0.002) == "hides a drift"
    # Above the floor, but the two are no floor apart; and below it.
    assert pair(FLOOR + 0.0019, 0.002) == "difference within the lower floor"
    assert pair(FLOOR - 0.0001, 0.0) == "difference within the lower floor"
    assert pair(0.2, 0.002, accuracy=0.5) == "accuracy not kept"
    # By PTQ the lower floor is other test images' alone, 0.0012.
    lower = "hides a drift, by the lower floor"
    assert pair(FLOOR - 0.0001, 0.002, mode="ptq") == lower
    assert pair(0.0013, 0.0, mode="ptq") == lower
    assert pair(0.0032, 0.0021, mode="ptq") == "difference within the lower floor"
    none = {"floor_sampling": None}
    assert pair(0.0032, 0.002, mode="ptq", **none) == "difference within the floor"


def test_ratio_to_zero():
    rows = [quantized(WEIGHTS[i], 4, "qat", emd=emd) for i, emd in enumerate((0.1, 0))]
    found = pairs.equal_accuracy_pairs(judge(reference() + rows))
    assert list(found.ratio) == [math.inf]
    assert pairs.tabulate_pairs(found)[0]["ratio"] == "inf"
    rows = [quantized(WEIGHTS[i], 4, "qat", emd=0.0) for i in (0, 1)]
    found = pairs.equal_accuracy_pairs(judge(reference() + rows))
    assert (list(found.ratio), list(found.differs)) == ([1.0], [False])


def test_empty_table():
    assert pairs.tabulate_pairs(pairs.equal_accuracy_pairs(judge([]))) == []
