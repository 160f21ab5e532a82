"""Correlations of measures with outcomes, and the page that is made of them."""

import json

import numpy as np
import pandas as pd
import pytest

from experiments.predictors import __main__ as command
from experiments.predictors import measures


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
                assert mine[outcome][:1] == pytest.approx(its[outcome][:1], rel=1e-9)


def test_sources_have_names():
    with pytest.raises(ValueError, match="NAME=PATH"):
        command.read("results.jsonl")
