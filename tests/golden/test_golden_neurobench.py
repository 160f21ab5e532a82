"""Operations, sparsity and membrane updates are those that NeuroBench counts."""

import json
from pathlib import Path

import pytest
from compare_neurobench import make_events, make_network, measure_ours

PATH = Path(__file__).with_name("neurobench.json")
MADE = {k: v for k, v in json.loads(PATH.read_text()).items() if k != "versions"}


@pytest.mark.slow
def test_cost_is_neurobenchs():
    assert measure_ours(make_network(), make_events()) == pytest.approx(MADE, rel=1e-9)
