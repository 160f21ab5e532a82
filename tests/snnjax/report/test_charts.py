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
        charts.to_png(charts.map_layers(frame, margin=0.01)) for _ in range(2)
    )
    assert first == second
    assert first.startswith(b"\x89PNG")


def test_rates_are_shares_of_the_layers_neurons():
    networks = {
        "baseline": {"sn1": np.zeros((2, 2, 3))},
        "other": {"sn1": np.array([0] * 6 + [0.9] * 6).reshape(2, 2, 3)},
    }
    found = charts.tabulate_rates(networks).set_index("network")["share"]
    base, other = (found[name].to_numpy() for name in networks)
    assert base[0] == 1
    assert base[1:].sum() == 0
    at = int(0.9 * len(other))
    assert (other[0], other[at]) == (0.5, 0.5)
    chart = charts.draw_rates(charts.tabulate_rates(networks)).to_dict()
    filled, line = chart["spec"]["layer"]
    # The first network is filled, all others are lines.
    assert filled["mark"]["type"] == "rect"
    assert line["mark"]["type"] == "line"
    colour = line["encoding"]["color"]["scale"]
    assert colour["domain"] == ["baseline", "other"]
    assert len(set(colour["range"])) == len(colour["range"])


@pytest.mark.parametrize("layers", [1, 4, 20])
def test_rates_have_a_panel_a_layer(layers):
    rates = {f"layer{i}": np.linspace(0, 1, 8) for i in range(layers)}
    frame = charts.tabulate_rates({"baseline": rates})
    facet = charts.draw_rates(frame).to_dict()["facet"]
    assert facet["field"] == "layer"
    assert facet["sort"] == list(rates)


def test_each_panel_shows_shares_of_its_emd():
    base = {"sn1": np.array([0, 0, 0.05, 0.9])}
    other = {"sn1": np.array([0, 0.02, 0.05, 0.5])}
    moved = charts.tabulate_flow(base, other, "other")
    still = charts.tabulate_flow(base, base, "baseline")
    shown = moved[moved["share"] > 0].set_index(["before", "after"])["share"]
    assert dict(shown.round(2)) == {("0", "0.01"): 0.05, ("0.7", "0.4"): 0.95}
    assert still["share"].sum() == 0
    chart = charts.draw_flows(pd.concat([moved, still])).to_dict()
    assert chart["facet"]["sort"] == ["other", "baseline"]
    # Axes are in the order of rates, which grow upwards and to the right.
    encoding = chart["spec"]["layer"][0]["encoding"]
    names = [f"{edge:g}" for edge in charts.EDGES[:-1]]
    assert encoding["x"]["sort"] == names
    assert encoding["y"]["sort"] == names[::-1]


@pytest.mark.parametrize("margin", [None, 0.5])
@pytest.mark.parametrize("emd", [0.0, 0.01])
def test_a_map_without_drift_or_margin_is_drawn(emd, margin):
    frame = pd.DataFrame(
        {"mode": "QAT", "configuration": "a 2 bit", "layer": ["sn1"], "emd": [emd]}
    )
    assert charts.to_png(charts.map_layers(frame, margin=margin))


def test_layers_keep_their_order_and_their_state():
    frame = pd.DataFrame(
        {
            "layer": ["sn10", "sn2", "sn1"],
            "emd": [0.1, 0.2, 0.0],
            "emd_low": [0.05, np.nan, 0.0],
            "emd_high": [0.15, np.nan, 0.1],
            "state": ["Drift", "Cannot tell", "No drift seen"],
        }
    )
    bars, dots = charts.draw_layers(frame).to_dict()["layer"]
    assert bars["encoding"]["x"]["field"] == "emd_low"
    assert bars["encoding"]["x2"]["field"] == "emd_high"
    assert dots["encoding"]["y"]["sort"] == ["sn10", "sn2", "sn1"]
    scale = dots["encoding"]["color"]["scale"]
    assert set(frame["state"]) <= set(scale["domain"])
    assert len(set(scale["range"])) == len(scale["domain"])
    plain = charts.draw_layers(frame.assign(emd_low=np.nan, emd_high=np.nan)).to_dict()
    assert plain["mark"]["type"] == "point"


def test_layers_without_any_drift_have_an_axis_from_zero():
    frame = pd.DataFrame(
        {
            "layer": ["a"],
            "emd": 0.0,
            "emd_low": None,
            "emd_high": None,
            "state": "Drift",
        }
    )
    encoding = charts.draw_layers(frame.assign(state="Drift")).to_dict()["encoding"]
    low, high = encoding["x"]["scale"]["domain"]
    assert low == 0 < high
    assert encoding["color"]["scale"]["domain"] == ["Drift"]
