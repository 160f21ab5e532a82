"""The figure of which rates moved."""

import numpy as np
import pytest

from experiments.report.layer_figures import EDGES, Firing, coupling_work, draw_flows

OBSERVATIONS = 1000
STILL = np.full((4, 5), 600)


def firing(name, **counts):
    return Firing(name, counts, OBSERVATIONS, dict.fromkeys(counts, 0.01))


def test_work_is_the_mean_over_layers_by_rate():
    base = firing("baseline", sn1=np.array([0, 0, 50, 900]), sn2=STILL)
    other = firing("other", sn1=np.array([0, 20, 50, 500]), sn2=STILL)
    table = coupling_work(base, other)
    # 0 to 0.02 and 0.9 to 0.5, a quarter of the neurons of one of two layers each.
    assert table[0, 3] == pytest.approx(0.02 / 8)
    assert table[8, 7] == pytest.approx(0.4 / 8)
    assert table.sum() == pytest.approx(0.42 / 8)


def test_each_panel_shows_shares_of_its_emd():
    base = firing("baseline", sn1=np.array([0, 0, 50, 900]))
    other = firing("other", sn1=np.array([0, 20, 50, 500]))
    figure = draw_flows(base, [other, base])
    one, none = figure.axes
    shown = {text.get_position(): text.get_text() for text in one.texts}
    assert shown == {(0.5, 3.5): "5", (8.5, 7.5): "95"}
    assert [axis.get_title(loc="left") for axis in (one, none)] == [
        "other\nEMD 0.0100: 5 % by firing more",
        "baseline\nEMD 0.0100",
    ]
    assert not none.texts
    assert len(one.get_xticks()) == len(EDGES)


def test_rates_over_one_are_in_the_last_bin():
    table = coupling_work(
        firing("baseline", out=np.array([2500])), firing("x", out=np.zeros(1))
    )
    assert table[-1, 0] == 1
