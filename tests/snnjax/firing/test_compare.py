from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, wasserstein_distance

from snnjax import firing
from snnjax.firing import FiringCounts


def some_counts(k, seed=0, layers=(("a", (6, 5)), ("b", (40,)))):
    rng = np.random.default_rng(seed)
    return FiringCounts(
        {n: rng.integers(0, k + 1, s, dtype=np.int32) for n, s in layers}, k
    )


def test_summary_at_the_edges_of_dead_and_saturated():
    k = 40_000
    spikes = {
        "a": np.array([[0, 1999], [2000, 2001]]),  # 2000 / 40000 is 0.05: not dead
        "b": np.array([37_999, 38_000, 38_001, k]),  # 0.95: not saturated
    }
    summary = firing.summary(FiringCounts(spikes, k))
    assert summary.dead_fraction == 2 / 8
    assert summary.saturated_fraction == 2 / 8
    assert summary.mean_rate == pytest.approx((6000 + 114_000 + k) / (8 * k), rel=1e-15)


def test_every_neuron_weighs_the_same_in_the_summary():
    summary = firing.summary(
        FiringCounts({"a": np.full((3, 3), 4), "b": np.array([0])}, 4)
    )
    assert summary == (0.9, 0.1, 0.9)


@st.composite
def two_networks(draw):
    ks = draw(st.tuples(*[st.integers(1, 50) | st.integers(1, 10**5)] * 2))
    n = draw(st.integers(1, 8))
    layers = (draw(st.lists(st.integers(0, k), min_size=n, max_size=n)) for k in ks)
    pairs = zip(layers, ks, strict=True)
    return [FiringCounts({"a": np.array(c, np.int32)}, k) for c, k in pairs]


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(two_networks())
def test_mean_shift_emd_and_paired_shift_are_in_order(networks):
    # No tolerance: each is a whole number over a whole number, rounded once.
    report = firing.report(*networks)
    shift, w1, paired = (
        d["a"] for d in (report.mean_shift, report.emd, report.paired_shift)
    )
    assert abs(shift) <= w1 <= paired
    x, y = ([Fraction(int(s), c.observations) for s in c.spikes["a"]] for c in networks)
    moves = [b - a for a, b in zip(x, y, strict=True)]
    sorted_moves = [b - a for a, b in zip(sorted(x), sorted(y), strict=True)]
    assert shift == float(sum(moves) / len(x))
    assert w1 == float(sum(map(abs, sorted_moves)) / len(x))
    assert paired == float(sum(map(abs, moves)) / len(x))


def test_a_permutation_moves_no_mass_but_every_neuron():
    counts = FiringCounts({"a": np.arange(10, dtype=np.int32)}, 9)
    report = firing.report(counts, FiringCounts({"a": np.arange(10)[::-1]}, 9))
    assert report.emd == {"a": 0.0}
    assert report.mean_shift == {"a": 0.0}
    assert report.paired_shift["a"] == float(Fraction(50, 9) / 10)


def test_shifts_of_many_observations_do_not_overflow():
    kx, ky = 2**31 - 1, 2**31 - 3  # without a common divisor
    silent = FiringCounts({"a": np.zeros(5, np.int32)}, kx)
    saturated = FiringCounts({"a": np.full(5, ky, np.int32)}, ky)
    assert firing.paired_shift(silent, saturated) == {"a": 1.0}
    assert firing.mean_shift(saturated, silent) == {"a": -1.0}


@pytest.mark.parametrize(("method", "rel"), [("exact", 1e-12), ("ott", 1e-5)])
def test_report_is_scipys(method, rel):
    reference, other = some_counts(40), some_counts(60, seed=1)
    report = firing.report(reference, other, method=method)
    x, y = reference.rates(), other.rates()
    expected = {n: wasserstein_distance(x[n].ravel(), y[n].ravel()) for n in x}
    assert report.emd == pytest.approx(expected, rel=rel)
    assert all(type(w1) is float for w1 in report.emd.values())
    assert report.emd_mean == pytest.approx(sum(expected.values()) / 2, rel=rel)
    shifts = {n: y[n] - x[n] for n in x}
    assert report.mean_shift == pytest.approx({n: d.mean() for n, d in shifts.items()})
    paired = {n: np.abs(d).mean() for n, d in shifts.items()}
    assert report.paired_shift == pytest.approx(paired)
    rates = np.concatenate([y["a"].ravel(), y["b"]])
    assert report.mean_rate == pytest.approx(rates.mean())
    assert report.dead_fraction == pytest.approx(np.mean(rates < 0.05))
    assert report.saturated_fraction == pytest.approx(np.mean(rates > 0.95))
    ks = {n: ks_2samp(x[n].ravel(), y[n].ravel(), method="asymp") for n in x}
    assert report.ks == pytest.approx({n: found.statistic for n, found in ks.items()})
