import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from snnjax import firing, report
from snnjax.firing import FiringCounts
from snnjax.models.connections import Synapse


def record(seed, shift=0.0, groups=8, neurons=(40, 25), each=64):
    rng = np.random.default_rng(seed)
    rates = np.random.default_rng(9).beta(0.4, 2, sum(neurons))
    parts, start = {}, 0
    for place, number in enumerate(neurons):
        rate = np.clip(rates[start : start + number] + shift, 0, 1)
        parts[f"layer.{place}"] = rng.binomial(each, rate, (groups, number))
        start += number
    spikes = {name: part.sum(0) for name, part in parts.items()}
    return FiringCounts(spikes, each * groups, parts)


def test_numbers_are_those_of_scipy(tmp_path):
    one, two = record(1), record(2, 0.05)
    card = report.compare(one, two, margin=0.25)
    card.to_json(tmp_path / "card.json")
    numbers = json.loads((tmp_path / "card.json").read_text())
    assert numbers["schema"]
    assert numbers["margin"] == 0.25
    assert numbers["verdict"] == card.verdict.state == "below_margin"
    for name, layer in numbers["layers"].items():
        x, y = one.rates()[name], two.rates()[name]
        w1 = scipy.stats.wasserstein_distance(x, y)
        assert layer["emd"] == pytest.approx(w1, abs=1e-12)
        assert layer["normed_emd"] == pytest.approx(w1 / x.std())
        assert layer["paired_shift"] == pytest.approx(np.abs(x - y).mean())
        assert layer["mean_shift"] == pytest.approx((y - x).mean())
        assert layer["ks"] == pytest.approx(scipy.stats.ks_2samp(x, y).statistic)
        assert layer["dead"] == np.mean(y < 0.05)
        assert layer["reference_dead"] == np.mean(x < 0.05)
        assert layer["saturated"] == np.mean(y > 0.95)
        low, high = layer["emd_interval"]
        assert low <= layer["emd"] <= high
        assert layer["neurons"] == x.size


def test_numbers_that_are_not_finite_are_null(tmp_path):
    one = FiringCounts({"a": np.array([1])}, 4)
    two = FiringCounts({"a": np.array([2])}, 4)
    card = report.compare(one, two)
    assert card.layers["a"]["normed_emd"] == np.inf
    card.to_json(tmp_path / "a.json")

    def refuse(text):
        pytest.fail(f"{text} is no JSON")

    numbers = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert numbers["layers"]["a"]["normed_emd"] is None
    assert numbers["verdict"] == "cannot_tell"
    assert str(card)


def test_text_has_every_layer_and_its_numbers():
    card = report.compare(record(1), record(2, 0.05))
    lines = str(card).splitlines()
    for name, numbers in card.layers.items():
        (line,) = (line for line in lines if line.startswith(name))
        assert f"{numbers['emd']:.5f}" in line
        assert f"{numbers['paired_shift']:.5f}" in line


def test_synaptic_operations():
    synapse = Synapse("fc", ("layer.1",), "add", (), (), (), (25,), (10,))
    one, two = record(1), record(2, 0.05)
    card = report.compare(one, two, synapses=[synapse], timesteps=4)
    expected = [
        c.spikes["layer.1"].sum() * 10 / (c.observations / 4) for c in (one, two)
    ]
    assert card.operations["fc"] == pytest.approx(expected)
    assert card.to_dict()["synaptic_operations"]["fc"] == pytest.approx(expected)
    assert str(card)
    with pytest.raises(ValueError, match="timesteps"):
        report.compare(one, two, synapses=[synapse])
    with pytest.raises(ValueError, match="timesteps"):
        report.compare(one, two, synapses=[synapse], timesteps=5)
    pair = [FiringCounts(one.spikes, n, inputs_id="a") for n in (1600, 3200)]
    with pytest.raises(ValueError, match="recordings of one T"):
        report.compare(*pair, synapses=[synapse], timesteps=4)


def test_table_is_a_row_a_layer():
    pytest.importorskip("pandas")
    card = report.compare(record(1), record(2))
    table = card.table
    assert list(table.index) == list(card.layers)
    for name, numbers in card.layers.items():
        assert table.loc[name, "emd"] == numbers["emd"]
        assert [table.loc[name, f"emd_{end}"] for end in ("low", "high")] == numbers[
            "emd_interval"
        ]


def test_a_missing_extra_gives_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    card = report.compare(record(1), record(1))
    with pytest.raises(ImportError, match=r"snnjax\[report\]"):
        card.table  # noqa: B018


def test_ranking_is_by_mean_emd():
    one = record(1)
    cards = {
        str(shift): report.compare(one, record(2, shift)) for shift in (0.01, 0.1, 0.04)
    }
    assert list(report.rank(cards)) == ["0.1", "0.04", "0.01"]


@pytest.mark.slow
def test_a_large_card():
    rng = np.random.default_rng(0)
    parts = {f"{i}": rng.integers(0, 5, (20, 2000)) for i in range(50)}
    spikes = {name: part.sum(0) for name, part in parts.items()}
    counts = FiringCounts(spikes, 100, parts)
    assert len(report.compare(counts, counts).layers) == 50
    plain = FiringCounts({"a": rng.integers(0, 100, 10**6)}, 100)
    assert report.compare(plain, plain).verdict.state == "no_drift"
    assert firing.verdict(plain, plain).layers["a"].p_value is None


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("neurons", "groups"), [(10_000, 20), (100_000, None)], ids=["groups", "plain"]
)
def test_large_recordings_take_seconds(neurons, groups):
    """100 layers. Measured on a core: 5.3 s and 0.75 GB, 0.5 s and 0.4 GB."""
    script = f"""
import time
from pathlib import Path
import numpy as np
from snnjax import report
from snnjax.firing import FiringCounts
def record(seed):
    rng = np.random.default_rng(seed)
    shape = {(groups, neurons) if groups else neurons}
    made = {{f"sn{{i}}": rng.binomial(64, 0.2, shape) for i in range(100)}}
    if {groups}:
        totals = {{name: each.sum(0) for name, each in made.items()}}
        return FiringCounts(totals, 64 * {groups}, made)
    return FiringCounts(made, 64)
one, two = record(0), record(1)
start = time.monotonic()
str(report.compare(one, two))
print(time.monotonic() - start)
# Of this program: the resource module's number counts the parent's memory too.
status = Path("/proc/self/status").read_text()
print(int(status.partition("VmHWM:")[2].split()[0]) / 1e6)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, gigabytes = map(float, done.stdout.split())
    assert seconds < 60
    assert gigabytes < 4
