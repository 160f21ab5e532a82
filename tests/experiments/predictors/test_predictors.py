"""Correlations of measures with outcomes, and the page that is made of them."""

import json

import numpy as np
import pandas as pd
import pytest
from planted import a_row, quantized
from sklearn.metrics import r2_score

from experiments.predictors import __main__ as command
from experiments.predictors import measures


def test_predictions_find_the_law():
    drawn = np.random.default_rng(0)
    tables = [
        pd.DataFrame(np.exp(drawn.normal(size=(n, 2))), columns=["a", "b"])
        for n in (30, 10)
    ]
    known, new = (t.assign(y=3 * t["a"] - t["b"] + 2) for t in tables)
    found = measures.predict(known, new, "y", ["a", "b"])
    np.testing.assert_allclose(found, new["y"], atol=1e-9)


def test_explained_variance_is_scikit_learns():
    true, predicted = np.array([3, -0.5, 2, 7]), np.array([2.5, 0.0, 2, 8])
    weights = np.array([[1.0, 1, 1, 1], [2, 0, 1, 1], [0, 0, 3, 0]])
    found = measures.explain(true, predicted, weights)
    for value, weight in zip(found[:2], weights, strict=False):
        assert value == pytest.approx(
            r2_score(true, predicted, sample_weight=weight), rel=1e-12
        )
    assert np.isnan(found[2])


def test_few_networks_make_no_correlation():
    [measure, given, *_], [outcome, *_] = command.MEASURES, command.OUTCOMES
    keys = [command.MEASURES[measure], command.MEASURES[given]]
    keys.append(command.OUTCOMES[outcome])
    drawn = np.random.default_rng(0).random((command.FEWEST, 3))
    table = pd.DataFrame(drawn, columns=keys).assign(setting=range(len(drawn)))
    assert len(command.correlate(table, measure, outcome, given)) == 3
    table.loc[0, keys[1]] = np.nan
    assert command.correlate(table, measure, outcome, given) == []
    assert command.hold_out(table, table, [given], outcome) == []


@pytest.mark.slow
def test_the_published_page_follows_from_its_rows(monkeypatch, tmp_path):
    """Estimates do not hang on the number of resamples."""
    monkeypatch.setattr(command, "RESAMPLES", 20)
    config = command.PredictorsConfig()
    command.run(command.PredictorsConfig(out=tmp_path / "page.md"))
    found, published = (
        json.loads(path.with_suffix(".json").read_text())
        for path in (tmp_path / "page.md", config.out)
    )
    assert found.keys() == published.keys()
    for name, lines in found.items():
        for mine, its in zip(lines, published[name], strict=True):
            for outcome in measures.OUTCOMES:
                one, other = (x[outcome] for x in (mine, its))
                if name != "counted":
                    one, other = one[:1], other[:1]
                assert one == pytest.approx(other, rel=1e-9)


def test_sources_have_names():
    with pytest.raises(ValueError, match="NAME=PATH"):
        command.read("results.jsonl")


def test_outcomes_are_changes_from_the_same_seeds_network():
    told = {"synops": 100.0, "synops_largest": 50.0, "accuracy_noisy": 0.9}
    told |= {"accuracy_by_step": [0.1, 0.8, 0.85, 0.9]}
    more = {"synops": 50.0, "synops_largest": 100.0, "accuracy_noisy": 0.7}
    more |= {"accuracy_by_step": [0.1, 0.5, 0.6, 0.9]}
    way = ("weights", "uniform", "mid_rise", 1.0, True)
    rows = [a_row("fp32", seed=seed, **told) for seed in (0, 1)]
    rows += [quantized(way, 4, "ptq", seed=1, **more)]
    rows += [quantized(way, 4, "ptq", seed=0, synops=100.0)]  # without the new keys
    found = measures.collect(rows).set_index("seed")
    expected = {"operations_change": np.log(2), "largest_change": np.log(2)}
    expected |= {"lost_noisy": 0.2, "lost_early": 0.3}
    assert found.loc[1, list(expected)].to_dict() == pytest.approx(expected)
    assert found.loc[0, "operations_change"] == 0
    assert found.loc[0, ["largest_change", "lost_noisy", "lost_early"]].isna().all()


def test_what_no_row_tells_is_said():
    line = {key: [0.5, 0.1, 0.9] for key in measures.OUTCOMES}
    told = line | {"study": "digits", "measure": "EMD", "given": "mean shift"}
    told |= {"lost with noise": [], "dead neurons": [-0.5, -0.9, -0.1]}
    held = line | {"learnt on": "a", "tested on": "b", "measures": "EMD"}
    held |= {"lost with noise": [], "accuracy lost": []}
    given = [told | dict(measure=m, given=g) for m, g in command.PAIRS]
    alone = [line | {"study": "digits", "measure": "EMD"}]
    lines = command.conclude({"given": given, "held_out": [held], "alone": alone})
    found = {line["outcome"]: line for line in lines}
    assert found["accuracy lost"]["EMD given mean shift"] == "+"
    assert found["dead neurons"]["EMD given mean shift"] == "−"
    assert found["lost with noise"]["EMD given mean shift"] == "·"
    assert found["accuracy lost"]["best held out"] == "-"
    assert found["dead neurons"]["best held out"] == "EMD 0.50; EMD 0.50"
