"""The section of a results page on what EMD orders."""

import numpy as np
import pytest
from planted import read_table
from studied import a_run, quantized, rows_of

from experiments.report import figures, prediction, results
from experiments.report.judged import judge
from experiments.study.config import StudyConfig
from snnjax.report import charts


def section(rows):
    """The section on these rows, of the results page."""
    return (
        results.markdown(a_run(rows=rows))
        .split("## Does EMD predict anything?")[1]
        .split("![")[0]
        .split("\n## ")[0]
        .strip()
    )


def test_ranking_within_modes():
    """In each mode the loss follows the measure; the mode of more of it loses less."""

    def tell(row):
        step = (row["bits"] + row["clip"] + row["signed"] + row["seed"] / 2) / 1000
        late = row["mode"] == "qat"
        return {"emd": 0.002 + step + 0.1 * late, "accuracy": 0.8 - step + 0.1 * late}

    found = prediction.collect_points(a_run(tell=tell).judged)
    emd, loss = 0, 2
    pooled = prediction.correlate(found)[0, emd, loss]
    within = prediction.correlate(found, within=True)[0, emd, loss]
    assert within == pytest.approx(1)
    assert pooled < 0.5


def test_outcomes_use_the_seeds_baseline():
    rows = rows_of(StudyConfig(bits=(2,), repeat=True, modes=("ptq",)))
    for row in rows:
        if row["mode"] == "fp32":
            row |= {"synops": 1000.0 + row["seed"], "mean_rate": 0.1}
        row["accuracy"] -= 0.01 * row["seed"]
    found = prediction.collect_points(judge(rows))
    seeds = found["seed"].to_numpy()
    np.testing.assert_allclose(
        found[prediction.OUTCOMES].to_numpy(float)[seeds == 0],
        [[0.0, 0.0234, 0.0]] * 8,
        atol=1e-9,
    )
    np.testing.assert_allclose(
        found[prediction.OUTCOMES].to_numpy(float)[seeds == 1],
        [[100 / 1001, 0.0234, 0.0]] * 8,
        atol=1e-9,
    )
    # Mean over layers: EMD, twice and four times it, as they are planted.
    np.testing.assert_allclose(
        found[list(prediction.PREDICTORS)].to_numpy(float),
        [[0.0005, 0.001, 0.002, 0.0]] * 16,
    )


def informative(row):
    """EMD orders operations well and accuracy not at all; 2 bit PTQ collapses."""
    if row["bits"] == 2 and row["mode"] == "ptq":
        return {"emd": 0.1, "accuracy": 0.1, "synops": 1.0}
    at = hash((row["method"], row["clip"], row["bits"], row["mode"])) % 97
    return {"emd": 0.001 * (1 + at), "synops": 1000.0 + at, "accuracy": 0.9 - at % 7e-3}


def test_section():
    run = a_run(tell=informative)
    text = section(run.rows)
    assert "over 144 quantized rows, of which 16 collapsed" in text
    lines = {line["rows of"]: line for line in read_table(text)}
    numbers = {"all": 144, "all, not collapsed": 128, "PTQ": 48, "QAT": 48}
    for title, n in (numbers | {"PTQ, not collapsed": 32}).items():
        assert lines[title]["n"] == str(n)
    # Nothing of QAT collapsed: it has no second line of its own.
    assert "QAT, not collapsed" not in text
    assert list(lines["all, not collapsed"].values())[3] == "1.00 [1.00, 1.00]"


def test_best_measure_against_emd():
    generator = np.random.default_rng(4)
    rows = rows_of()
    for row in quantized(rows):
        change, noise = generator.uniform(1, 2), generator.uniform(0, 1)
        row["emd_mean"], row["synops"] = change + noise, 1000 - change
        row["paired_shift"] = {"sn1": change + 0.8 * noise}
        row["time_w1"] = {"sn1": noise}
    text = section(rows).splitlines()[-1]
    assert "synaptic operations is ordered best by paired shift" in text
    assert text.count("by the same resamples, is above 0") == 1


