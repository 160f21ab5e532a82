import itertools
import re

import numpy as np
import pytest
from calibrated import Net, batches, darken

from snnjax import calibrate, data
from snnjax.calibrate import allocate
from snnjax.quantize import QuantSpec

CHOICES = (2, 3, 4, 8)


def problem(seed, layers=5):
    rng = np.random.default_rng(seed)
    names = [f"l{i}" for i in range(layers)]
    drifts = {n: {b: float(rng.random() / b) for b in CHOICES} for n in names}
    return drifts, {n: int(rng.integers(10, 100)) for n in names}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_the_choice_is_the_best_of_all(seed, share):
    drifts, sizes = problem(seed)
    budget = int(8 * share * sum(sizes.values()))
    best = min(
        sum(drifts[n][b] for n, b in zip(drifts, bits, strict=True))
        for bits in itertools.product(CHOICES, repeat=len(drifts))
        if sum(sizes[n] * b for n, b in zip(drifts, bits, strict=True)) <= budget
    )
    chosen = allocate.choose_bits(drifts, sizes, budget)
    assert sum(sizes[n] * b for n, b in chosen.items()) <= budget
    assert sum(drifts[n][b] for n, b in chosen.items()) == pytest.approx(best)


def test_the_greedy_choice_keeps_the_budget(monkeypatch):
    drifts, sizes = problem(0, 20)
    budget = 4 * sum(sizes.values())
    exact = allocate.choose_bits(drifts, sizes, budget)
    monkeypatch.setattr(allocate, "_MOST_CHOICES", 10)
    greedy = allocate.choose_bits(drifts, sizes, budget)
    assert sum(sizes[n] * b for n, b in greedy.items()) <= budget
    drift = lambda chosen: sum(drifts[n][b] for n, b in chosen.items())  # noqa: E731
    assert drift(exact) <= drift(greedy) < drift(dict.fromkeys(sizes, 2))


@pytest.mark.slow
def test_bits_of_a_network_fit_the_budget():
    model, images = Net(), batches()
    sizes = {"conv1": 9 * 2 * 6, "conv2": 9 * 6 * 4}
    layers = list(sizes)
    budget = (3 * sizes["conv1"] + 4 * sizes["conv2"]) / 8000
    chosen = calibrate.allocate_bits(model, images, budget, layers=layers)
    assert set(chosen) == set(layers)
    assert sum(sizes[n] * b for n, b in chosen.items()) <= 8000 * budget + 1e-9
    rules = {re.escape(n): QuantSpec(bits=b, clip="mse") for n, b in chosen.items()}
    calibrate.quantize(model, rules)
    # By default the first and the last layer are left in full precision.
    assert set(calibrate.allocate_bits(model, images, 1.0)) == {"conv2"}
    with pytest.raises(ValueError, match="budget_kb must be at least"):
        calibrate.allocate_bits(model, images, 0.001)
    with pytest.raises(ValueError, match="layers must be"):
        calibrate.allocate_bits(model, images, 1.0, layers=["conv9"])
    with pytest.raises(ValueError, match="spec must be"):
        calibrate.allocate_bits(model, images, 1.0, spec=QuantSpec("lsq", bits=3))


@pytest.mark.slow
def test_batchnorm_alone_sees_augmented_images(monkeypatch):
    model, seen = Net(), []
    real = allocate.reestimate_batchnorm

    def reestimate(model, batches, **options):
        seen.append(np.mean(batches))
        return real(model, batches, **options)

    monkeypatch.setattr(allocate, "reestimate_batchnorm", reestimate)
    pixels = np.full((8, *batches()[0].shape[1:]), 100, np.uint8)
    dataset = data.from_arrays(pixels, np.arange(8) % 3)
    options = dict(bits=(2, 8), images=8, batch_size=4)
    calibrate.allocate_bits(model, dataset, 1.0, augment=darken, **options)
    expected = np.mean(data.normalize(pixels // 2, dataset.mean, dataset.std))
    assert seen
    np.testing.assert_allclose(seen, expected, 1e-5)


@pytest.mark.nightly
def test_membranes_have_bits_of_the_same_budget():
    model, images = Net(), batches()
    sizes = {"conv1": 9 * 2 * 6, "conv2": 9 * 6 * 4, "sn1": 6 * 36, "sn2": 4 * 36}
    budget = 4 * sum(sizes.values()) / 8000
    chosen = calibrate.allocate_bits(
        model,
        images,
        budget,
        layers=["conv1", "conv2"],
        membrane_spec=QuantSpec(bits=4, clip=1.0),
    )
    assert chosen.keys() == sizes.keys()
    assert sum(sizes[n] * b for n, b in chosen.items()) <= 8000 * budget + 1e-9
    spec = QuantSpec("lsq", bits=4)
    with pytest.raises(ValueError, match="membrane_spec must be a uniform"):
        calibrate.allocate_bits(model, images, budget, membrane_spec=spec)
