"""Correlations of measures with outcomes, and the page that is made of them."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.predictors import __main__ as command
from experiments.predictors import measures


def residual(ranks, given):
    design = np.column_stack([np.ones(len(given)), given])
    return ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0]


@pytest.mark.parametrize("seed", range(3))
def test_correlations_are_scipys(seed):
    x, y, z = np.random.default_rng(seed).integers(0, 9, (3, 40)).astype(float)
    y = y + z
    found = measures.rank_correlation(x, y)
    np.testing.assert_allclose(found, stats.spearmanr(x, y).statistic, rtol=1e-12)
    of_x, of_y, of_z = map(stats.rankdata, (x, y, z))
    expected = stats.pearsonr(residual(of_x, of_z), residual(of_y, of_z)).statistic
    found = measures.partial_correlation(x, y, z)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_what_never_varies_has_none():
    x = np.arange(5.0)
    assert np.isnan(measures.rank_correlation(x, np.ones(5)))
    assert np.isnan(measures.partial_correlation(x, x[::-1], x))


def test_groups_are_drawn_together(monkeypatch):
    monkeypatch.setattr(measures, "RESAMPLES", 300)
    x = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    value, low, high = measures.resample(np.mean, np.repeat(np.arange(20), 10), x)
    assert value == x.mean()
    # As wide as of 20 numbers, not as of 200.
    assert high - low == pytest.approx(2 * 1.96 * x.std() / np.sqrt(20), rel=0.3)


def test_predictions_find_the_law():
    drawn = np.random.default_rng(0)
    tables = [
        pd.DataFrame(np.exp(drawn.normal(size=(n, 2))), columns=["a", "b"])
        for n in (30, 10)
    ]
    known, new = (
        t.assign(y=3 * np.log(t["a"] + measures.LEAST) - np.log(t["b"])) for t in tables
    )
    found = measures.predict(known, new, "y", ["a", "b"])
    np.testing.assert_allclose(found, new["y"], atol=1e-4)


@pytest.mark.slow
def test_the_published_page_follows_from_its_rows(monkeypatch, tmp_path):
    """Estimates do not hang on the number of resamples."""
    monkeypatch.setattr(measures, "RESAMPLES", 20)
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
                assert mine[outcome][:1] == pytest.approx(its[outcome][:1], rel=1e-9)


def test_sources_have_names():
    with pytest.raises(ValueError, match="NAME=PATH"):
        command.read("results.jsonl")
