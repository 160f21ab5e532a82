"""The paper's claims: which rows count, and when none is decided."""

import pytest
from studied import BASE, CONFIG, MOVED, a_run, rows_of

from experiments.report.claims import (
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    UNDECIDED,
    UNFINISHED,
    judge_claims,
)
from experiments.report.effects import MEASURES
from experiments.study.config import StudyConfig

WIDE, LQ_NET, BEFORE, FOUR, UNSIGNED, TRAINED = range(1, 7)
FIVE = StudyConfig(bits=(2, 4, 8), seeds=tuple(range(5)), repeat=True).resolve()


def wide(row):
    return row["method"] == "uniform" and row["clip"] == 10.0


def test_fewer_than_5_seeds_decide_nothing():
    def tell(row):
        return {"emd": 0.004 + 0.001 * row["seed"]} if wide(row) else {"emd": 0.001}

    few = judge_claims(a_run(tell=tell))
    assert len(few) == len(MEASURES) == 7
    assert [one.verdict for one in few] == [UNDECIDED] * 6 + [NOT_RUN]
    # The mean, the lowest and the highest.
    assert "+0.0035 [+0.0030, +0.0040]; 2 seeds" in few[WIDE].why
    once = StudyConfig(bits=(2, 4, 8))
    assert "+0.0030; 1 seed," in judge_claims(a_run(once, tell))[WIDE].why
    enough = judge_claims(a_run(FIVE, tell))
    assert enough[WIDE].verdict == REPRODUCED


@pytest.mark.parametrize("finished", [0, 4, 5, 84])
def test_unfinished_run(finished):
    found = judge_claims(a_run(rows=rows_of()[:finished]))
    assert {one.verdict for one in found} == {UNFINISHED, NOT_RUN}
    assert all("missing" in one.why for one in found[:TRAINED])


def test_untrained_baseline():
    rows = rows_of(FIVE, lambda row: {"emd": 0.03 + MOVED} if wide(row) else {})
    for accuracy in (0.199, 0.2):
        rows[1] |= {"accuracy": accuracy}
        found = judge_claims(a_run(FIVE, rows=rows))
        assert found[TRAINED].verdict == NOT_RUN
        unlearned = ["not learned" in one.why for one in found[:TRAINED]]
        assert set(unlearned) == {accuracy < 0.2}
        assert (found[WIDE].verdict == UNDECIDED) == (accuracy < 0.2)


@pytest.mark.parametrize(
    ("only", "left_out"),
    [("weights", (FOUR, UNSIGNED)), ("membrane", (WIDE, LQ_NET))],
)
def test_unplanned_claims_are_not_run(only, left_out):
    config = StudyConfig(bits=(2, 4, 8), repeat=True, only=only)
    found = judge_claims(a_run(config, rows=rows_of(config)))
    not_run = {n for n, one in enumerate(found) if one.verdict == NOT_RUN}
    assert not_run == {*left_out, TRAINED}


def test_recovery_in_the_modes_of_three_bits():
    """QAT of two bit widths is no scale; the others are asked, and all must agree."""
    config = StudyConfig(
        bits=(2, 4, 8), qat_bits=(2, 4), repeat=True, seeds=FIVE.seeds
    ).resolve()

    def recovers(row, back=(0.9, 0.5)):
        back = back[::-1] if row["mode"] == "qat" else back
        accuracy, firing = {2: (0, 0), 4: back, 8: (1, 1)}[row["bits"]]
        return {"accuracy": 0.7 + 0.2 * accuracy, "emd": 0.02 - 0.016 * firing}

    def opposite(row):
        return recovers(row, (0.5, 0.9))

    assert judge_claims(a_run(config, recovers))[BEFORE].verdict == REPRODUCED
    assert judge_claims(a_run(config, opposite))[BEFORE].verdict == NOT_REPRODUCED

    def one_mode(row):
        return recovers(row, (0.5, 0.9) if row["mode"] == "ptq" else (0.9, 0.5))

    assert judge_claims(a_run(config, one_mode))[BEFORE].verdict == NOT_REPRODUCED


@pytest.mark.parametrize(
    ("signed", "unsigned", "verdict"),
    [(0.06, 0.7, REPRODUCED), (0.04, 0.0, NOT_REPRODUCED), (0.06, 0.0, NOT_REPRODUCED)],
)
def test_lq_net_on_membranes(signed, unsigned, verdict):
    """It does not train where none of its settings does."""
    config = StudyConfig(
        bits=(2, 4), repeat=True, membrane_grid=("lq_net",), seeds=FIVE.seeds
    )

    def tell(row):
        lost = signed if row["signed"] else unsigned
        return {"accuracy": BASE - lost} if row["target"] == "membrane" else {}

    found = judge_claims(a_run(config, tell))
    assert found[TRAINED].verdict == verdict
    # The other claims of membranes are of uniform ones.
    assert {found[FOUR].verdict, found[UNSIGNED].verdict} == {NOT_RUN}


def test_ablation_is_no_evidence():
    """Its rows have another site or scope than the paper's grid."""
    config = StudyConfig(bits=(2, 4, 8), repeat=True, ablation_bits=(2, 4))

    def drifts(row):
        return {"emd": 0.03} if row["quantize_all"] or row["site"] == "pre_fire" else {}

    assert judge_claims(a_run(config, drifts)) == judge_claims(a_run())


def test_planted_rows_are_complete():
    assert len(rows_of()) == 6 + 2 * 8 * 3 * len(CONFIG.bits)
