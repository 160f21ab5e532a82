"""Charts: the frames behind them, by numbers known beforehand."""

import numpy as np
import pandas as pd
import pytest

from snnjax.report import charts


def test_flow_is_the_mean_over_layers_by_rate():
    still = np.full(20, 0.6)
    before = {"sn1": np.array([0, 0, 0.05, 0.9]), "sn2": still}
    now = {"sn1": np.array([0, 0.02, 0.05, 0.5]), "sn2": still}
    found = charts.tabulate_flow(before, now).set_index(["before", "after"])
    # 0 to 0.02 and 0.9 to 0.5, a quarter of the neurons of one of two layers each.
    assert found["work"]["0", "0.01"] == pytest.approx(0.02 / 8)
    assert found["work"]["0.7", "0.4"] == pytest.approx(0.4 / 8)
    assert found["work"].sum() == pytest.approx(0.42 / 8)
    assert found["share"].sum() == pytest.approx(1)


def test_rates_over_one_are_in_the_last_bin():
    found = charts.tabulate_rates({"net": {"out": np.array([2.5, 1.0])}})
    assert found["share"].iloc[-1] == 1
    flow = charts.tabulate_flow({"out": np.array([2.5])}, {"out": np.zeros(1)})
    assert flow["work"].sum() == 1


def test_png_is_deterministic():
    frame = pd.DataFrame(
        {
            "mode": "QAT",
            "configuration": "a 2 bit",
            "layer": ["sn1", "sn2"],
            "emd": [0.1, 0.0],
        }
    )
    first, second = (
        charts.to_png(charts.map_layers(frame, lower=0.01)) for _ in range(2)
    )
    assert first == second
    assert first.startswith(b"\x89PNG")
