"""The noise floor on a network whose neurons and images are known."""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from snnjax import firing
from snnjax.firing import FiringCounts

T, NEURONS, FEATURES, IMAGES, BATCHES = 4, 600, 30, 256, 32


def counts(spikes):
    """Of spikes [images, neurons] summed over time; in two layers."""
    both = np.split(spikes.sum(0), [NEURONS // 3])
    return FiringCounts(dict(zip("ab", both, strict=True)), T * len(spikes))


class Network:
    """Mostly silent neurons, driven together by what is in an image."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        rates = self.rng.beta(0.4, 3, NEURONS) + 1e-6
        self.drive = np.float32(np.log(rates / (1 - rates)))
        load = self.rng.normal(size=(FEATURES, NEURONS))
        self.load = np.float32(load * 1.2 / np.sqrt(FEATURES))

    def see(self, images=IMAGES, shift=0.0):
        features = self.rng.standard_normal((images, FEATURES), np.float32)
        rates = 1 / (1 + np.exp(-self.drive - features @ self.load))
        # Step by step: NumPy's binomial takes three times as long.
        drawn = self.rng.random((T, images, NEURONS), np.float32)
        return (drawn < rates + np.float32(shift)).sum(0, dtype=np.int32)


@pytest.fixture(scope="module")
def network():
    return Network(seed=0)


@pytest.fixture(scope="module")
def batches(network):
    spikes = network.see()
    return [counts(spikes[i::BATCHES]) for i in range(BATCHES)]


@pytest.mark.slow
def test_halves_of_one_network_are_rarely_flagged_and_a_shift_nearly_always(
    network, batches
):
    floor = firing.noise_floor(batches)
    flagged, found = [], []
    for _ in range(200):
        spikes = network.see()
        one, two = counts(spikes[::2]), counts(spikes[1::2])
        flagged.append(firing.report(one, two).emd_mean > floor.critical_mean)
        shifted = counts(network.see(IMAGES // 2, shift=2 * floor.emd_mean))
        found.append(firing.report(one, shifted).emd_mean > floor.critical_mean)
    assert np.mean(flagged) <= 0.1
    assert np.mean(found) >= 0.9


@pytest.mark.slow
def test_bootstrap_is_the_noise_of_as_many_images(network, batches):
    floor = firing.noise_floor(batches, method="bootstrap")
    noise = [
        firing.report(counts(network.see()), counts(network.see())).emd_mean
        for _ in range(60)
    ]
    assert np.mean(noise) == pytest.approx(floor.emd_mean, rel=0.15)
    assert np.mean(np.array(noise) > floor.critical_mean) <= 0.1
    # Twice the images, so about 1 / sqrt(2) of the halves'.
    halves = firing.noise_floor(batches)
    assert 0.6 < floor.emd_mean / halves.emd_mean < 0.9


def test_of_two_sets_of_images_there_is_one_split():
    rng = np.random.default_rng(0)
    parts = [rng.binomial(T, 0.2, (n, NEURONS)) for n in (3, 5)]
    floor = firing.noise_floor([counts(part) for part in parts])
    rates = [np.split(part.mean(0) / T, [NEURONS // 3]) for part in parts]
    for layer, x, y in zip("ab", *rates, strict=True):
        expected = wasserstein_distance(x, y)
        assert floor.emd[layer] == pytest.approx(expected, rel=1e-12)
        assert floor.critical_value[layer] == pytest.approx(expected, rel=1e-12)
    assert floor.emd_mean == pytest.approx(np.mean(list(floor.emd.values())))
    assert floor.critical_mean == pytest.approx(floor.emd_mean, rel=1e-12)


@pytest.mark.parametrize("method", ["halves", "bootstrap"])
def test_a_level_is_the_share_of_replicates_above_it_and_a_seed_repeats(
    method, batches
):
    five, twenty = (
        firing.noise_floor(batches, method=method, alpha=level, seed=3)
        for level in (0.05, 0.2)
    )
    assert five.emd == twenty.emd
    for layer in "ab":
        assert (
            five.emd[layer] < twenty.critical_value[layer] < five.critical_value[layer]
        )
    assert firing.noise_floor(batches, method=method, seed=3) == five
    assert firing.noise_floor(batches, method=method, seed=4) != five


def test_silent_and_identical_sets_have_no_floor():
    for level in (0, 2, T):
        batch = counts(np.full((4, NEURONS), level))
        floor = firing.noise_floor([batch] * 3)
        assert floor == ({"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 0.0}, 0.0, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(method="jackknife"), "method .*'jackknife'"),
        (dict(alpha=0), "alpha"),
        (dict(alpha=1.0), "alpha"),
        (dict(alpha=0.05, replicates=19), r"got 0\.05 and 19"),
    ],
)
def test_it_refuses_nonsense(options, message):
    batch = counts(np.ones((4, NEURONS), int))
    with pytest.raises(ValueError, match=message):
        firing.noise_floor([batch, batch], **options)


def test_it_needs_two_sets_of_images_of_the_same_layers():
    batch = counts(np.ones((4, NEURONS), int))
    for few in ([], [batch]):
        with pytest.raises(ValueError, match=f"two sets of images, got {len(few)}"):
            firing.noise_floor(few)
    with pytest.raises(ValueError, match="have no layers"):
        firing.noise_floor([FiringCounts({}, 4)] * 2)
    with pytest.raises(ValueError, match="counts of a must be integers"):
        firing.noise_floor([FiringCounts({"a": np.ones(3)}, 4)] * 2)
    other = FiringCounts({"a": batch.spikes["a"]}, batch.observations)
    with pytest.raises(ValueError, match=r"different: \['b'\]"):
        firing.noise_floor([batch, other])


@pytest.mark.parametrize(
    ("images", "other", "groups"),
    [
        (1024, 32, 32),
        *(
            pytest.param(*sizes, marks=pytest.mark.slow)
            for sizes in [(1024, 256, 32), (1024, 100, 64), (256, 1024, 32)]
        ),
    ],
)
def test_a_network_on_fewer_or_more_images_has_not_drifted(images, other, groups):
    flagged, found, plain = [], [], []
    for seed in range(10):
        network = Network(seed)
        spikes = network.see(images)
        batches = [counts(spikes[i::groups]) for i in range(groups)]
        options = dict(method="bootstrap", replicates=100)
        floor = firing.noise_floor(batches, other_observations=T * other, **options)
        equal = firing.noise_floor(batches, **options)
        for _ in range(10):
            report = firing.report(counts(spikes), counts(network.see(other)))
            flagged.append(report.emd_mean > floor.critical_mean)
            plain.append(report.emd_mean > equal.critical_mean)
        shifted = counts(network.see(other, shift=2 * floor.critical_mean))
        found.append(
            firing.report(counts(spikes), shifted).emd_mean > floor.critical_mean
        )
    # 5 of 100 are expected at most; 10 come by chance in 1 of 100 such tests.
    assert np.mean(flagged) <= 0.1
    assert np.mean(found) >= 0.9
    if other < images:  # what the size is for
        assert np.mean(plain) >= 0.5


def test_as_many_observations_give_the_floor_of_equal_sides(batches):
    plain = firing.noise_floor(batches, method="bootstrap")
    sized = firing.noise_floor(
        batches, method="bootstrap", other_observations=T * IMAGES
    )
    assert sized == plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(other_observations=400), "needs method='bootstrap'"),
        (dict(other_observations=T * 7, method="bootstrap"), "at least a batch's, 32"),
        (dict(other_observations=0, method="bootstrap"), "other_observations must be"),
    ],
)
def test_it_refuses_sizes_that_it_cannot_draw(batches, options, message):
    with pytest.raises(ValueError, match=message):
        firing.noise_floor(batches, **options)
