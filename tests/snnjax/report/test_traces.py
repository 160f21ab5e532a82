"""The marks of the charts are the spikes and potentials of the image."""

import numpy as np
import pytest

pytest.importorskip("altair")

from snnjax.report import charts, traces

RNG = np.random.default_rng(0)
SPIKES = {"a": RNG.integers(0, 2, (20, 3, 4, 5)), "b": RNG.integers(0, 2, (20, 3, 8))}
MEMBRANES = {name: RNG.normal(0, 1, x.shape) for name, x in SPIKES.items()}


def rows(chart):
    """The data of each row of a chart, and its title."""
    spec = charts.to_dict(chart)
    for row in spec["vconcat"]:
        data = row.get("data") or row["layer"][0]["data"]
        yield spec["datasets"][data["name"]]


def test_a_tick_is_a_spike():
    [first, second] = rows(traces.plot_raster(SPIKES, image=2, neurons=8))
    found = {(row["time step"], row["neuron"]) for row in second}
    t, neuron = np.nonzero(SPIKES["b"][:, 2])
    assert found == set(zip(t.tolist(), neuron.tolist(), strict=True))
    chosen = {row["neuron"] for row in first}
    assert chosen == {0, 3, 5, 8, 11, 14, 16, 19}
    each = SPIKES["a"][:, 2].reshape(20, -1)
    assert len(first) == each[:, sorted(chosen)].sum()


def test_a_line_is_a_membrane():
    chart = traces.plot_membranes(
        MEMBRANES, spikes=SPIKES, image=1, neurons=2, threshold=1.0
    )
    for (name, v), found in zip(MEMBRANES.items(), rows(chart), strict=True):
        each = v[:, 1].reshape(20, -1)
        fired = SPIKES[name][:, 1].reshape(20, -1)
        assert len(found) == 40
        for row in found:
            place = row["time step"], row["neuron"]
            assert row["membrane"] == pytest.approx(each[place])
            assert row["fired"] == bool(fired[place])
    assert charts.to_png(chart)[1:4] == b"PNG"


@pytest.mark.parametrize(
    "arguments",
    [
        dict(spikes={}),
        dict(spikes={"a": np.zeros((3, 4))}),
        dict(spikes=SPIKES, image=3),
        dict(spikes=SPIKES, neurons=0),
    ],
)
def test_faults_are_named(arguments):
    with pytest.raises(ValueError, match=r"spikes|image|neurons"):
        traces.plot_raster(**arguments)
    with pytest.raises(ValueError, match="spikes"):
        traces.plot_membranes(MEMBRANES, spikes={"a": np.zeros((20, 3, 2))})
