"""Claims decided over seeds: planted effects, and how often chance passes for one."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from studied import BASE, MOVED, a_run, is_row, rows_of

from experiments.report import effects
from experiments.report.claims import (
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    judge_claims,
)
from experiments.report.judged import group_settings, judge
from experiments.sampling import half_width
from experiments.study.config import StudyConfig

CONFIG = StudyConfig(bits=(2, 4, 8), seeds=tuple(range(6)), repeat=True).resolve()
WORLDS = 200


def noisy(seed=0, spread=0.0002, tell=lambda row: {}):
    """Rows of 6 seeds: quantizers and controls move alike, each by its own chance."""
    rng = np.random.default_rng(seed)

    def told(row):
        usual = {"emd": MOVED + rng.normal(0, spread)}
        usual["accuracy"] = BASE + rng.normal(0, 0.001)
        change = tell(row)
        return {k: v + change.get(k, 0.0) for k, v in usual.items()}

    rows = rows_of(CONFIG, told)
    for row in rows:
        if row["mode"] in ("control", "fp32_bn"):
            row["emd_mean"] = MOVED + rng.normal(0, spread)
    return rows


def verdicts(**world):
    rows = noisy(**world)
    found = judge_claims(a_run(CONFIG, rows=rows))
    return dict(zip(effects.MEASURES, (one.verdict for one in found), strict=True))


def test_interval_is_students():
    values = np.random.default_rng(0).normal(1, 2, 7)
    test = stats.ttest_1samp(values, 0)
    low, high = test.confidence_interval(0.9)
    assert half_width(values, 0.9) == pytest.approx((high - low) / 2)
    assert half_width(values[:1]) == np.inf
    found = effects.measure("x", pd.Series(values), (0, 2), str, tests=3)
    share = 0.05 / effects.EFFECTS / 3
    low, high = test.confidence_interval(1 - share)
    np.testing.assert_allclose([found.low, found.high], [low, high])


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [(0.1, 0.9, 1), (-0.1, 0.9, 0), (0.5, 1.1, 0), (1.1, 2, -1), (-2, -0.1, -1)],
)
def test_an_effect_speaks_where_its_interval_is_within_or_outside(low, high, sign):
    for seeds in (4, 5):
        found = effects.Effect("x", 0.5, low, high, (0, 1), str, "", seeds)
        assert found.sign == (sign if seeds == 5 else 0)


def test_seeds_that_would_decide():
    """Intervals shrink by the root of the seeds."""
    more = ((0.0, 2.0), str, "", 10)
    wide = effects.Effect("x", 0.5, -0.5, 1.5, *more)
    assert wide.estimate_seeds() == pytest.approx(40)
    outside = effects.Effect("x", -1.0, -2.0, 0.5, *more)
    known = effects.Effect("x", 1.0, 0.9, 1.1, *more)
    needed = effects.estimate_deciding_seeds
    assert needed([wide, known]) == pytest.approx(40)
    assert needed([wide, outside, known]) == outside.estimate_seeds()
    assert needed([known]) == needed([]) == np.inf


def test_of_few_seeds_the_lowest_and_the_highest():
    some = pd.Series([0.1, 0.4, np.nan, 0.2])
    found = effects.measure("x", some, (0, 1), "{:.2f}".format)
    assert str(found) == "x 0.23 [0.10, 0.40]"
    assert found.seeds == 3
    assert str(effects.measure("x", some[:1], (0, 1), "{:.2f}".format)) == "x 0.10"
    nothing = effects.measure("x", some[2:3], (0, 1), "{:.2f}".format)
    assert str(nothing) == "x: not measured"


def test_planted_effects_decide():
    def tell(row):
        wide = row["clip"] == 10.0 and row["method"] == "uniform"
        few = row["target"] == "membrane" and row["bits"] == 2
        better = few and not row["signed"]
        return {
            "emd": 0.004 * wide + 0.002 * (few and not better),
            "accuracy": -0.03 * few + 0.01 * better,
        }

    found = verdicts(tell=tell)
    assert found["equal_accuracy"] == found["wide_clip"] == REPRODUCED
    assert found["lq_net"] == found["four_bits"] == found["unsigned"] == REPRODUCED

    opposite = lambda row: {k: -v for k, v in tell(row).items()}  # noqa: E731
    found = verdicts(tell=opposite)
    assert found["wide_clip"] == found["four_bits"] == NOT_REPRODUCED
    assert found["unsigned"] == NOT_REPRODUCED


def test_accuracy_that_is_back_before_the_emd():
    def tell(row):
        uniform = is_row(row, "uniform mid-rise narrow")
        lost = {2: 0.1, 4: 0.01, 8: 0.0}[row["bits"]] * uniform
        moved = {2: 0.05, 4: 0.045, 8: 0.0}[row["bits"]] * uniform
        return {"accuracy": -lost, "emd": moved}

    assert verdicts(tell=tell)["accuracy_first"] == REPRODUCED
    assert verdicts()["accuracy_first"] == UNDECIDED  # nothing is lost


def test_a_setting_has_one_verdict_whatever_is_grouped_with_it():
    """EMDs from none to far above the margin, some of them just significant."""
    judged = judge(noisy(tell=lambda row: {"emd": 0.0002 * row["bits"]}))
    whole = group_settings(judged).set_index(["mode", "setting"])["state"]
    assert whole.nunique() > 1
    for mode in ("ptq_bn", "qat"):
        for _, own in judged[judged["mode"] == mode].groupby("setting"):
            part = group_settings(own).set_index(["mode", "setting"])["state"]
            assert part.to_dict() == whole.loc[part.index].to_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy": -0.02},
        {"emd": 0.01},  # above the control's by more than the paper's clips differ
        {"emd": lambda row: 0.007 * (row["clip"] == 10.0)},  # the clips alone
    ],
)
def test_one_effect_refutes_lq_net(change):
    def tell(row):
        if row["method"] != "lq_net" or row["target"] != "weights":
            return {}
        return {k: v(row) if callable(v) else v for k, v in change.items()}

    assert verdicts()["lq_net"] == REPRODUCED
    assert verdicts(tell=tell)["lq_net"] == NOT_REPRODUCED


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"emd": 0.004}, REPRODUCED),
        ({"emd": 0.0005}, NOT_REPRODUCED),  # not 1.5 times as far
        ({"emd": 0.004, "accuracy": -0.02}, NOT_REPRODUCED),
        ({"emd": 0.004, "accuracy": -0.01}, UNDECIDED),  # a point is the edge
        ({"emd": 0.1, "accuracy": -0.75}, NOT_REPRODUCED),  # collapsed
    ],
)
def test_conditions_of_a_hidden_drift(change, verdict):
    def tell(row):
        return change if is_row(row, "LQ-Net wide", 8, "qat") else {}

    assert verdicts(spread=2e-5, tell=tell)["equal_accuracy"] == verdict


def test_collapsed_clips_are_left_out():
    def tell(row, alive=(8,)):
        if row["clip"] != 10.0 or row["method"] != "uniform":
            return {}
        dead = {"accuracy": -0.8, "emd": -0.0019}
        return {"emd": 0.02} if row["bits"] in alive else dead

    assert verdicts(tell=tell)["wide_clip"] == REPRODUCED
    every = verdicts(tell=lambda row: tell(row, ()))
    assert every["wide_clip"] == UNDECIDED


def of_membranes(by_setting):
    """A ``tell`` by bits and sign, or by bits alone."""

    def tell(row):
        if row["target"] != "membrane" or row["mode"] != "qat":
            return {}
        return by_setting.get((row["bits"], row["signed"]), {})

    return tell


@pytest.mark.parametrize(
    ("two", "four", "verdict"),
    [
        ({"accuracy": -0.02}, {}, REPRODUCED),
        ({"accuracy": -0.02}, {"accuracy": -0.02}, NOT_REPRODUCED),
        ({"accuracy": -0.02}, {"emd": 0.01}, NOT_REPRODUCED),
        ({"accuracy": -0.01}, {}, UNDECIDED),  # a point is the edge
        ({}, {}, NOT_REPRODUCED),
    ],
)
def test_membranes_of_2_and_4_bits(two, four, verdict):
    some = {(b, s): x for b, x in ((2, two), (4, four)) for s in (True, False)}
    assert verdicts(tell=of_membranes(some))["four_bits"] == verdict


@pytest.mark.parametrize(
    ("signed", "unsigned", "verdict"),
    [
        ({"accuracy": -0.02, "emd": 0.002}, {}, REPRODUCED),
        ({"accuracy": -0.02}, {"emd": 0.002}, NOT_REPRODUCED),  # better in one alone
        ({"accuracy": -0.02}, {}, UNDECIDED),
        ({"accuracy": -0.8, "emd": 0.1}, {}, REPRODUCED),  # one collapsed
        ({"accuracy": -0.8, "emd": 0.1}, {"accuracy": -0.78, "emd": 0.09}, UNDECIDED),
    ],
)
def test_unsigned_membranes(signed, unsigned, verdict):
    some = {(2, True): signed, (2, False): unsigned}
    assert verdicts(tell=of_membranes(some))["unsigned"] == verdict


def planted(told, bits, seeds=range(5)):
    """The judged QAT rows of one method: ``told`` are accuracy lost and EMD by bits."""
    config = StudyConfig(bits=bits, seeds=tuple(seeds), repeat=True).resolve()

    def tell(row):
        lost, emd = told[row["bits"]]
        return {"accuracy": BASE - lost, "emd": emd}

    judged = judge(rows_of(config, tell))
    judged = judged[(judged["mode"] == "qat") & (judged["way"] == "LQ-Net wide")]
    return effects.accuracy_first(judged)


def test_shares_that_are_back_are_means_over_the_bits_between():
    """Of accuracy 0.6 and 1, of EMD 0 and 0.5 are back at 4 and 6 bits."""
    told = {2: (0.1, 0.04), 4: (0.04, 0.04), 6: (0.0, 0.022), 8: (0.0, 0.004)}
    [found] = planted(told, (2, 4, 6, 8))
    assert found.mean == pytest.approx(0.8 - 0.25)
    assert "(1 method)" in found.name
    told[4] = (0.15, 0.05)  # worse than with 2 bits
    [found] = planted(told, (2, 4, 6, 8))
    assert found.mean == pytest.approx((-0.5 + 1) / 2 - (-10 / 36 + 0.5) / 2)


def test_two_bit_widths_have_none_between_them():
    told = {2: (0.1, 0.04), 4: (0.0, 0.004), 8: (0.0, 0.004)}
    assert len(planted(told, (2, 4, 8))) == 1
    assert planted(told, (2, 8)) == []


@pytest.mark.parametrize("two", [(0.0099, 0.04), (0.1, 0.008)])
def test_what_loses_little_has_little_to_recover(two):
    """Two bits cost less than a point, or their EMD is but the double."""
    told = {2: two, 4: (0.0, 0.004), 8: (0.0, 0.004)}
    assert planted(told, (2, 4, 8)) == []


def test_methods_recover_between_their_own_bits():
    told = {2: (0.1, 0.04), 4: (0.05, 0.03), 6: (0.01, 0.03), 8: (0.0, 0.004)}
    config = StudyConfig(bits=(2, 4, 6, 8), seeds=tuple(range(5)), repeat=True)

    def tell(row):
        lost, emd = told[row["bits"]]
        return {"accuracy": BASE - lost, "emd": emd}

    judged = judge(rows_of(config.resolve(), tell))
    ways = {"LQ-Net wide": (2, 4, 8), "LQ-Net narrow": (4, 6, 8)}
    keep = [
        row["mode"] == "qat" and row["bits"] in ways.get(row["way"], ())
        for _, row in judged.iterrows()
    ]
    [found] = effects.accuracy_first(judged[keep])
    wide, narrow = 0.5 - 10 / 36, 0.8 - 0.0
    assert found.mean == pytest.approx((wide + narrow) / 2)


def test_a_missing_control_leaves_its_seed_out():
    rows = noisy()
    for row in rows:
        if row["mode"] == "control" and row["seed"]:
            row["emd_mean"] = None
    found = judge_claims(a_run(CONFIG, rows=rows))
    lq_net = dict(zip(effects.MEASURES, found, strict=True))["lq_net"]
    assert lq_net.verdict == UNDECIDED
    assert ", 1 seed" in lq_net.why
    assert ", 6 seeds" in lq_net.why


@pytest.mark.nightly
def test_chance_alone_decides_in_5_percent_of_pages_at_most():
    """Two sided: what has no effect is neither borne out nor contradicted."""
    wrong = drifted = settings = 0
    for seed in range(WORLDS):
        rows = noisy(seed=seed, spread=0.001)
        judged = judge(rows)
        own = {
            name: judged[judged["mode"] == "qat"] for name in ("wide_clip", "unsigned")
        }
        own["wide_clip"] = own["wide_clip"].query("method == 'uniform'")
        own["wide_clip"] = own["wide_clip"].query("target == 'weights'")
        own["unsigned"] = own["unsigned"].query("target == 'membrane' and bits == 2")
        signs = [e.sign for k, v in own.items() for e in effects.MEASURES[k](v)]
        wrong += any(signs)
        found = group_settings(judged[judged["mode"].isin(["qat", "control"])])
        drifted += (found["state"] == "drift").any()
        settings += len(found)
    assert settings > 10 * WORLDS
    most = 0.05 * WORLDS + 2 * np.sqrt(0.05 * 0.95 * WORLDS)
    assert wrong <= most
    assert drifted <= most


def test_a_seed_that_loses_nothing_divides_by_nothing():
    """Shares of the mean over seeds: 0.09 of 0.1 and 0.005 of 0.05 are back."""

    def tell(row):
        if not is_row(row, "uniform mid-rise narrow"):
            return {}
        some = float(row["seed"] != 0) * 6 / 5  # of 6 seeds one loses nothing
        lost = {2: 0.1, 4: 0.01, 8: 0.0}[row["bits"]] * some
        return {"accuracy": -lost, "emd": {2: 0.05, 4: 0.045, 8: 0.0}[row["bits"]]}

    rows = noisy(spread=0.0, tell=tell)
    judged = judge(rows)
    [found] = effects.accuracy_first(judged[judged["mode"] == "qat"])
    assert found.mean == pytest.approx(0.9 - 0.1, abs=0.01)
    assert np.isfinite([found.low, found.high]).all()