@pytest.mark.parametrize(("noise", "words"), [(0.0, "above 0"), (0.3, "not distinct")])
def test_emd_against_the_next(noise, words):
    """Without noise EMD is the change itself; with it, as far off as the next."""
    generator = np.random.default_rng(5)
    rows = rows_of()
    for row in quantized(rows):
        change = generator.uniform(1, 2)
        row["emd_mean"] = change + noise * generator.normal()
        row["paired_shift"] = {"sn1": change + 0.3 * generator.normal()}
        row["time_w1"] = {"sn1": generator.normal()}
        row["synops"] = 1000 - change
    text = section(rows).splitlines()[-1]
    first = text.split("; the change of mean rate")[0]
    assert words in first


@pytest.mark.parametrize("sign", [0, -1])
def test_no_measure_orders_an_outcome(sign):
    """Measures that are unrelated to the change, and that go against it."""
    generator = np.random.default_rng(8)
    rows = rows_of()
    for row in quantized(rows):
        change, other = generator.uniform(1, 2, size=2)
        row["synops"] = 1000 + change
        row["emd_mean"] = 2 + sign * change + (other if sign == 0 else 0.01 * other)
        row["paired_shift"] = {"sn1": row["emd_mean"]}
        time = row["emd_mean"] if sign else generator.uniform()
        row["time_w1"] = {"sn1": time}
    text = section(rows).splitlines()[-1]
    assert "synaptic operations is ordered by none" in text


def test_best_interval_may_reach_0():
    drawn = np.full((101, len(prediction.PREDICTORS), len(prediction.OUTCOMES)), np.nan)
    around = np.concatenate([[0], np.linspace(-1, 1, 100)])
    drawn[:, :2, 0] = [0.5, 0.6] + around[:, None] * np.array([0.3, 0.9])
    text = prediction.conclude(drawn, "all")
    assert "best by paired shift (0.60, its interval reaches 0), by EMD 0.50" in text


def test_constant_measure():
    generator = np.random.default_rng(9)
    rows = rows_of()
    for row in quantized(rows):
        change = generator.uniform(1, 2)
        row["synops"], row["paired_shift"] = 1000 + change, {"sn1": change}
    text = section(rows)
    assert "nan" not in text
    assert "operations is ordered best by paired shift (1.00)" in text


def test_settings_are_counted():
    config = StudyConfig(bits=(2,), only="membrane", seeds=(0, 1, 2, 3), repeat=True)
    assert len(rows_of(config)) == 4 * 3 + 4 * 2 * 3
    assert not prediction.has_enough(judge(rows_of(config)))


def test_rows_that_lack_a_measure_are_counted():
    rows = rows_of()
    rows[-1]["synops"] = None
    rows[-2]["time_w1"] = None
    text = section(rows)
    assert "over 142 quantized rows" in text


def test_too_few_rows():
    rows = rows_of(StudyConfig(bits=(2,), modes=("ptq",)))
    assert prediction.has_enough(prediction.collect_points(judge(rows)))
    for some in (rows[:-1], [row | {"time_w1": None} for row in rows]):
        assert not prediction.has_enough(prediction.collect_points(judge(some)))
        assert section(some).startswith("Fewer than 8")


def test_figure_shows_each_row():
    found = prediction.collect_points(a_run(tell=informative).judged)
    spec = figures.draw_predictions(found).to_dict()
    assert len(spec["concat"]) == 9
    (points,) = spec["datasets"].values()
    assert len(points) == 144
    assert sum(point["collapsed"] for point in points) == 16
    assert {point["mode"] for point in points} == {"PTQ", "PTQ+BN", "QAT"}


@pytest.mark.slow
@pytest.mark.parametrize("tell", [lambda row: {}, lambda row: {"emd": 0.0}])
def test_figure_of_equal_rows(tell):
    found = prediction.collect_points(a_run(tell=tell).judged)
    assert charts.to_png(figures.draw_predictions(found)).startswith(b"\x89PNG")
