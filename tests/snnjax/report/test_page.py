"""The page of a report card: its numbers, and that it loads nothing."""

import json
import re

import numpy as np
import pytest

from snnjax import firing, report

LAYERS = ("sn1", "layer1.0.sn1", "</script><b>odd")


@pytest.fixture
def card():
    generator = np.random.default_rng(0)
    before = {name: generator.binomial(400, 0.1, 50) for name in LAYERS}
    now = {
        name: np.minimum(counts + i, 400)
        for i, (name, counts) in enumerate(before.items())
    }
    counts = [firing.FiringCounts(side, 400) for side in (before, now)]
    return report.compare(*counts)


def test_page_and_json_have_the_same_numbers(card, tmp_path):
    card.to_json(tmp_path / "card.json")
    card.to_html(tmp_path / "card.html")
    numbers = json.loads((tmp_path / "card.json").read_text())
    page = (tmp_path / "card.html").read_text()
    kept = re.search(
        r'<script type="application/json" id="numbers">(.*?)</script>', page
    )
    assert json.loads(kept.group(1)) == numbers
    lines = re.findall(
        r'<tr class="(?:no_drift|below_margin|drift|cannot_tell)">(.*)</tr>', page
    )
    assert len(lines) == len(LAYERS)
    for line, layer in zip(lines, numbers["layers"].values(), strict=True):
        values = [float(value) for value in re.findall(r'data-value="([^"]+)"', line)]
        keys = ("emd", "normed_emd", "paired_shift", "mean_shift", "ks")
        # Before them the layer's place, and the EMD by which its histogram sorts.
        assert values[2:7] == [layer[key] for key in keys]


def test_page_loads_nothing_and_escapes(card, tmp_path):
    card.to_html(tmp_path / "card.html")
    page = (tmp_path / "card.html").read_text()
    assert (tmp_path / "card.html").stat().st_size < 1.5e6
    assert "default-src 'none'" in page
    tags = re.sub(r">.*?</script>", ">", page, flags=re.S)  # without the code
    assert not re.search(r"<(?:script|img|link)[^>]+(?:src|href)=", tags)
    assert "<b>odd" not in page
    specs = re.findall(r'class="spec" data-chart="(\w+)">(.*?)</script>', page)
    assert [name for name, _ in specs] == ["layers", "flow"]
    assert all(json.loads(spec)["config"] for _, spec in specs)


def test_equal_firing_has_no_rates_that_moved(card, tmp_path):
    report.compare(card.reference, card.reference).to_html(tmp_path / "card.html")
    page = (tmp_path / "card.html").read_text()
    assert re.findall(r'data-chart="(\w+)"', page) == ["layers"]
    assert re.findall(r'class="chart" id="(\w+)"', page) == ["layers"]
