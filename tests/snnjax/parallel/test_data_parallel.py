"""The run of one device, on 8 and on 2 processes of 4: the same numbers."""

import functools

import numpy as np
import pytest
import several

from snnjax import data

STEPS, MOVED = 20, "dense"


@pytest.fixture(scope="module")
def run():
    """A network's run on one device and on 8; one is also moved between them."""

    @functools.cache
    def of(net, devices=8, processes=1):
        words = [net, "moved"] if net == MOVED else [net]
        options = {"devices": devices, "processes": processes}
        return several.run("data_parallel", *words, **options)

    return of


def assert_same_run(one, many, devices=8):
    assert one["devices"] == 1
    assert many["devices"] == devices
    assert len(set(one["losses"])) == len(one["losses"]) == STEPS
    np.testing.assert_allclose(many["losses"], one["losses"], rtol=0, atol=1e-9)
    assert many["silent"] == one["silent"]
    # Accuracy, counts of every neuron in every group of images, latencies, time W1.
    assert many["fired"] == one["fired"]
    _, groups, _, time_w1 = one["fired"]
    # A network of so few neurons may have silent layers; most fire.
    fire = [any(np.sum(group[layer]) for group in groups) for layer in time_w1]
    moved = [away > 0 for away in time_w1.values()]
    assert 2 * min(sum(fire), sum(moved)) > len(fire)


NETS = [
    "dense",
    *(pytest.param(name, marks=pytest.mark.nightly) for name in ("sew", "deep", "vgg")),
]


@pytest.mark.nightly
@pytest.mark.parametrize("net", NETS)
def test_8_devices_do_what_one_does(run, net):
    found = run(net)
    assert_same_run(found["one"], found["many"])


@pytest.mark.nightly
@pytest.mark.parametrize("net", NETS)
def test_all_devices_hold_the_same_bits(run, net):
    found = run(net)
    assert found["many"]["leaves"] > 20
    assert found["many"]["equal"]


@pytest.mark.nightly
@pytest.mark.parametrize("net", NETS)
def test_the_network_before_training_stays_the_callers(run, net):
    found = run(net)
    assert found["untouched"]


@pytest.mark.slow
@pytest.mark.parametrize(("way", "devices"), [("to one", 1), ("to many", 8)])
def test_a_run_goes_on_with_another_number_of_devices(run, way, devices):
    """From a file and from the arrays themselves, wherever they lie."""
    found = run(MOVED)
    expected, moved = found["one"]["losses"], found[way]
    np.testing.assert_allclose(moved["file"], expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(moved["arrays"], expected, rtol=0, atol=1e-9)
    assert moved["devices"] == devices
    assert moved["same"]
    assert moved["untouched"]


@pytest.mark.nightly
@pytest.mark.parametrize("net", ["dense", "sew"])
def test_2_processes_of_4_devices_do_what_one_does(run, net):
    one = run(net)["one"]
    processes = run(net, devices=4, processes=2)
    for process in processes:
        assert_same_run(one, process["many"])
        assert process["many"]["equal"]
        assert process["goes on"]
    assert processes[0]["many"] == processes[1]["many"]


@pytest.fixture(scope="module")
def bands():
    return several.run("bands", devices=8)


@pytest.mark.nightly
def test_in_float32_the_curve_lies_inside_the_band_of_seeds(bands):
    one, many = np.array(bands["seeds"]), np.array(bands["many"])
    assert abs(many[0] - one[0, 0]) < 1e-5
    # Means of 10 steps, beside their spread over seeds at that time.
    one, many = (x.reshape(*x.shape[:-1], -1, 10).mean(-1) for x in (one, many))
    assert one[:, -1].max() < 0.9 * one[:, 0].min()  # they learn
    assert np.all(np.abs(many - one[0]) <= np.ptp(one, axis=0))
    assert np.mean(np.abs(many - one[0])) < np.mean(np.std(one, axis=0))


@pytest.mark.nightly
def test_in_float32_few_spikes_of_an_evaluation_differ(bands):
    """None where the weights are the same: an image lies on one device alone."""
    print({k: x for k, x in bands.items() if isinstance(x, int)})  # noqa: T201
    assert bands["spikes"] > 100_000
    assert bands["same weights"] == 0
    # One spike that flips in training leads to others in all layers behind.
    assert bands["own weights"] < 0.25 * bands["another seed"]


@pytest.mark.parametrize("n", [1, 2, 4, 12])
def test_the_parts_of_a_batch_move_as_in_the_whole(key, n):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (12, 6, 5, 2), np.uint8)
    whole = data.augment(key, images, pad=2)
    assert (whole != images).any()
    parts = [
        data.augment(key, part, pad=2, part=(i, n))
        for i, part in enumerate(np.split(images, n))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
