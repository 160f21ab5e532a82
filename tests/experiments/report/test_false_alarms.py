"""From counts to verdicts: networks that fire as they would without a quantizer."""

import numpy as np
import pytest
from planted import LAYERS, MEMBRANE, WEIGHTS, a_row, quantized

from experiments.report.judged import group_settings, judge
from experiments.sampling import bound_sampling_emd
from snnjax import firing
from snnjax.firing import FiringCounts

NEURONS, GROUPS, OBSERVATIONS = 100, 16, 400
# How far the logarithms of rates move by each procedure, without a quantizer: each
# neuron's by itself, and a layer's as one.
MOVES = {"ptq": 0.0, "ptq_bn": 0.02, "qat": 0.1}
REFERENCES = {"ptq_bn": "fp32_bn", "qat": "control"}


class Baseline:
    """A network's rates, and what the test images add to them: the same for copies."""

    def __init__(self, rng):
        self.rng = rng
        size = (len(LAYERS), NEURONS)
        self.logs = np.log(rng.beta(1, 6, size) + 1e-3)
        self.images = 0.1 * rng.standard_normal((GROUPS, *size))

    def record(self, moved, shift=0.0):
        """Count the spikes of a copy whose neurons moved by chance, and by a shift."""
        layers = self.rng.standard_normal((len(LAYERS), 1))
        away = moved * (self.rng.standard_normal(self.logs.shape) + layers) + shift
        rates = np.minimum(np.exp(self.logs + away + self.images), 1)
        return self.rng.binomial(OBSERVATIONS, rates)


def as_counts(groups):
    return FiringCounts(
        dict(zip(LAYERS, groups.sum(0), strict=True)), GROUPS * OBSERVATIONS
    )


def simulate(seeds, seed, shift=0.0):
    """Return rows of all settings at one bit width, that drift by ``shift`` alone."""
    rows = []
    for number in range(seeds):
        own = Baseline(np.random.default_rng((seed, number)))
        first = own.record(0.0)
        reference = as_counts(first)
        parts = [
            FiringCounts(dict(zip(LAYERS, part, strict=True)), OBSERVATIONS)
            for part in first
        ]
        floor = bound_sampling_emd(parts)
        rows.append(a_row("fp32", seed=number, floor_sampling=floor))
        made = [(REFERENCES[mode], None) for mode in REFERENCES]
        made += [(mode, way) for mode in MOVES for way in WEIGHTS + MEMBRANE]
        for mode, way in made:
            [moved] = [MOVES[m] for m in MOVES if mode in (m, REFERENCES.get(m, ""))]
            groups = own.record(moved, shift if way else 0.0)
            emd = firing.report(reference, as_counts(groups)).emd_mean
            more = {"seed": number, "emd": emd, "floor_sampling": floor}
            rows.append(quantized(way, 2, mode, **more) if way else a_row(mode, **more))
    return rows


@pytest.mark.nightly
@pytest.mark.parametrize(("seeds", "runs"), [(2, 25), (5, 25), (10, 12)])
def test_at_most_one_setting_in_twenty_drifts_by_chance(seeds, runs):
    settings = [group_settings(judge(simulate(seeds, run))) for run in range(runs)]
    for mode in MOVES:
        states = [s for own in settings for s in own.loc[own["mode"] == mode, "state"]]
        assert len(states) == runs * len(WEIGHTS + MEMBRANE)
        assert states.count("drift") <= 0.05 * len(states)


@pytest.mark.nightly
def test_a_drift_beyond_chance_is_found():
    settings = [group_settings(judge(simulate(5, run, shift=0.5))) for run in range(5)]
    found = [(own["state"] == "drift").mean() for own in settings]
    assert np.mean(found) >= 0.9
